// SPDX-License-Identifier: BSD-3-Clause
#include <gtest/gtest.h>

#include <initializer_list>
#include <string>

#include "viommu_viot.hh"

namespace viommu::viot {
namespace {

EndpointId bdf(const char* text) { return parse_bdf(text).value(); }

/// Bytes written out by hand, with the checksum left 0.
std::vector<std::byte> bytes(std::initializer_list<int> values) {
    std::vector<std::byte> out;
    for (int v : values) out.push_back(std::byte(v));
    return out;
}

std::vector<std::byte> without_checksum(std::vector<std::byte> table) {
    table.at(9) = std::byte{0};
    return table;
}

uint8_t sum_of(const std::vector<std::byte>& table) {
    unsigned sum = 0;
    for (std::byte b : table) sum += unsigned(b);
    return uint8_t(sum);
}

TEST(Viot, one_endpoint_gives_the_table_of_the_spec) {
    const EndpointId endpoints[] = {bdf("0000:00:04.0")};
    const auto table = build_table(bdf("0000:00:03.0"), endpoints).value();
    const auto expected = bytes({
        // ACPI header: signature, length 88, revision 0, checksum
        'V', 'I', 'O', 'T', 88, 0, 0, 0, 0, 0,
        // OEM ID, OEM table ID, OEM revision, creator ID, creator revision
        'V', 'I', 'O', 'M', 'M', 'U', 'D', 'P', 'D', 'K', 'V', 'I', 'O', 'T', 1, 0, 0, 0,  //
        'D', 'V', 'I', 'O', 1, 0, 0, 0,
        // node count 2, node offset 48, reserved
        2, 0, 48, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        // virtio-iommu-pci: type 3, length 16, segment 0, bdf 00:03.0 = 0x18, reserved
        3, 0, 16, 0, 0, 0, 0x18, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        // PCI range: type 1, length 24, endpoint start 0x20, segments 0-0, bdfs 0x20-0x20, output
        // 48
        1, 0, 24, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0x20, 0, 0x20, 0, 48, 0, 0, 0, 0, 0, 0, 0,  //
    });
    EXPECT_EQ(without_checksum(table), expected);
}

TEST(Viot, every_table_sums_to_zero) {
    for (unsigned n = 1; n < 70; n++) {
        std::vector<EndpointId> endpoints;
        for (unsigned i = 0; i < n; i++) endpoints.push_back(0x100 + i * 3);
        EXPECT_EQ(sum_of(build_table(8, endpoints).value()), 0) << n << " endpoints";
    }
}

TEST(Viot, body_is_what_follows_the_acpi_header) {
    const EndpointId endpoints[] = {bdf("0000:00:04.0")};
    const auto table = build_table(bdf("0000:00:03.0"), endpoints).value();
    const auto body = body_of(table);
    ASSERT_EQ(body.size(), 52u);
    EXPECT_EQ(body[0], std::byte{2});   // node count
    EXPECT_EQ(body[2], std::byte{48});  // offsets still count from the start of the table
}

TEST(Viot, consecutive_functions_share_a_node) {
    const EndpointId endpoints[] = {bdf("00:05.1"), bdf("00:04.7"), bdf("00:05.0"), bdf("00:06.0")};
    const auto table = build_table(bdf("00:03.0"), endpoints).value();
    ASSERT_EQ(table.size(), 64u + 2 * 24u);
    const std::vector<std::byte> ranges(table.begin() + 64, table.end());
    EXPECT_EQ(ranges,
              bytes({
                  1, 0, 24, 0, 0x27, 0, 0, 0, 0, 0, 0, 0, 0x27, 0, 0x29, 0, 48, 0, 0, 0, 0, 0, 0, 0,
                  1, 0, 24, 0, 0x30, 0, 0, 0, 0, 0, 0, 0, 0x30, 0, 0x30, 0, 48, 0, 0, 0, 0, 0, 0, 0,
              }));
}

TEST(Viot, a_range_never_spans_segments) {
    const EndpointId endpoints[] = {bdf("0000:ff:1f.7"), bdf("0001:00:00.0")};
    const auto table = build_table(bdf("00:03.0"), endpoints).value();
    ASSERT_EQ(table.size(), 64u + 2 * 24u);
    const std::vector<std::byte> ranges(table.begin() + 64, table.end());
    EXPECT_EQ(ranges, bytes({
                          1,    0,    24,   0,    0xff, 0xff, 0, 0, 0, 0, 0, 0,  //
                          0xff, 0xff, 0xff, 0xff, 48,   0,    0, 0, 0, 0, 0, 0,  //
                          1,    0,    24,   0,    0,    0,    1, 0, 1, 0, 1, 0,  //
                          0,    0,    0,    0,    48,   0,    0, 0, 0, 0, 0, 0,
                      }));
}

TEST(Viot, iommu_on_another_segment_is_named_with_it) {
    const EndpointId endpoints[] = {bdf("0000:00:04.0")};
    const auto table = build_table(bdf("0002:01:02.3"), endpoints).value();
    const std::vector<std::byte> node(table.begin() + 48, table.begin() + 64);
    EXPECT_EQ(node, bytes({3, 0, 16, 0, 2, 0, 0x13, 1, 0, 0, 0, 0, 0, 0, 0, 0}));
}

TEST(Viot, no_endpoint_is_refused) {
    EXPECT_NE(build_table(0, {}).error().message.find("at least one endpoint"), std::string::npos);
}

TEST(Viot, endpoint_given_twice_is_refused_by_name) {
    const EndpointId endpoints[] = {0x20, 0x28, 0x20};
    EXPECT_NE(build_table(8, endpoints).error().message.find("0000:00:04.0"), std::string::npos);
}

TEST(Viot, iommu_as_its_own_endpoint_is_refused_by_name) {
    const EndpointId endpoints[] = {0x20, 0x28};
    EXPECT_NE(build_table(0x28, endpoints).error().message.find("0000:00:05.0"), std::string::npos);
}

}  // namespace
}  // namespace viommu::viot
