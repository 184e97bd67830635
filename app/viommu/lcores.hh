// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "report.hh"
#include "viommu_poll.hh"

namespace viommu::app {

/// A Poller on each of some EAL worker lcores. Threads: the main lcore.
class Lcores {
  public:
    Lcores(const std::vector<unsigned>& ids, poll::Policy policy);
    ~Lcores() { stop(); }
    Lcores(const Lcores&) = delete;
    Lcores& operator=(const Lcores&) = delete;

    poll::Poller& at(unsigned id) { return lcores_.at(id)->poller; }

    /// Begin to poll. Errors: an lcore that is not free; none polls then.
    Result<void> launch();
    /// End polling and wait for it. Idempotent.
    void stop();

    /// Run `function` on the thread of lcore `id`, between two rounds, and wait for it. Here, when
    /// nothing polls.
    void run_on(unsigned id, const std::function<void()>& function);

    void add_counters(Counters& out) const;

  private:
    struct Lcore {
        explicit Lcore(poll::Policy policy) : poller(policy) {}
        static int run(void* self);
        poll::Poller poller;
        /// Says what rte_eal_wait_lcore() says, in the terms of the C++ memory model.
        std::atomic<bool> ended{false};
    };
    std::map<unsigned, std::unique_ptr<Lcore>> lcores_;
    std::vector<unsigned> running_;
};

}  // namespace viommu::app
