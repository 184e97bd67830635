// SPDX-License-Identifier: BSD-3-Clause
/// PROBE and its properties (5.13.6.7, 5.13.6.8): reserved regions, of all endpoints and of one.
#include "fixture.hh"

namespace viommu::device::spec {
namespace {

// 5.13.6.7-D2
TEST_F(Spec, probe_unknown_endpoint_is_noent) {
    const auto reply = probe(0x99, probe_size() + 4);
    ASSERT_EQ(reply.size(), probe_size() + 4);
    EXPECT_EQ(reply[probe_size()], noent);
}

// 5.13.6.7-D1
TEST_F(Spec, probe_reserved_is_ignored) {
    EXPECT_EQ(probe(kEndpoint, probe_size() + 4, 0xff)[probe_size()], ok);
}

// 5.13.6.7-D7, 5.13.6.7-D8, v0.5-3
TEST_F(Spec, probe_list_smaller_than_probe_size_is_inval_without_properties) {
    const auto reply = probe(kEndpoint, probe_size() + 3);
    ASSERT_EQ(reply.size(), probe_size() + 3);
    EXPECT_EQ(reply[probe_size() - 1], inval) << "the tail is the last 4 bytes given";
    for (std::size_t i = 0; i + 4 < reply.size(); ++i) EXPECT_EQ(reply[i], 0) << i;
    EXPECT_TRUE(probe(kEndpoint, 3).empty());
}

// 5.13.6.7-D4, 5.13.6.7-D5, 5.13.6.7-D6, 5.13.6.7-D9, 5.13.6.8.1-D1, v0.7-1
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

// 5.13.6.8.1-D4
TEST_F(Spec, map_over_a_reserved_region_is_inval) {
    EXPECT_EQ(attach(1), ok);
    EXPECT_EQ(map(0xfee00000, 0xfee00fff), inval);
    EXPECT_EQ(map(0xff000, 0x100fff), inval);
    EXPECT_EQ(map(0x10f000, 0x110fff), inval);
    EXPECT_EQ(map(0xff000, 0xfffff), ok);
    EXPECT_EQ(map(0x110000, 0x110fff), ok);
}

struct EndpointRegions : Spec {
    static constexpr IovaRange kOwn{{0x40000000}, {0x400fffff}};
    void SetUp() override {
        auto c = config();
        c.endpoint_reserved[kOther] = {{kOwn}};
        device = make(c);
    }
    /// The properties that are not empty.
    std::vector<virtio_iommu_probe_resv_mem> regions(EndpointId e) {
        const auto reply = probe(e, probe_size() + 4);
        EXPECT_EQ(reply.at(probe_size()), ok);
        std::vector<virtio_iommu_probe_resv_mem> out;
        virtio_iommu_probe_property head;
        for (std::size_t at = 0; at + sizeof head <= probe_size();
             at += head.length + sizeof head) {
            std::memcpy(&head, &reply[at], sizeof head);
            if (head.type == VIRTIO_IOMMU_PROBE_T_NONE) break;
            out.emplace_back();
            std::memcpy(&out.back(), &reply[at], sizeof out.back());
        }
        return out;
    }
};

// 5.13.6.7-D6, v0.4-3
TEST_F(EndpointRegions, probe_lists_those_of_the_endpoint) {
    ASSERT_EQ(regions(kEndpoint).size(), 2u);
    ASSERT_EQ(regions(kOther).size(), 3u);
    EXPECT_EQ(regions(kOther)[2].start, kOwn.first.value);
    EXPECT_EQ(regions(kOther)[2].end, kOwn.last.value);
    EXPECT_EQ(regions(kOther)[2].subtype, VIRTIO_IOMMU_RESV_MEM_T_RESERVED);
}

// 5.13.6.7-D9
TEST_F(EndpointRegions, probe_size_is_that_of_the_longest_list_and_shorter_ones_end_in_zeroes) {
    EXPECT_EQ(probe_size(), 3 * sizeof(virtio_iommu_probe_resv_mem) + 4);
    const auto reply = probe(kEndpoint, probe_size() + 4);
    for (std::size_t i = 2 * sizeof(virtio_iommu_probe_resv_mem); i < probe_size(); ++i)
        EXPECT_EQ(reply[i], 0) << i;
}

// 5.13.6.8.1-D4
TEST_F(EndpointRegions, map_over_a_region_of_any_endpoint_of_the_domain_is_inval) {
    EXPECT_EQ(attach(1), ok);
    EXPECT_EQ(map(0x40000000, 0x40000fff), ok) << "kOther is not in this domain";
    EXPECT_EQ(unmap(0x40000000, 0x40000fff), ok);
    EXPECT_EQ(attach(1, kOther), ok);
    EXPECT_EQ(map(0x40000000, 0x40000fff), inval);
    EXPECT_EQ(map(0x3ffff000, 0x40100fff), inval);
    EXPECT_EQ(map(0x40100000, 0x40100fff), ok);
    EXPECT_EQ(detach(1, kOther), ok);
    EXPECT_EQ(map(0x40000000, 0x40000fff), ok);
}

// 5.13.6.8.1-D5
TEST_F(EndpointRegions, access_to_a_reserved_region_faults_even_in_bypass_mode) {
    write_bypass(1);
    EXPECT_EQ(access(0x40000000, Access::kRead, kEndpoint).gpa(), Gpa{0x40000000});
    EXPECT_EQ(access(0x40000000, Access::kRead, kOther).fault(), xlate::FaultReason::kMapping);
    EXPECT_FALSE(access(0x40000000, Access::kWrite, kOther));
    EXPECT_TRUE(access(0x40100000, Access::kWrite, kOther));
    EXPECT_EQ(attach(1, kOther, VIRTIO_IOMMU_ATTACH_F_BYPASS), ok);
    EXPECT_FALSE(access(0x400fffff, Access::kWrite, kOther));
    EXPECT_EQ(attach(2, kOther), ok);
    EXPECT_FALSE(access(0x400fffff, Access::kWrite, kOther));
    auto reader = std::move(*xlate::Reader::create(device->table(), device->faults(), kOther));
    EXPECT_EQ(detach(2, kOther), ok);
    reader.enter();
    EXPECT_EQ(reader.translate({0x3fffff00}, 0x1000, Access::kRead).bytes(), 0x100u)
        << "a run ends before it";
    reader.leave();
}

// 5.13.6.8.1-D2, 5.13.6.8.1-D3
TEST(EndpointRegionsConfig, overlap_and_second_doorbell_of_one_endpoint_are_refused) {
    const auto message = [](ReservedRegion region, EndpointId e) {
        Config c = Spec::config();
        c.endpoint_reserved[e] = {region};
        const auto d = Device::create(c);
        return d ? std::string("accepted") : d.error().message;
    };
    using Type = ReservedRegion::Type;
    const auto overlap = message({{{0x108000}, {0x118fff}}, Type::kReserved}, kOther);
    EXPECT_NE(overlap.find("endpoint 0x20: "), std::string::npos) << overlap;
    EXPECT_NE(overlap.find("overlap"), std::string::npos) << overlap;
    const auto second = message({{{0x8020000}, {0x8020fff}}, Type::kMsi}, kOther);
    EXPECT_NE(second.find("msi"), std::string::npos) << second;
    EXPECT_NE(message({{{0x8020000}, {0x8020fff}}, Type::kReserved}, 0x99).find("0x99"),
              std::string::npos);
    EXPECT_EQ(message({{{0x8020000}, {0x8020fff}}, Type::kReserved}, kOther), "accepted");
}

}  // namespace
}  // namespace viommu::device::spec
