// SPDX-License-Identifier: BSD-3-Clause
/// Requests in general (5.13.6), and the limits that the operator sets.
#include "fixture.hh"

namespace viommu::device::spec {
namespace {

// 5.13.6-D2
TEST_F(Spec, unknown_type_is_returned_unwritten) {
    for (unsigned type : {0u, 6u, 7u, 0x80u, 0xffu}) {
        virtio_iommu_req_attach r{};
        r.head.type = uint8_t(type);
        EXPECT_EQ(send(r), kNoStatus) << type;
    }
    EXPECT_EQ(device->stats().unreadable.was(), 5u);
}

// 5.13.6-N1
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

// 5.13.6-N1
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

// 5.13.6-D3, 5.13.6-D1
TEST_F(Spec, head_reserved_is_ignored) {
    virtio_iommu_req_attach r{};
    r.head.type = VIRTIO_IOMMU_T_ATTACH;
    r.head.reserved[0] = r.head.reserved[2] = 0xff;
    r.domain = 1;
    r.endpoint = kEndpoint;
    EXPECT_EQ(send(r), ok);
}

// 5.13.6-D4
TEST_F(Spec, unattached_endpoint_not_in_bypass_mode_cannot_access_memory) {
    EXPECT_FALSE(access(0x1000, Access::kRead));
    EXPECT_EQ(access(0x1000, Access::kRead).fault(), xlate::FaultReason::kDomain);
}

TEST_F(Spec, attach_beyond_the_domain_quota_is_nomem) {
    auto c = config();
    c.max_domains = 1;
    device = make(c);
    EXPECT_EQ(attach(1), ok);
    EXPECT_EQ(attach(2, kOther), nomem);
}

TEST_F(Spec, map_beyond_the_quota_is_nomem) {
    auto c = config();
    c.max_mappings = 1;
    device = make(c);
    EXPECT_EQ(attach(1), ok);
    EXPECT_EQ(map(0, kPage - 1), ok);
    EXPECT_EQ(map(kPage, 2 * kPage - 1), nomem);
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

// 5.13.4-D1
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

TEST_F(Spec, nomem_counts_the_quota_that_was_hit) {
    auto c = config();
    c.max_domains = 1;
    c.max_mappings = 40;
    c.arena_bytes = 32 * kPage;
    device = make(c);
    const auto& exhausted = device->stats().exhausted;
    const auto hits = [&](table::Quota q) { return exhausted[uint8_t(q)].was(); };
    EXPECT_EQ(attach(1), ok);
    EXPECT_EQ(attach(2, kOther), nomem);
    EXPECT_EQ(hits(table::Quota::kDomains), 1u);
    uint64_t n = 0;
    while (map(n << 30, (n << 30) + kPage - 1) == ok) ++n;  // two or three nodes each
    EXPECT_LT(n, 40u);
    EXPECT_EQ(hits(table::Quota::kArena), 1u);
    for (uint64_t page = 1; n < 40; ++page, ++n)
        EXPECT_EQ(map(page * kPage, (page + 1) * kPage - 1), ok) << "in a node that is there";
    EXPECT_EQ(map(100 * kPage, 101 * kPage - 1), nomem);
    EXPECT_EQ(hits(table::Quota::kMappings), 1u);
    EXPECT_EQ(hits(table::Quota::kDomains), 1u);
    EXPECT_EQ(hits(table::Quota::kArena), 1u);
    EXPECT_EQ(device->stats().status[nomem].was(), 3u);
}

TEST_F(Spec, quota_of_mappings_is_not_waited_for) {
    auto c = config();
    c.max_mappings = 1;
    device = make(c);
    EXPECT_EQ(attach(1), ok);
    EXPECT_EQ(map(0, kPage - 1), ok);
    ASSERT_EQ(device->table().unmap(1, {{0}, {kPage - 1}}), Status::kOk);
    ASSERT_EQ(device->table().map(1, {{0}, {kPage - 1}}, {0}, Access::kRead), Status::kOk);
    EXPECT_NE(device->table().usage().trees_waiting, 0u);
    EXPECT_EQ(map(kPage, 2 * kPage - 1), nomem) << "readers that leave make no room for it";
}

}  // namespace
}  // namespace viommu::device::spec
