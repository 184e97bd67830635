// SPDX-License-Identifier: BSD-3-Clause
/// Fault reports (5.13.6.9): from an access to the bytes that the driver gets.
#include "fixture.hh"

namespace viommu::device::spec {
namespace {

// 5.13.6.9-D1, 5.13.6.9-D2, 5.13.6.9-D3, 5.13.6.9-D4
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

/// What the guest is told of an access by `e` that a reader found no translation for.
struct FaultOf : Spec {
    std::optional<virtio_iommu_fault> of(uint64_t iova, Access need, EndpointId e = kEndpoint) {
        auto reader = std::move(*xlate::Reader::create(device->table(), device->faults(), e));
        reader.enter();
        const auto t = reader.translate({iova}, 8, need);
        if (!t) reader.report({iova}, need, t.fault());
        reader.leave();
        virtio_iommu_fault f;
        if (!device->next_fault(f)) return std::nullopt;
        EXPECT_EQ(f.endpoint, e);
        EXPECT_EQ(f.address, iova);
        EXPECT_FALSE(device->next_fault(f)) << "one access, one report";
        return f;
    }
};

constexpr uint32_t kReadFault = VIRTIO_IOMMU_FAULT_F_READ | VIRTIO_IOMMU_FAULT_F_ADDRESS;
constexpr uint32_t kWriteFault = VIRTIO_IOMMU_FAULT_F_WRITE | VIRTIO_IOMMU_FAULT_F_ADDRESS;

// 5.13.6.9-N1, 5.13.6.9-D3, v0.5-1
TEST_F(FaultOf, unattached_endpoint_is_reason_domain) {
    for (const EndpointId e : {kEndpoint, kOther}) {
        const auto read = of(0x1234, Access::kRead, e);
        ASSERT_TRUE(read);
        EXPECT_EQ(read->reason, VIRTIO_IOMMU_FAULT_R_DOMAIN);
        EXPECT_EQ(read->flags, kReadFault);
        const auto write = of(0x1234, Access::kWrite, e);
        ASSERT_TRUE(write);
        EXPECT_EQ(write->reason, VIRTIO_IOMMU_FAULT_R_DOMAIN);
        EXPECT_EQ(write->flags, kWriteFault);
    }
}

// 5.13.6.9-N1, 5.13.6.9-D2, v0.7-6
TEST_F(FaultOf, missing_mapping_or_right_is_reason_mapping) {
    EXPECT_EQ(attach(1), ok);
    EXPECT_EQ(map(0, kPage - 1, 1, VIRTIO_IOMMU_MAP_F_READ), ok);
    EXPECT_EQ(map(kPage, 2 * kPage - 1, 1, VIRTIO_IOMMU_MAP_F_WRITE), ok);
    EXPECT_EQ(map(2 * kPage, 3 * kPage - 1, 1, 0), ok);
    struct Case {
        uint64_t iova;
        bool reads, writes;
    };
    for (const Case& c : {Case{0, true, false}, {kPage, false, true}, {2 * kPage, false, false},
                          {3 * kPage, false, false}, {uint64_t{1} << 62, false, false}}) {
        const auto read = of(c.iova, Access::kRead);
        EXPECT_EQ(!read, c.reads) << c.iova;
        if (read) {
            EXPECT_EQ(read->reason, VIRTIO_IOMMU_FAULT_R_MAPPING);
            EXPECT_EQ(read->flags, kReadFault);
        }
        const auto write = of(c.iova, Access::kWrite);
        EXPECT_EQ(!write, c.writes) << c.iova;
        if (write) {
            EXPECT_EQ(write->reason, VIRTIO_IOMMU_FAULT_R_MAPPING);
            EXPECT_EQ(write->flags, kWriteFault);
        }
    }
}

// 5.13.6.9-N1
TEST_F(FaultOf, bypass_mode_has_none_but_in_reserved_regions) {
    write_bypass(1);
    EXPECT_FALSE(of(0x5000, Access::kWrite));
    const auto fault = of(0x100000, Access::kWrite);
    ASSERT_TRUE(fault);
    EXPECT_EQ(fault->reason, VIRTIO_IOMMU_FAULT_R_MAPPING);
    EXPECT_EQ(fault->flags, kWriteFault);
}

// 5.13.6.9-N1
TEST_F(FaultOf, anything_else_is_reason_unknown) {
    device->faults().push({Iova{5}, kOther, xlate::FaultReason::kUnknown, Access::kReadWrite});
    virtio_iommu_fault f;
    ASSERT_TRUE(device->next_fault(f));
    EXPECT_EQ(f.reason, VIRTIO_IOMMU_FAULT_R_UNKNOWN);
    EXPECT_EQ(f.flags, kReadFault | kWriteFault);
}

}  // namespace
}  // namespace viommu::device::spec
