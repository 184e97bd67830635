// SPDX-License-Identifier: BSD-3-Clause
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>

#include "viommu_viot.hh"

namespace viommu::viot {
namespace {

// Structures as ACPI 6.4 lays them out: 5.2.6 (header), 5.2.33 (VIOT).

struct acpi_table_header {
    char signature[4];
    le32 length;
    uint8_t revision;
    uint8_t checksum;
    char oem_id[6];
    char oem_table_id[8];
    le32 oem_revision;
    char creator_id[4];
    le32 creator_revision;
};
static_assert(sizeof(acpi_table_header) == kAcpiHeaderBytes);

struct viot_header {
    le16 node_count;
    le16 node_offset;
    uint8_t reserved[8];
};
static_assert(sizeof(viot_header) == 12);

constexpr uint8_t kNodePciRange = 1;
constexpr uint8_t kNodeVirtioIommuPci = 3;

struct viot_virtio_iommu_pci {
    uint8_t type;
    uint8_t reserved;
    le16 length;
    le16 segment;
    le16 bdf;
    uint8_t reserved2[8];
};
static_assert(sizeof(viot_virtio_iommu_pci) == 16);

struct viot_pci_range {
    uint8_t type;
    uint8_t reserved;
    le16 length;
    le32 endpoint_start;
    le16 segment_start;
    le16 segment_end;
    le16 bdf_start;
    le16 bdf_end;
    le16 output_node;
    uint8_t reserved2[6];
};
static_assert(sizeof(viot_pci_range) == 24);

constexpr size_t kIommuOffset = sizeof(acpi_table_header) + sizeof(viot_header);
constexpr size_t kRangesOffset = kIommuOffset + sizeof(viot_virtio_iommu_pci);

constexpr uint16_t segment_of(EndpointId id) { return uint16_t(id >> 16); }
constexpr uint16_t bdf_of(EndpointId id) { return uint16_t(id); }

struct Run {
    EndpointId first, last;
};

Result<std::vector<Run>> runs_of(EndpointId iommu, std::span<const EndpointId> endpoints) {
    if (endpoints.empty()) return fail("a VIOT needs at least one endpoint behind the IOMMU");
    std::vector<EndpointId> sorted(endpoints.begin(), endpoints.end());
    std::sort(sorted.begin(), sorted.end());
    std::vector<Run> runs;
    for (size_t i = 0; i < sorted.size(); i++) {
        const EndpointId id = sorted[i];
        if (i > 0 && id == sorted[i - 1])
            return fail("endpoint {} is given twice; name each endpoint once", format_bdf(id));
        if (id == iommu)
            return fail("{} is the IOMMU and cannot be an endpoint behind itself", format_bdf(id));
        const bool continues = !runs.empty() && runs.back().last + 1 == id &&
                               segment_of(runs.back().last) == segment_of(id);
        if (continues)
            runs.back().last = id;
        else
            runs.push_back({id, id});
    }
    return runs;
}

template <class T>
void put(std::vector<std::byte>& table, size_t offset, const T& structure) {
    static_assert(std::is_trivially_copyable_v<T>);
    std::memcpy(table.data() + offset, &structure, sizeof structure);
}

acpi_table_header header_of(size_t table_bytes) {
    acpi_table_header h{};
    std::memcpy(h.signature, "VIOT", sizeof h.signature);
    h.length = uint32_t(table_bytes);
    h.revision = 0;
    std::memcpy(h.oem_id, "VIOMMU", sizeof h.oem_id);
    std::memcpy(h.oem_table_id, "DPDKVIOT", sizeof h.oem_table_id);
    h.oem_revision = 1;
    std::memcpy(h.creator_id, "DVIO", sizeof h.creator_id);
    h.creator_revision = 1;
    return h;
}

}  // namespace

Result<std::vector<std::byte>> build_table(EndpointId iommu,
                                           std::span<const EndpointId> endpoints) {
    auto runs = runs_of(iommu, endpoints);
    if (!runs) return tl::unexpected(runs.error());
    if (runs->size() >= std::numeric_limits<uint16_t>::max())
        return fail(
            "{} separate runs of endpoints are more than a VIOT can hold ({}); give "
            "endpoints whose PCI addresses follow one another",
            runs->size(), std::numeric_limits<uint16_t>::max() - 1);

    std::vector<std::byte> table(kRangesOffset + runs->size() * sizeof(viot_pci_range));
    put(table, 0, header_of(table.size()));
    put(table, sizeof(acpi_table_header),
        viot_header{uint16_t(1 + runs->size()), uint16_t(kIommuOffset), {}});
    put(table, kIommuOffset,
        viot_virtio_iommu_pci{kNodeVirtioIommuPci,
                              0,
                              uint16_t(sizeof(viot_virtio_iommu_pci)),
                              segment_of(iommu),
                              bdf_of(iommu),
                              {}});
    size_t offset = kRangesOffset;
    for (const Run& run : *runs) {
        put(table, offset,
            viot_pci_range{kNodePciRange,
                           0,
                           uint16_t(sizeof(viot_pci_range)),
                           run.first,
                           segment_of(run.first),
                           segment_of(run.last),
                           bdf_of(run.first),
                           bdf_of(run.last),
                           uint16_t(kIommuOffset),
                           {}});
        offset += sizeof(viot_pci_range);
    }

    uint8_t sum = 0;
    for (std::byte b : table) sum = uint8_t(sum + uint8_t(b));
    table[offsetof(acpi_table_header, checksum)] = std::byte(uint8_t(-sum));
    return table;
}

}  // namespace viommu::viot
