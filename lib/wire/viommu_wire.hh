// SPDX-License-Identifier: BSD-3-Clause
/// lib/wire (L1): bytes that cross a trust boundary, and nothing else.
///
///   virtio_iommu.hh  virtio-iommu configuration, requests, properties, faults   virtio 1.3, 5.13
///   virtio_ring.hh   split and packed virtqueues virtio 1.3, 2.7, 2.8 virtio_net.hh    virtio-net
///   configuration and packet header                 virtio 1.3, 5.1 vhost_user.hh    vhost-user
///   messages                                        QEMU's vhost-user.rst config_window.hh what a
///   read of a part of a configuration space gives decode.hh        from a private copy of the
///   guest's bytes to a request
///
/// Structures are the specification's, whole, spelled as it spells them. Nothing here holds state,
/// and nothing here reads guest memory: callers copy first, so that each byte is read once.
#pragma once

#include "config_window.hh"
#include "decode.hh"
#include "vhost_user.hh"
#include "virtio_iommu.hh"
#include "virtio_net.hh"
#include "virtio_ring.hh"
