// SPDX-License-Identifier: BSD-3-Clause
/// lib/base (L0): the words every other library speaks.
///
///   Iova, Gpa, Uva     addresses that cannot be mixed up        address.hh
///   IovaRange, GpaRange  inclusive [first, last]                address.hh
///   EndpointId, DomainId  the spec's 32-bit names               address.hh
///   Access             read, write, MMIO                        address.hh
///   Status             the spec's VIRTIO_IOMMU_S_* codes        status.hh
///   Result<T>          a value, or an Error for the operator    result.hh
///   le<T>              little-endian bytes in a wire structure  endian.hh
///   parse_bdf          "0000:00:04.0" <-> EndpointId         bdf.hh
///   Counter            one writer, any number of readers        counter.hh
///   Fd                 an owned file descriptor                 fd.hh
///   Atomic, full_fence  what writer and readers share           atomic.hh
///
/// Not included here: unix_socket.hh, what messages over unix sockets have in common.
#pragma once

#include "address.hh"
#include "atomic.hh"
#include "bdf.hh"
#include "counter.hh"
#include "endian.hh"
#include "fd.hh"
#include "result.hh"
#include "status.hh"
