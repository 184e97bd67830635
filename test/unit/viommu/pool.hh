// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <gtest/gtest.h>
#include <rte_mbuf.h>

#include <vector>

namespace viommu::app {

/// A fixture with packets, which notices those that leak.
class WithPool : public testing::Test {
  protected:
    void SetUp() override {
        pool_ =
            rte_pktmbuf_pool_create("test", 1023, 0, 0, RTE_MBUF_DEFAULT_BUF_SIZE, SOCKET_ID_ANY);
        ASSERT_NE(pool_, nullptr);
    }
    void TearDown() override {
        EXPECT_EQ(rte_mempool_in_use_count(pool_), 0u) << "packets leaked";
        rte_mempool_free(pool_);
    }

    rte_mbuf* packet(uint16_t bytes) {
        rte_mbuf* m = rte_pktmbuf_alloc(pool_);
        EXPECT_NE(rte_pktmbuf_append(m, bytes), nullptr);
        return m;
    }

    rte_mempool* pool_ = nullptr;
};

}  // namespace viommu::app
