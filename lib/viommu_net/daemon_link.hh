// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "viommu_share.hh"

namespace viommu::program {

/// One guest's table as its daemon shares it, with any number of readers: a share::Client has 64,
/// so there are as many of those as it takes.
/// Threads: a control thread. Outlives its readers.
class DaemonLink {
  public:
    /// Errors: share::Client's
    static Result<DaemonLink> connect(const std::string& path, std::chrono::milliseconds timeout);

    /// Errors: no such endpoint; share::Client's, when one more was needed.
    Result<xlate::Reader> reader(EndpointId endpoint);

    /// Until the daemon no longer waits for this process's sections, or `wake` can be read. True:
    /// the former. Once true, true for ever.
    bool wait_for_loss(int wake) const;

    /// As the daemon calls it.
    const std::string& guest() const noexcept { return clients_.front().guest(); }

  private:
    DaemonLink(std::string path, std::chrono::milliseconds timeout)
        : path_(std::move(path)), timeout_(timeout) {}
    Result<void> connect_one_more();

    std::string path_;
    std::chrono::milliseconds timeout_;
    std::vector<share::Client> clients_;
    unsigned left_ = 0;  // readers that the last of them has
};

}  // namespace viommu::program
