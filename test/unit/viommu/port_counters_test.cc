// SPDX-License-Identifier: BSD-3-Clause
#include "port_counters.hh"

#include <gtest/gtest.h>

namespace viommu::app {
namespace {

struct Two {
    uint64_t packets, drops;
    template <class F>
    void for_each(F&& f) const {
        f("packets", packets);
        f("drops", drops);
    }
};

std::string printed(uint16_t pairs, const std::vector<Two>& values) {
    const std::string prefix = "net.a/b";
    PortCounters counters(prefix, pairs);
    for (uint16_t pair = 0; pair < values.size(); pair++) counters.add("sent", pair, values[pair]);
    Counters out;
    counters.print(out);
    return out.text();
}

TEST(PortCounters, port_of_one_pair_has_totals_only) {
    EXPECT_EQ(printed(1, {{3, 0}}), "net.a/b.sent.packets 3\nnet.a/b.sent.drops 0\n");
}

TEST(PortCounters, queues_add_up_and_those_that_are_zero_are_left_out) {
    EXPECT_EQ(printed(3, {{3, 0}, {0, 0}, {4, 1}}),
              "net.a/b.sent.packets 7\nnet.a/b.sent.drops 1\n"
              "net.a/b.q0.sent.packets 3\n"
              "net.a/b.q2.sent.packets 4\nnet.a/b.q2.sent.drops 1\n");
}

}  // namespace
}  // namespace viommu::app
