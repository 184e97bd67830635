// SPDX-License-Identifier: BSD-3-Clause
/// Requests decoded from bytes written out by hand (virtio 1.3, 5.13.6).
#include <gtest/gtest.h>

#include <vector>

#include "viommu_wire.hh"

namespace viommu::wire {
namespace {

std::vector<std::byte> bytes(std::initializer_list<int> list) {
    std::vector<std::byte> out;
    for (int b : list) out.push_back(std::byte(b));
    return out;
}

template <class Req>
Req as(const std::vector<std::byte>& in) {
    const auto r = decode(in);
    EXPECT_TRUE(r && std::holds_alternative<Req>(*r));
    return r && std::holds_alternative<Req>(*r) ? std::get<Req>(*r) : Req{};
}

const auto kAttach =
    bytes({1, 9, 9, 9, 0x78, 0x56, 0x34, 0x12, 8, 0, 1, 0, 1, 0, 0, 0x80, 0, 0, 0, 0});
const auto kDetach = bytes({2, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8});
const auto kMap = bytes({3, 0, 0, 0, 1, 0, 0, 0,                    // head, domain
                         0, 0x10, 0, 0, 0, 0, 0, 0,                 // virt_start
                         0xff, 0x1f, 0, 0, 0, 0, 0, 0,              // virt_end
                         0, 0, 0, 0x40, 0, 0, 0, 0x80, 7, 0, 0, 0});  // phys_start, flags
const auto kUnmap = bytes({4, 0, 0, 0, 1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
                           0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1});

TEST(decode, attach_has_every_field) {
    const auto r = as<AttachRequest>(kAttach);
    EXPECT_EQ(r.domain, 0x12345678u);
    EXPECT_EQ(r.endpoint, 0x10008u);
    EXPECT_EQ(r.flags, 0x80000001u);
    EXPECT_TRUE(r.reserved_is_zero);
    auto reserved = kAttach;
    reserved[19] = std::byte{1};
    EXPECT_FALSE(as<AttachRequest>(reserved).reserved_is_zero);
}

TEST(decode, detach_has_every_field) {
    const auto r = as<DetachRequest>(kDetach);
    EXPECT_EQ(r.domain, 1u);
    EXPECT_EQ(r.endpoint, 2u);
}

TEST(decode, map_has_every_field) {
    const auto r = as<MapRequest>(kMap);
    EXPECT_EQ(r.domain, 1u);
    EXPECT_EQ(r.first, Iova{0x1000});
    EXPECT_EQ(r.last, Iova{0x1fff});
    EXPECT_EQ(r.gpa, Gpa{0x8000000040000000});
    EXPECT_EQ(r.flags, 7u);
}

TEST(decode, unmap_has_every_field_and_may_run_backwards) {
    const auto r = as<UnmapRequest>(kUnmap);
    EXPECT_EQ(r.first, Iova{~uint64_t{0}});
    EXPECT_EQ(r.last, Iova{0});
    EXPECT_FALSE(r.reserved_is_zero);
}

TEST(decode, probe_needs_its_padding) {
    std::vector<std::byte> probe(72, std::byte{0xff});
    probe[0] = std::byte{VIRTIO_IOMMU_T_PROBE};
    EXPECT_EQ(as<ProbeRequest>(probe).endpoint, 0xffffffffu);
    probe.resize(71);
    EXPECT_FALSE(decode(probe));
}

TEST(decode, every_truncation_is_unreadable_and_more_bytes_are_ignored) {
    for (auto whole : {kAttach, kDetach, kMap, kUnmap}) {
        for (size_t n = 0; n < whole.size(); ++n)
            EXPECT_FALSE(decode(std::span(whole).first(n))) << n << " of " << whole.size();
        EXPECT_TRUE(decode(whole));
        whole.resize(whole.size() + 50);
        EXPECT_TRUE(decode(whole));
    }
}

TEST(decode, unknown_types_are_unreadable) {
    for (int type = 0; type < 256; ++type) {
        std::vector<std::byte> b(kMaxRequestBytes);
        b[0] = std::byte(type);
        EXPECT_EQ(decode(b).has_value(), type >= 1 && type <= 5) << type;
    }
}

}  // namespace
}  // namespace viommu::wire
