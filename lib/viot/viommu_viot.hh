// SPDX-License-Identifier: BSD-3-Clause
/// lib/viot (L1): the ACPI VIOT, which tells a guest which PCI functions are behind which
/// virtio-iommu, and what their endpoint IDs are.
///
/// ACPI 6.4, 5.2.33 "Virtual I/O Translation Table". The table is
///
///   0   36  ACPI header, signature "VIOT"
///   36  12  number of nodes, offset of the first one
///   48  16  node 3, virtio-iommu based on virtio-pci: where the IOMMU is
///   64  24  node 1, PCI range: one for every run of functions behind it
///
/// An endpoint's ID is its PCI address: segment << 16 | bus << 8 | device << 3 | function.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "viommu_base.hh"

namespace viommu::viot {

/// What the VMM or firmware adds by itself when it is given a body, as QEMU's `-acpitable
/// sig=VIOT,data=FILE` is.
inline constexpr size_t kAcpiHeaderBytes = 36;

/// The whole table for one virtio-pci IOMMU and the endpoints behind it, checksum included.
/// Functions of one segment whose IDs follow one another share a node.
///
/// Errors: no endpoint; one listed twice; the IOMMU listed as its own endpoint; more nodes than a
///         table can count. Says which PCI address.
Result<std::vector<std::byte>> build_table(EndpointId iommu, std::span<const EndpointId> endpoints);

/// What follows the ACPI header.
inline std::span<const std::byte> body_of(std::span<const std::byte> table) {
    return table.subspan(kAcpiHeaderBytes);
}

}  // namespace viommu::viot
