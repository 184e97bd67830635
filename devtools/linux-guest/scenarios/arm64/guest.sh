# SPDX-License-Identifier: BSD-3-Clause
use 1 8
