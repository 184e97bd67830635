// SPDX-License-Identifier: BSD-3-Clause
/// lib/guest (L3): a guest and its VMM in user space.
///
/// It stands where a virtual machine would: for tests, for the demo (examples/guest) and for
/// benchmarks. Everything it sends, a VMM and a Linux guest send; what it knows of the daemon is
/// its sockets. It uses no DPDK.
///
///   memory.hh        RAM: a memfd, banks at GPAs, pages near or scattered
///   channel.hh       a unix socket with descriptors and time limits
///   frontend.hh      the VMM: vhost-user as Cloud Hypervisor, or QEMU, speaks it
///   dirty_log.hh     the bitmap of a live migration
///   dma.hh           how a driver makes memory visible to a device; bus addresses
///   driver_queue.hh  the driver's side of a virtqueue, split or packed, in scattered memory too
///   ring.hh          what its formats have in common; split_ring.hh, packed_ring.hh
///   request.hh       virtio-iommu requests and answers as values
///   iommu_driver.hh  the virtio-iommu driver: synchronous requests, raw requests, fault events
///   paged_dma.hh     a domain's memory: IOVAs, MAP and UNMAP in batches
///   buffer_pool.hh   packet buffers, mapped once or for every packet
///   net_queue.hh     a virtio-net queue: polled bursts, mergeable buffers, virtio headers
///   net_control.hh   its controlq
///   net_driver.hh    the virtio-net driver: pairs of queues, negotiation, reconnection
///   packets.hh       frames as a network stack makes and reads them
///   guest.hh         all of it together: Guest::create({...})
///
///   daemon_process.hh  a dpdk-viommu of one's own, for tests and benchmarks (not included here)
///
/// From bottom to top: drivers write *bus addresses*. To the IOMMU's own driver these are GPAs; to
/// a network driver they are whatever its Dma returned, and only the Dma knows that an IOMMU is
/// there. The VMM then either knows about the IOMMU (RingAddresses::kIova) or takes ring addresses
/// for GPAs (kUva): the same guest is used for both.
///
/// Rings: a driver accepts what its options' `features` name and the device offers; kRingFeatures
/// are those about rings, and `required` makes the absence of one an error. Neither driver accepts
/// packed rings, EVENT_IDX or IN_ORDER unless told to.
///
/// What is *not* modelled: interrupts are not waited for (drivers poll; DriverQueue and call fds
/// are there for tests of them), and one thread is the whole guest.
///
/// A test that wants to misbehave finds the seams in: Frontend::raw() and exchange() for messages,
/// IommuDriver::submit_raw() and submit_segments() for requests, DriverQueue::add() for chains.
#pragma once

#include "buffer_pool.hh"
#include "channel.hh"
#include "dirty_log.hh"
#include "dma.hh"
#include "driver_queue.hh"
#include "eventfd.hh"
#include "frontend.hh"
#include "guest.hh"
#include "iommu_driver.hh"
#include "memory.hh"
#include "net_control.hh"
#include "net_driver.hh"
#include "net_queue.hh"
#include "packets.hh"
#include "paged_dma.hh"
#include "request.hh"
