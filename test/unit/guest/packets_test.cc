// SPDX-License-Identifier: BSD-3-Clause
#include "packets.hh"

#include <gtest/gtest.h>

#include <array>

namespace viommu::guest {
namespace {

std::vector<std::byte> bytes(std::initializer_list<int> values) {
    std::vector<std::byte> out;
    for (const int v : values) out.push_back(std::byte(v));
    return out;
}

TEST(Packets, internet_sum_is_that_of_rfc_1071) {
    // RFC 1071, section 3.
    EXPECT_EQ(internet_sum(bytes({0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7})), 0xddf2);
    EXPECT_EQ(internet_sum(bytes({0x12})), 0x1200);
    // A well-known IPv4 header, its checksum included.
    EXPECT_EQ(internet_sum(bytes({0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11,
                                  0xb8, 0x61, 0xc0, 0xa8, 0x00, 0x01, 0xc0, 0xa8, 0x00, 0xc7})),
              0xffff);
}

TEST(Packets, udp_checksum_of_a_known_packet) {
    // 10.0.0.1:1024 -> 10.0.0.2:80, 4 bytes: 0a00+0001+0a00+0002+0011+000c (pseudo header)
    // + 0400+0050+000c + 0102+0304 = 1c82, whose complement is e37d.
    const Flow flow{.udp = true};
    const auto frame = make_frame(flow, 0, bytes({1, 2, 3, 4}));
    ASSERT_EQ(frame.size(), 46u);
    EXPECT_EQ(frame[40], std::byte{0xe3});
    EXPECT_EQ(frame[41], std::byte{0x7d});
}

TEST(Packets, frames_are_read_as_they_were_made_and_changed_ones_are_not) {
    const auto payload = bytes({1, 2, 3, 4, 5, 6, 7});
    for (const bool ipv6 : {false, true})
        for (const bool udp : {false, true}) {
            const Flow flow{.ipv6 = ipv6, .udp = udp};
            auto frame = make_frame(flow, 1234, payload);
            frame.resize(frame.size() + 3);  // padding
            auto read = read_frame(flow, frame);
            EXPECT_EQ(read.trouble, "");
            EXPECT_TRUE(read.checksum_good);
            EXPECT_EQ(read.tcp_sequence, udp ? 0u : 1234u);
            EXPECT_TRUE(std::equal(read.payload.begin(), read.payload.end(), payload.begin(),
                                   payload.end()));
            frame[flow.payload_at() + 2] ^= std::byte{1};
            EXPECT_FALSE(read_frame(flow, frame).checksum_good);
            frame[flow.l4_at()] ^= std::byte{1};
            EXPECT_NE(read_frame(flow, frame).trouble, "");
        }
}

TEST(Packets, unfinished_checksum_is_finished_by_a_sum_from_csum_start) {
    const auto payload = bytes({9, 8, 7});
    for (const bool ipv6 : {false, true})
        for (const bool udp : {false, true}) {
            const Flow flow{.ipv6 = ipv6, .udp = udp};
            wire::virtio_net_hdr header{};
            auto frame = make_unfinished_frame(flow, 5, payload, header);
            EXPECT_TRUE(read_frame(flow, frame).checksum_begun);
            EXPECT_FALSE(read_frame(flow, frame).checksum_good);
            const uint32_t start = header.csum_start, at = start + header.csum_offset;
            const auto sum = uint16_t(~internet_sum(std::span(frame).subspan(start)));
            frame[at] = std::byte(sum >> 8), frame[at + 1] = std::byte(sum);
            EXPECT_EQ(frame, make_frame(flow, 5, payload));
        }
}

}  // namespace
}  // namespace viommu::guest
