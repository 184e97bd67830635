// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <optional>

#include "../e2e/daemon.hh"
#include "flow.hh"
#include "process.hh"

namespace viommu::pmd {

/// Two guests whose IOMMUs one daemon serves, and whose NICs somebody else does.
class TwoGuests : public testing::Test {
  protected:
    static constexpr EndpointId kEndpoint = 0x20;  // 0000:00:04.0, in each

    TwoGuests();
    ~TwoGuests() override;

    /// In a folder that stays when a daemon is replaced.
    std::string path(const std::string& name) const { return (folder_ / name).string(); }
    void start_daemon();
    /// A guest and its port; `pairs` of queues. `offloads`: feature bits that its driver needs of
    /// the port, besides the usual ones.
    void start_guest(unsigned number, uint16_t pairs = 1, uint64_t offloads = 0);
    guest::NetDriver& port(unsigned number) { return guests[number]->port(0); }

    std::optional<e2e::Daemon> daemon;
    std::unique_ptr<guest::Guest> guests[2];

  private:
    std::filesystem::path folder_;
};

}  // namespace viommu::pmd

/// Of a Result.
#define VIOMMU_OK(what)                          \
    do {                                         \
        const auto& ok_ = (what);                \
        ASSERT_TRUE(ok_) << ok_.error().message; \
    } while (false)
