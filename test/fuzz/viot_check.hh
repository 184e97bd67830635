// SPDX-License-Identifier: BSD-3-Clause
/// A reader of the ACPI VIOT (ACPI 6.4, 5.2.33) as an operating system's: by offsets, with no code
/// of lib/viot's.
#pragma once

#include <map>

#include "input.hh"
#include "viommu_base.hh"

namespace viommu::fuzz {

/// The table says that exactly `endpoints` are behind the virtio-pci IOMMU at `iommu`, each with
/// its own PCI address as its ID, and nothing else.
inline void check_viot(std::span<const std::byte> table, EndpointId iommu,
                       std::span<const EndpointId> endpoints) {
    const auto number = [&](size_t offset, unsigned bytes) {
        require(offset + bytes <= table.size(), "VIOT: a field at {} of {} bytes", offset,
                table.size());
        uint32_t value = 0;
        for (unsigned i = bytes; i-- > 0;) value = value << 8 | uint8_t(table[offset + i]);
        return value;
    };
    require(table.size() >= 48 && std::memcmp(table.data(), "VIOT", 4) == 0, "VIOT: no signature");
    require(number(4, 4) == table.size(), "VIOT: length {} of {}", number(4, 4), table.size());
    uint8_t sum = 0;
    for (const std::byte b : table) sum = uint8_t(sum + uint8_t(b));
    require(sum == 0, "VIOT: the bytes sum up to {}", sum);

    std::map<EndpointId, EndpointId> ids;  // PCI address to endpoint ID
    unsigned iommus = 0;
    size_t at = number(38, 2);
    require(at == 48, "VIOT: the first node is at {}", at);
    for (unsigned node = 0; node < number(36, 2); ++node) {
        const size_t bytes = number(at + 2, 2);
        const unsigned type = number(at, 1);
        require(type == 3 ? bytes == 16 : type == 1 && bytes == 24, "VIOT: node {} of {} bytes",
                type, bytes);
        if (type == 3) {
            ++iommus;
            require(at == 48, "VIOT: the IOMMU is not where the others look for it");
            require((number(at + 4, 2) << 16 | number(at + 6, 2)) == iommu, "VIOT: other IOMMU");
        } else {
            require(number(at + 16, 2) == 48, "VIOT: a range is behind something else");
            require(number(at + 8, 2) == number(at + 10, 2), "VIOT: a range of two segments");
            const uint32_t first = number(at + 12, 2), last = number(at + 14, 2);
            require(first <= last, "VIOT: a range runs backwards");
            for (uint32_t bdf = first; bdf <= last; ++bdf) {
                const EndpointId address = number(at + 8, 2) << 16 | bdf;
                require(ids.emplace(address, number(at + 4, 4) + (bdf - first)).second,
                        "VIOT: {} twice", format_bdf(address));
            }
        }
        at += bytes;
    }
    require(at == table.size(), "VIOT: {} bytes behind the last node", table.size() - at);
    require(iommus == 1, "VIOT: {} IOMMUs", iommus);
    require(ids.size() == endpoints.size(), "VIOT: {} endpoints of {}", ids.size(),
            endpoints.size());
    for (const EndpointId e : endpoints)
        require(ids.contains(e) && ids[e] == e, "VIOT: {} is not there, or is another",
                format_bdf(e));
}

}  // namespace viommu::fuzz
