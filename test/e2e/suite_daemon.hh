// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <gtest/gtest.h>

#include <optional>

#include "daemon.hh"

namespace viommu::e2e {

/// One daemon for all tests of a suite: a new guest resets it. `kConfig`: its configuration.
template <const auto& kConfig>
class SuiteDaemon : public testing::Test {
  protected:
    static void SetUpTestSuite() {
        auto started = Daemon::start(kConfig);
        ASSERT_TRUE(started) << started.error().message;
        daemon.emplace(std::move(*started));
    }
    static void TearDownTestSuite() {
        if (daemon) {
            const auto stopped = daemon->stop();
            EXPECT_TRUE(stopped) << stopped.error().message;
        }
        daemon.reset();
    }
    static inline std::optional<Daemon> daemon;
};

}  // namespace viommu::e2e
