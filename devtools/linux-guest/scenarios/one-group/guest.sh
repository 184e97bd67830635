# SPDX-License-Identifier: BSD-3-Clause

use_two 8
