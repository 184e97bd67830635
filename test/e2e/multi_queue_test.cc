// SPDX-License-Identifier: BSD-3-Clause
/// Several pairs of queues over two lcores.
#include "many_pairs.hh"

namespace viommu::e2e {
namespace {

using namespace guest;

const std::string kConfig = many_pairs(false);

class MultiQueue : public ManyPairs<kConfig>, public testing::WithParamInterface<bool> {};

TEST_P(MultiQueue, pairs_that_run_are_used_where_the_guest_has_no_controlq) {
    boot(GetParam() ? bit(wire::VIRTIO_F_RING_PACKED) : 0);
    ASSERT_FALSE(HasFatalFailure());
    for (int i = 0; i < 5; ++i) {
        forget();
        pass(300);
        ASSERT_FALSE(HasFatalFailure());
        expect_pairs(kPairs);
        const auto again = guest->port(i % 2).reconnect();
        ASSERT_TRUE(again) << again.error().message;
    }
    const auto down = guest->shut_down();
    EXPECT_TRUE(down) << down.error().message;
}

INSTANTIATE_TEST_SUITE_P(All, MultiQueue, testing::Bool(),
                         [](const auto& info) { return info.param ? "packed" : "split"; });

}  // namespace
}  // namespace viommu::e2e
