// SPDX-License-Identifier: BSD-3-Clause
/// Requests against the specification's sentences (virtio 1.3, 5.13.6): one test per request and
/// status at least. Bytes in, bytes out: the way a guest sees the device.
#include <gtest/gtest.h>

#include <cstring>

#include "viommu_device.hh"

namespace viommu::device {
namespace {

using namespace wire;

constexpr uint64_t kPage = 4096;
constexpr EndpointId kEndpoint = 0x18;
constexpr EndpointId kOther = 0x20;
constexpr int kNoStatus = -1;

struct Spec : testing::Test {
    static Config config() {
        Config c;
        c.endpoints = {kEndpoint, kOther};
        c.bypass = false;
        c.input_range = {{0}, {(uint64_t{1} << 40) - 1}};
        c.domain_first = 1;
        c.domain_last = 100;
        c.reserved = {{{{0xfee00000}, {0xfeefffff}}, ReservedRegion::Type::kMsi},
                      {{{0x100000}, {0x10ffff}}, ReservedRegion::Type::kReserved}};
        return c;
    }
    static std::unique_ptr<Device> make(const Config& c = config()) {
        auto d = Device::create(c);
        EXPECT_TRUE(d) << d.error().message;
        return std::move(*d);
    }

    /// Sends the device-readable bytes of `req`; returns the status, or kNoStatus for length 0.
    template <class Req>
    int send(const Req& req, std::size_t readable = offsetof(Req, tail)) {
        std::byte bytes[sizeof req];
        std::memcpy(bytes, &req, sizeof req);
        std::byte reply[4] = {std::byte{0xee}, std::byte{0xee}, std::byte{0xee}, std::byte{0xee}};
        const auto outcome = device->handle({bytes, readable}, reply);
        EXPECT_FALSE(outcome.retry_after_grace);
        finish();
        if (outcome.written == 0) return kNoStatus;
        EXPECT_EQ(outcome.written, sizeof reply);
        for (int i = 1; i < 4; ++i) EXPECT_EQ(reply[i], std::byte{0}) << "tail.reserved";
        return int(reply[0]);
    }
    int attach(DomainId d, EndpointId e = kEndpoint, uint32_t flags = 0, uint8_t reserved = 0) {
        virtio_iommu_req_attach r{};
        r.head.type = VIRTIO_IOMMU_T_ATTACH;
        r.domain = d;
        r.endpoint = e;
        r.flags = flags;
        r.reserved[3] = reserved;
        return send(r);
    }
    int detach(DomainId d, EndpointId e = kEndpoint, uint8_t reserved = 0) {
        virtio_iommu_req_detach r{};
        r.head.type = VIRTIO_IOMMU_T_DETACH;
        r.domain = d;
        r.endpoint = e;
        r.reserved[7] = reserved;
        return send(r);
    }
    int map(uint64_t first, uint64_t last, DomainId d = 1, uint32_t flags = 3,
            uint64_t gpa = 0x7000000) {
        virtio_iommu_req_map r{};
        r.head.type = VIRTIO_IOMMU_T_MAP;
        r.domain = d;
        r.virt_start = first;
        r.virt_end = last;
        r.phys_start = gpa;
        r.flags = flags;
        return send(r);
    }
    int unmap(uint64_t first, uint64_t last, DomainId d = 1, uint8_t reserved = 0) {
        virtio_iommu_req_unmap r{};
        r.head.type = VIRTIO_IOMMU_T_UNMAP;
        r.domain = d;
        r.virt_start = first;
        r.virt_end = last;
        r.reserved[0] = reserved;
        return send(r);
    }
    /// The whole writable part of a PROBE answer, `room` bytes; empty for length 0.
    std::vector<uint8_t> probe(EndpointId e, std::size_t room, uint8_t reserved = 0) {
        virtio_iommu_req_probe r{};
        r.head.type = VIRTIO_IOMMU_T_PROBE;
        r.endpoint = e;
        r.reserved[63] = reserved;
        std::byte bytes[sizeof r];
        std::memcpy(bytes, &r, sizeof r);
        std::vector<uint8_t> reply(room, 0xee);
        const auto outcome = device->handle(bytes, std::as_writable_bytes(std::span(reply)));
        reply.resize(outcome.written);
        return reply;
    }
    uint32_t probe_size() {
        virtio_iommu_config c;
        device->read_config(0, std::as_writable_bytes(std::span(&c, 1)));
        return c.probe_size;
    }
    xlate::Translation access(uint64_t iova, Access need, EndpointId e = kEndpoint) {
        auto reader = std::move(*xlate::Reader::create(device->table(), device->faults(), e));
        reader.enter();
        const auto t = reader.translate({iova}, 1, need);
        reader.leave();
        return t;
    }
    void finish() {
        auto& table = device->table();
        if (table.dirty()) {
            EXPECT_TRUE(table.grace_over(table.start_grace()));
        }
        EXPECT_EQ(table.self_check(), "");
    }

    std::unique_ptr<Device> device = make();
};

constexpr int ok = int(Status::kOk), inval = int(Status::kInval), range = int(Status::kRange),
              noent = int(Status::kNoEnt), nomem = int(Status::kNoMem);

// --- 5.13.6 Device operations --------------------------------------------------------------------

TEST_F(Spec, unknown_type_is_returned_unwritten) {
    for (unsigned type : {0u, 6u, 7u, 0x80u, 0xffu}) {
        virtio_iommu_req_attach r{};
        r.head.type = uint8_t(type);
        EXPECT_EQ(send(r), kNoStatus) << type;
    }
    EXPECT_EQ(device->stats().unreadable.was(), 5u);
}

TEST_F(Spec, request_too_small_for_its_type_is_returned_unwritten) {
    for (std::size_t n = 0; n < offsetof(virtio_iommu_req_attach, tail); ++n) {
        virtio_iommu_req_attach r{};
        r.head.type = VIRTIO_IOMMU_T_ATTACH;
        EXPECT_EQ(send(r, n), kNoStatus) << n;
    }
    for (std::size_t n = 0; n < offsetof(virtio_iommu_req_map, tail); ++n) {
        virtio_iommu_req_map r{};
        r.head.type = VIRTIO_IOMMU_T_MAP;
        EXPECT_EQ(send(r, n), kNoStatus) << n;
    }
}

TEST_F(Spec, request_without_room_for_the_tail_is_returned_unwritten) {
    virtio_iommu_req_attach r{};
    r.head.type = VIRTIO_IOMMU_T_ATTACH;
    r.domain = 1;
    r.endpoint = kEndpoint;
    std::byte bytes[sizeof r], reply[3];
    std::memcpy(bytes, &r, sizeof r);
    EXPECT_EQ(device->handle({bytes, 20}, reply).written, 0u);
    EXPECT_EQ(device->table().usage().domains, 0u) << "and nothing was done";
}

TEST_F(Spec, head_reserved_is_ignored) {
    virtio_iommu_req_attach r{};
    r.head.type = VIRTIO_IOMMU_T_ATTACH;
    r.head.reserved[0] = r.head.reserved[2] = 0xff;
    r.domain = 1;
    r.endpoint = kEndpoint;
    EXPECT_EQ(send(r), ok);
}

TEST_F(Spec, unattached_endpoint_not_in_bypass_mode_cannot_access_memory) {
    EXPECT_FALSE(access(0x1000, Access::kRead));
    EXPECT_EQ(access(0x1000, Access::kRead).fault(), xlate::FaultReason::kDomain);
}

// --- 5.13.6.3 ATTACH -----------------------------------------------------------------------------

TEST_F(Spec, attach_reserved_not_zero_is_inval) { EXPECT_EQ(attach(1, kEndpoint, 0, 1), inval); }
TEST_F(Spec, attach_unknown_flag_is_inval) { EXPECT_EQ(attach(1, kEndpoint, 2), inval); }
TEST_F(Spec, attach_unknown_endpoint_is_noent) { EXPECT_EQ(attach(1, 0x99), noent); }

TEST_F(Spec, attach_outside_the_domain_range_is_range) {
    EXPECT_EQ(attach(0), range);
    EXPECT_EQ(attach(101), range);
    EXPECT_EQ(attach(1), ok);
    EXPECT_EQ(attach(100), ok);
}

TEST_F(Spec, attach_of_a_second_endpoint_shares_the_domain) {
    EXPECT_EQ(attach(1), ok);
    EXPECT_EQ(map(0, kPage - 1), ok);
    EXPECT_EQ(attach(1, kOther), ok);
    EXPECT_TRUE(access(0, Access::kRead, kOther));
}

TEST_F(Spec, attach_with_inconsistent_bypass_flag_is_inval) {
    EXPECT_EQ(attach(1), ok);
    EXPECT_EQ(attach(1, kOther, VIRTIO_IOMMU_ATTACH_F_BYPASS), inval);
    EXPECT_EQ(attach(2, kOther, VIRTIO_IOMMU_ATTACH_F_BYPASS), ok);
    EXPECT_EQ(attach(2), inval);
    EXPECT_EQ(access(0x1000, Access::kRead, kOther).gpa(), Gpa{0x1000});
    EXPECT_EQ(device->stats().attach_bypass.was(), 1u);
}

TEST_F(Spec, attach_elsewhere_detaches_first) {
    EXPECT_EQ(attach(1), ok);
    EXPECT_EQ(map(0, kPage - 1), ok);
    EXPECT_EQ(attach(2), ok);
    EXPECT_FALSE(access(0, Access::kRead));
    EXPECT_EQ(map(0, kPage - 1, 1), noent) << "domain 1 lost its last endpoint";
}

TEST_F(Spec, attach_to_the_same_domain_keeps_its_mappings) {
    EXPECT_EQ(attach(1), ok);
    EXPECT_EQ(map(0, kPage - 1), ok);
    EXPECT_EQ(attach(1), ok);
    EXPECT_TRUE(access(0, Access::kRead));
}

TEST_F(Spec, attach_beyond_the_domain_quota_is_nomem) {
    auto c = config();
    c.max_domains = 1;
    device = make(c);
    EXPECT_EQ(attach(1), ok);
    EXPECT_EQ(attach(2, kOther), nomem);
}

// --- 5.13.6.4 DETACH -----------------------------------------------------------------------------

TEST_F(Spec, detach_reserved_is_ignored) {
    EXPECT_EQ(attach(1), ok);
    EXPECT_EQ(detach(1, kEndpoint, 0xff), ok);
}
TEST_F(Spec, detach_unknown_endpoint_is_noent) { EXPECT_EQ(detach(1, 0x99), noent); }
TEST_F(Spec, detach_from_a_domain_that_is_not_is_inval) { EXPECT_EQ(detach(1), inval); }

TEST_F(Spec, detach_from_another_domain_is_inval) {
    EXPECT_EQ(attach(1), ok);
    EXPECT_EQ(attach(2, kOther), ok);
    EXPECT_EQ(detach(2), inval);
}

TEST_F(Spec, detached_endpoint_cannot_access_the_domain) {
    EXPECT_EQ(attach(1), ok);
    EXPECT_EQ(attach(1, kOther), ok);
    EXPECT_EQ(map(0, kPage - 1), ok);
    EXPECT_EQ(detach(1), ok);
    EXPECT_FALSE(access(0, Access::kRead));
    EXPECT_TRUE(access(0, Access::kRead, kOther));
}

TEST_F(Spec, domain_without_endpoints_ceases_to_exist) {
    EXPECT_EQ(attach(1), ok);
    EXPECT_EQ(map(0, kPage - 1), ok);
    EXPECT_EQ(detach(1), ok);
    EXPECT_EQ(unmap(0, kPage - 1), noent);
    EXPECT_EQ(attach(1, kEndpoint, VIRTIO_IOMMU_ATTACH_F_BYPASS), ok) << "its ID can be reused";
}

// --- 5.13.6.5 MAP --------------------------------------------------------------------------------

TEST_F(Spec, map_misaligned_is_range) {
    EXPECT_EQ(attach(1), ok);
    EXPECT_EQ(map(1, kPage - 1), range);
    EXPECT_EQ(map(0, kPage - 2), range);
    EXPECT_EQ(map(0, kPage - 1, 1, 3, 0x800), range);
}
TEST_F(Spec, map_backwards_is_range) {
    EXPECT_EQ(attach(1), ok);
    EXPECT_EQ(map(2 * kPage, kPage - 1), range);
}
TEST_F(Spec, map_outside_the_input_range_is_range) {
    EXPECT_EQ(attach(1), ok);
    EXPECT_EQ(map(uint64_t{1} << 40, (uint64_t{1} << 40) + kPage - 1), range);
    EXPECT_EQ(map(0, ~uint64_t{0}), inval) << "overlaps the reserved regions";
}
TEST_F(Spec, map_over_a_mapping_is_inval) {
    EXPECT_EQ(attach(1), ok);
    EXPECT_EQ(map(0, 4 * kPage - 1), ok);
    EXPECT_EQ(map(2 * kPage, 6 * kPage - 1), inval);
}
TEST_F(Spec, map_unknown_flag_is_inval) {
    EXPECT_EQ(attach(1), ok);
    EXPECT_EQ(map(0, kPage - 1, 1, 8), inval);
    EXPECT_EQ(map(0, kPage - 1, 1, 0x80000000), inval);
}
TEST_F(Spec, map_in_an_unknown_domain_is_noent) { EXPECT_EQ(map(0, kPage - 1), noent); }
TEST_F(Spec, map_in_a_bypass_domain_is_inval) {
    EXPECT_EQ(attach(1, kEndpoint, VIRTIO_IOMMU_ATTACH_F_BYPASS), ok);
    EXPECT_EQ(map(0, kPage - 1), inval);
}
TEST_F(Spec, map_allows_only_what_it_says) {
    EXPECT_EQ(attach(1), ok);
    EXPECT_EQ(map(0, kPage - 1, 1, VIRTIO_IOMMU_MAP_F_READ), ok);
    EXPECT_EQ(map(kPage, 2 * kPage - 1, 1, VIRTIO_IOMMU_MAP_F_WRITE), ok);
    EXPECT_TRUE(access(0, Access::kRead));
    EXPECT_FALSE(access(0, Access::kWrite));
    EXPECT_FALSE(access(kPage, Access::kRead));
    EXPECT_TRUE(access(kPage, Access::kWrite));
}
TEST_F(Spec, map_mmio_is_recorded) {
    EXPECT_EQ(attach(1), ok);
    EXPECT_EQ(map(0, kPage - 1, 1, VIRTIO_IOMMU_MAP_F_WRITE | VIRTIO_IOMMU_MAP_F_MMIO), ok);
    EXPECT_NE(map(0, kPage - 1, 1, VIRTIO_IOMMU_MAP_F_WRITE | VIRTIO_IOMMU_MAP_F_MMIO), ok);
    EXPECT_EQ(device->stats().map_mmio.was(), 1u);
    EXPECT_TRUE(access(0, Access::kWrite | Access::kMmio));
    EXPECT_FALSE(access(0, Access::kRead));
}
TEST_F(Spec, map_over_a_reserved_region_is_inval) {
    EXPECT_EQ(attach(1), ok);
    EXPECT_EQ(map(0xfee00000, 0xfee00fff), inval);
    EXPECT_EQ(map(0xff000, 0x100fff), inval);
    EXPECT_EQ(map(0x10f000, 0x110fff), inval);
    EXPECT_EQ(map(0xff000, 0xfffff), ok);
    EXPECT_EQ(map(0x110000, 0x110fff), ok);
}
TEST_F(Spec, map_beyond_the_quota_is_nomem) {
    auto c = config();
    c.max_mappings = 1;
    device = make(c);
    EXPECT_EQ(attach(1), ok);
    EXPECT_EQ(map(0, kPage - 1), ok);
    EXPECT_EQ(map(kPage, 2 * kPage - 1), nomem);
}

// --- 5.13.6.6 UNMAP: the specification's seven examples, in pages --------------------------------

struct UnmapExample : Spec {
    void SetUp() override { ASSERT_EQ(attach(1), ok); }
    int m(uint64_t first, uint64_t last) { return map(first * kPage, (last + 1) * kPage - 1); }
    int u(uint64_t first, uint64_t last) { return unmap(first * kPage, (last + 1) * kPage - 1); }
    uint64_t left() { return device->table().usage().mappings; }
};
TEST_F(UnmapExample, 1_of_nothing_succeeds) { EXPECT_EQ(u(0, 4), ok); }
TEST_F(UnmapExample, 2_of_one_mapping) {
    m(0, 9);
    EXPECT_EQ(u(0, 9), ok);
    EXPECT_EQ(left(), 0u);
}
TEST_F(UnmapExample, 3_of_two_mappings) {
    m(0, 4);
    m(5, 9);
    EXPECT_EQ(u(0, 9), ok);
    EXPECT_EQ(left(), 0u);
}
TEST_F(UnmapExample, 4_of_a_part_fails_and_removes_nothing) {
    m(0, 9);
    EXPECT_EQ(u(0, 4), range);
    EXPECT_EQ(left(), 1u);
    EXPECT_TRUE(access(0, Access::kRead));
}
TEST_F(UnmapExample, 5_of_the_first_of_two) {
    m(0, 4);
    m(5, 9);
    EXPECT_EQ(u(0, 4), ok);
    EXPECT_EQ(left(), 1u);
    EXPECT_FALSE(access(0, Access::kRead));
    EXPECT_TRUE(access(5 * kPage, Access::kRead));
}
TEST_F(UnmapExample, 6_beyond_the_mapping) {
    m(0, 4);
    EXPECT_EQ(u(0, 9), ok);
    EXPECT_EQ(left(), 0u);
}
TEST_F(UnmapExample, 7_across_a_hole) {
    m(0, 4);
    m(10, 14);
    EXPECT_EQ(u(0, 14), ok);
    EXPECT_EQ(left(), 0u);
}
TEST_F(Spec, unmap_reserved_not_zero_is_inval) {
    EXPECT_EQ(attach(1), ok);
    EXPECT_EQ(unmap(0, kPage - 1, 1, 1), inval);
}
TEST_F(Spec, unmap_in_an_unknown_domain_is_noent) { EXPECT_EQ(unmap(0, kPage - 1), noent); }
TEST_F(Spec, unmap_in_a_bypass_domain_is_inval) {
    EXPECT_EQ(attach(1, kEndpoint, VIRTIO_IOMMU_ATTACH_F_BYPASS), ok);
    EXPECT_EQ(unmap(0, kPage - 1), inval);
}
TEST_F(Spec, unmap_backwards_is_range) {
    EXPECT_EQ(attach(1), ok);
    EXPECT_EQ(unmap(kPage, 0), range);
}

// --- 5.13.6.7 PROBE ------------------------------------------------------------------------------

TEST_F(Spec, probe_unknown_endpoint_is_noent) {
    const auto reply = probe(0x99, probe_size() + 4);
    ASSERT_EQ(reply.size(), probe_size() + 4);
    EXPECT_EQ(reply[probe_size()], noent);
}
TEST_F(Spec, probe_reserved_is_ignored) {
    EXPECT_EQ(probe(kEndpoint, probe_size() + 4, 0xff)[probe_size()], ok);
}
TEST_F(Spec, probe_list_smaller_than_probe_size_is_inval_without_properties) {
    const auto reply = probe(kEndpoint, probe_size() + 3);
    ASSERT_EQ(reply.size(), probe_size() + 3);
    EXPECT_EQ(reply[probe_size() - 1], inval) << "the tail is the last 4 bytes given";
    for (std::size_t i = 0; i + 4 < reply.size(); ++i) EXPECT_EQ(reply[i], 0) << i;
    EXPECT_TRUE(probe(kEndpoint, 3).empty());
}
TEST_F(Spec, probe_lists_the_reserved_regions_and_zeroes_the_rest) {
    const auto reply = probe(kEndpoint, probe_size() + 4);
    ASSERT_EQ(reply.size(), probe_size() + 4);
    EXPECT_EQ(reply[probe_size()], ok);
    virtio_iommu_probe_resv_mem p[2];
    std::memcpy(p, reply.data(), sizeof p);
    for (const auto& each : p) {
        EXPECT_EQ(each.head.type, VIRTIO_IOMMU_PROBE_T_RESV_MEM);
        EXPECT_EQ(each.head.length, sizeof each - sizeof each.head);
        EXPECT_EQ(each.reserved[0] | each.reserved[1] | each.reserved[2], 0);
    }
    EXPECT_EQ(p[0].subtype, VIRTIO_IOMMU_RESV_MEM_T_MSI);
    EXPECT_EQ(p[0].start, 0xfee00000u);
    EXPECT_EQ(p[0].end, 0xfeefffffu);
    EXPECT_EQ(p[1].subtype, VIRTIO_IOMMU_RESV_MEM_T_RESERVED);
    for (std::size_t i = sizeof p; i < probe_size(); ++i) EXPECT_EQ(reply[i], 0) << i;
}

// --- 5.13.4 Device configuration layout ----------------------------------------------------------

TEST_F(Spec, config_says_what_was_configured) {
    virtio_iommu_config c;
    device->read_config(0, std::as_writable_bytes(std::span(&c, 1)));
    EXPECT_EQ(c.page_size_mask, ~uint64_t{0xfff});
    EXPECT_EQ(c.input_range.end, (uint64_t{1} << 40) - 1);
    EXPECT_EQ(c.domain_range.start, 1u);
    EXPECT_EQ(c.domain_range.end, 100u);
    EXPECT_EQ(c.bypass, 0);
}
TEST_F(Spec, config_reads_at_any_offset_and_size_agree) {
    uint8_t whole[64];
    device->read_config(0, std::as_writable_bytes(std::span(whole)));
    for (uint32_t offset = 0; offset < 60; ++offset)
        for (std::size_t size : {1u, 2u, 4u}) {
            uint8_t part[4];
            device->read_config(offset, std::as_writable_bytes(std::span(part, size)));
            EXPECT_EQ(std::memcmp(part, whole + offset, size), 0) << offset << " " << size;
        }
    uint8_t far[8] = {1};
    device->read_config(0xfffffff0, std::as_writable_bytes(std::span(far)));
    EXPECT_EQ(far[0], 0);
    device->read_config(0, {});  // UBSan: no memcpy() to nowhere
}
TEST_F(Spec, config_write_changes_bypass_and_nothing_else) {
    const std::byte one{1}, two{2}, zero{0};
    device->write_config(36, {&two, 1});
    EXPECT_FALSE(device->table().bypass()) << "neither 0 nor 1";
    device->write_config(0, {&one, 1});
    device->write_config(37, {&one, 1});
    EXPECT_FALSE(device->table().bypass());
    device->write_config(36, {&one, 1});
    EXPECT_TRUE(device->table().bypass());
    EXPECT_EQ(access(0x1234000, Access::kRead).gpa(), Gpa{0x1234000});
    device->write_config(36, {&zero, 1});
    EXPECT_FALSE(access(0x1234000, Access::kRead));
}
TEST_F(Spec, features_are_map_unmap_and_bypass_config_but_not_bypass) {
    const uint64_t f = device->features();
    EXPECT_TRUE(f >> VIRTIO_IOMMU_F_MAP_UNMAP & 1);
    EXPECT_TRUE(f >> VIRTIO_IOMMU_F_BYPASS_CONFIG & 1);
    EXPECT_FALSE(f >> VIRTIO_IOMMU_F_BYPASS & 1);
    EXPECT_TRUE(f >> VIRTIO_F_VERSION_1 & 1);
}

// --- 5.13.5 reset, 5.13.6.9 faults ---------------------------------------------------------------

TEST_F(Spec, reset_detaches_all_and_keeps_bypass) {
    const std::byte one{1};
    device->write_config(36, {&one, 1});
    EXPECT_EQ(attach(1), ok);
    EXPECT_EQ(map(0, kPage - 1), ok);
    device->reset();
    finish();
    EXPECT_EQ(device->table().usage().domains, 0u);
    EXPECT_TRUE(device->table().bypass());
    EXPECT_EQ(access(0x5000, Access::kRead).gpa(), Gpa{0x5000});
}

TEST_F(Spec, fault_report_carries_reason_flags_endpoint_and_address) {
    device->faults().push(
        {Iova{0x1234}, kOther, xlate::FaultReason::kMapping, Access::kWrite | Access::kMmio});
    virtio_iommu_fault f;
    ASSERT_TRUE(device->next_fault(f));
    EXPECT_EQ(f.reason, VIRTIO_IOMMU_FAULT_R_MAPPING);
    EXPECT_EQ(f.flags, VIRTIO_IOMMU_FAULT_F_WRITE | VIRTIO_IOMMU_FAULT_F_ADDRESS);
    EXPECT_EQ(f.endpoint, kOther);
    EXPECT_EQ(f.address, 0x1234u);
    EXPECT_EQ(f.reserved[0] | f.reserved[1] | f.reserved[2], 0);
    EXPECT_EQ(f.reserved1, 0u);
    EXPECT_FALSE(device->next_fault(f));
}

TEST_F(Spec, noisy_endpoint_does_not_hide_another) {
    auto c = config();
    c.faults_per_second = 2;
    device = make(c);
    for (int i = 0; i < 50; ++i)
        device->faults().push({Iova{0}, kEndpoint, xlate::FaultReason::kMapping, Access::kRead});
    device->faults().push({Iova{7}, kOther, xlate::FaultReason::kDomain, Access::kRead});
    virtio_iommu_fault f;
    int from_noisy = 0, from_other = 0;
    while (device->next_fault(f)) ++(f.endpoint == kOther ? from_other : from_noisy);
    EXPECT_EQ(from_other, 1);
    EXPECT_GE(from_noisy, 2);
    EXPECT_LE(from_noisy, 4);
    EXPECT_EQ(device->stats().faults_dropped_rate.was(), 50u - unsigned(from_noisy));
}

// --- the operator's side -------------------------------------------------------------------------

TEST(DeviceConfig, impossible_values_are_refused_with_key_value_and_limit) {
    const auto message = [](auto change) {
        Config c = Spec::config();
        change(c);
        const auto d = Device::create(c);
        return d ? std::string("accepted") : d.error().message;
    };
    const auto has = [](const std::string& text, const char* part) {
        EXPECT_NE(text.find(part), std::string::npos) << text;
    };
    has(message([](Config& c) { c.page_size_mask = 0; }), "page_size_mask");
    has(message([](Config& c) { c.page_size_mask = 0xffffff00; }), "0x1000");
    has(message([](Config& c) { c.input_range = {{0x1000}, {0x1fff0}}; }), "input_range");
    has(message([](Config& c) { c.input_range = {{0x2000}, {0xfff}}; }), "below the first");
    has(message([](Config& c) { c.domain_first = 101; }), "domain_range");
    has(message([](Config& c) { c.reserved.push_back(c.reserved[1]); }), "overlap");
    has(message([](Config& c) {
            c.reserved[1].type = ReservedRegion::Type::kMsi;
        }), "msi");
    has(message([](Config& c) { c.endpoints.push_back(c.endpoints[0]); }), "is there already");
    has(message([](Config& c) { c.arena_bytes = 4096; }), "at least");
}

TEST_F(Spec, full_arena_asks_for_a_retry_while_nodes_wait_for_readers) {
    auto c = config();
    c.max_domains = 1;
    c.arena_bytes = 18 * kPage;
    device = make(c);
    EXPECT_EQ(attach(1), ok);
    uint64_t n = 0;
    while (map(n << 30, (n << 30) + kPage - 1) == ok) ++n;
    virtio_iommu_req_unmap u{};
    u.head.type = VIRTIO_IOMMU_T_UNMAP;
    u.domain = 1;
    u.virt_end = (1u << 30) - 1;
    virtio_iommu_req_map m{};
    m.head.type = VIRTIO_IOMMU_T_MAP;
    m.domain = 1;
    m.virt_start = n << 30;
    m.virt_end = (n << 30) + kPage - 1;
    std::byte reply[4];
    device->handle(std::as_bytes(std::span(&u, 1)), reply);
    EXPECT_EQ(int(reply[0]), ok);
    const auto outcome = device->handle(std::as_bytes(std::span(&m, 1)), reply);
    EXPECT_TRUE(outcome.retry_after_grace);
    finish();
    device->handle(std::as_bytes(std::span(&m, 1)), reply);
    EXPECT_EQ(int(reply[0]), ok);
}

}  // namespace
}  // namespace viommu::device
