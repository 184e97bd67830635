// SPDX-License-Identifier: BSD-3-Clause
#include "lcores.hh"

#include <rte_errno.h>
#include <rte_launch.h>
#include <rte_lcore.h>
#include <sched.h>

#include <atomic>

namespace viommu::app {
namespace {

/// Calls a function in its first poll().
class Once final : public poll::Pollable {
  public:
    explicit Once(const std::function<void()>& function) : function_(function) {}
    unsigned poll() noexcept override {
        if (done_.test(std::memory_order_relaxed)) return 0;
        function_();
        done_.test_and_set(std::memory_order_release);  // pairs with wait()
        done_.notify_one();
        return 0;
    }
    void wait() { done_.wait(false, std::memory_order_acquire); }

  private:
    const std::function<void()>& function_;
    std::atomic_flag done_;
};

}  // namespace

int Lcores::Lcore::run(void* self) {
    auto& lcore = *static_cast<Lcore*>(self);
    lcore.poller.run();
    lcore.ended.store(true, std::memory_order_release);  // pairs with stop()
    return 0;
}

Lcores::Lcores(const std::vector<unsigned>& ids, poll::Policy policy) {
    for (unsigned id : ids) lcores_.emplace(id, std::make_unique<Lcore>(policy));
}

Result<void> Lcores::launch() {
    for (auto& [id, lcore] : lcores_) {
        lcore->ended.store(false, std::memory_order_relaxed);
        if (const int error = rte_eal_remote_launch(Lcore::run, lcore.get(), id); error != 0) {
            stop();
            return fail("lcore {} cannot be started: {}", id, rte_strerror(-error));
        }
        running_.push_back(id);
    }
    return {};
}

void Lcores::stop() {
    for (unsigned id : running_) lcores_.at(id)->poller.stop();
    for (unsigned id : running_) {
        rte_eal_wait_lcore(id);
        while (!lcores_.at(id)->ended.load(std::memory_order_acquire)) sched_yield();
    }
    running_.clear();
}

void Lcores::run_on(unsigned id, const std::function<void()>& function) {
    if (running_.empty()) return function();
    Once once(function);
    at(id).add(once);
    once.wait();
    at(id).remove(once);
}

void Lcores::add_counters(Counters& out) const {
    for (const auto& [id, lcore] : lcores_) add_poller(out, id, lcore->poller.stats());
}

}  // namespace viommu::app
