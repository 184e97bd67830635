// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "viommu_base.hh"

namespace viommu::guest {

/// A non-blocking eventfd, as a VMM makes for kicks and calls.
Result<Fd> make_eventfd();
/// Signal `eventfd`; a counter that is full already has the effect wanted.
void signal_eventfd(int eventfd);
/// Take what was signalled; false: nothing was.
bool drain_eventfd(int eventfd);

}  // namespace viommu::guest
