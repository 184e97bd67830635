// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <optional>

#include "viommu_net.hh"

namespace viommu::app {

/// Have a device's queue n get what its guest wants by pair n, as far as the device can: then
/// packets come by the lcore that serves their pair. Where it cannot, they are steered on all the
/// same (NetPort::pair_for()), only by way of another lcore.
///
/// `rss`: what the guest has set; nothing: flows over the first `pairs` queues, by the device's own
/// key.
/// `port`: DPDK's, started, with more queues than one, as many as the guest has pairs.
/// Spec:    virtio 1.3, 5.1.6.5.7
/// Errors:  what the device lacks; then it does what it did
/// Threads: control
Result<void> program_rss(uint16_t port, const std::optional<net::Rss>& rss, uint16_t pairs);

}  // namespace viommu::app
