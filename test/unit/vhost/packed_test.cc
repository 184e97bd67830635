// SPDX-License-Identifier: BSD-3-Clause
#include "fixture.hh"

namespace viommu::vhost::test {
namespace {

constexpr uint64_t kPacked = uint64_t(1) << VIRTIO_F_RING_PACKED;

using Packed = FeatureTest<kPacked>;

TEST_F(Packed, ring_may_have_any_size_up_to_32768) {
    Frontend f(path);
    ASSERT_TRUE(f.set_features(kVersion1 | kProtocolFeaturesBit | kPacked));
    for (const uint32_t size : {1u, 2u, 3u, 7u, 257u, 32767u, 32768u})
        EXPECT_TRUE(f.set_num(0, size)) << size;
    for (const uint32_t size : {0u, 32769u, 65536u, 0xffffffffu})
        EXPECT_FALSE(f.set_num(0, size)) << size;
}

TEST_F(Packed, offered_but_not_accepted_wants_powers_of_two) {
    Frontend f(path);
    ASSERT_TRUE(f.set_features(kVersion1 | kProtocolFeaturesBit));
    EXPECT_FALSE(f.set_num(0, 3));
    EXPECT_TRUE(f.set_num(0, 4));
}

TEST_F(Packed, size_that_came_before_the_features_is_judged_by_them) {
    for (const bool packed : {true, false}) {
        Frontend f(path);
        ASSERT_TRUE(f.set_num(0, 3));
        ASSERT_TRUE(f.set_addr(0, 0x1000, 0x2000, 0x3000));
        ASSERT_TRUE(f.set_kick(0, -1));
        ASSERT_TRUE(f.add_region({.gpa = 0, .bytes = 0x1000, .uva = 0x1000}));
        ASSERT_TRUE(f.set_features(kVersion1 | (packed ? kPacked : 0)));
        EXPECT_EQ(packed, recorder.happened("start 0 size 3 at 0x1000 0x2000 0x3000 base 0 no kick "
                                            "no call"));
        f.disconnect();
        ASSERT_TRUE(eventually([&] { return !recorder.is_connected(); }));
        recorder.take();
    }
}

/// A packed ring's base has two indices and two wrap counters: 32 bits.
TEST_F(Packed, base_keeps_all_its_bits) {
    Frontend f(path);
    ASSERT_TRUE(f.set_features(kVersion1 | kProtocolFeaturesBit | kPacked));
    ASSERT_TRUE(f.set_base(1, 0x80058003));
    EXPECT_EQ(0x80058003u, f.get_base(1));
}

TEST_F(Packed, base_goes_to_the_device_and_comes_back_whole) {
    Frontend f(path);
    ASSERT_TRUE(f.set_features(kVersion1 | kProtocolFeaturesBit | kPacked));
    ASSERT_TRUE(f.add_region({.gpa = 0, .bytes = 0x1000, .uva = 0x1000}));
    ASSERT_TRUE(f.set_num(0, 7));
    ASSERT_TRUE(f.set_addr(0, 0x1000, 0x2000, 0x3000));
    ASSERT_TRUE(f.set_base(0, 0x80058003));
    ASSERT_TRUE(f.set_kick(0, -1));
    recorder.advance = 0x100;
    ASSERT_TRUE(f.set_enable(0, true));
    EXPECT_TRUE(recorder.happened(fmt::format(
        "start 0 size 7 at 0x1000 0x2000 0x3000 base {} no kick no call", 0x80058003u)));
    EXPECT_EQ(0x80058103u, f.get_base(0));
}

}  // namespace
}  // namespace viommu::vhost::test
