// SPDX-License-Identifier: BSD-3-Clause
/// lib/net (L3): the device side of virtio-net on translated rings (virtio 1.3, 5.1).
///
///   iova_space.hh  what an address in a ring means: IOVA -> GPA -> our memory
///   counters.hh    packets, bytes, and a reason for every drop
///   net_queue.hh   what all queues of a port have in common: ring, reader, bursts
///   transmit_queue.hh  packets from the guest
///   receive_queue.hh   packets to the guest
///   port.hh        NetPort: a NIC of a guest, queue pairs of bursts of rte_mbuf
///
/// Every ring and buffer address is an IOVA of the port's endpoint. A burst is one reader section
/// (lib/xlate): what is translated in it may be touched in it and not after, so an UNMAP that the
/// guest sees answered is an UNMAP that no packet outlives.
///
/// When not to use it: a guest without an IOMMU is served as well by librte_vhost
/// itself.
#pragma once

#include "counters.hh"
#include "iova_space.hh"
#include "port.hh"
