// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <chrono>
#include <csignal>

namespace viommu::app {

/// The signals that operators send. They are blocked in every thread and taken by wait() on the
/// main one, so nothing runs in a signal handler.
class Signals {
  public:
    enum class What { kReport, kEnd, kNone };

    /// Before any other thread is started: they inherit it.
    Signals();
    /// The next signal, or kNone when none comes in time.
    What wait(std::chrono::milliseconds limit) const;

  private:
    sigset_t set_;
};

}  // namespace viommu::app
