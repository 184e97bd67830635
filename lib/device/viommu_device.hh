// SPDX-License-Identifier: BSD-3-Clause
/// lib/device (L2): the virtio-iommu state machine: features, configuration space, requests,
/// faults. Bytes in, bytes out; it knows no descriptors and no sockets.
#pragma once

#include "device.hh"
