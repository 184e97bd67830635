// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "arguments.hh"

namespace viommu::app {

/// Write the table. Returns the process's exit status; problems go to standard error.
int run_viot(const ViotCommand& command);

}  // namespace viommu::app
