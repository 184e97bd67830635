// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "arguments.hh"

namespace viommu::app {

inline constexpr int kExitServed = 0;
inline constexpr int kExitCannotServe = 1;
inline constexpr int kExitWrongConfig = 2;

/// Serve until a signal says to end, or check the configuration. Returns the exit status; problems
/// go to standard error.
int run_serve(const ServeCommand& command);

}  // namespace viommu::app
