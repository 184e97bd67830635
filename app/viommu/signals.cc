// SPDX-License-Identifier: BSD-3-Clause
#include "signals.hh"

namespace viommu::app {

Signals::Signals() {
    sigemptyset(&set_);
    for (const int signal : {SIGINT, SIGTERM, SIGUSR1}) sigaddset(&set_, signal);
    pthread_sigmask(SIG_BLOCK, &set_, nullptr);
    std::signal(SIGPIPE, SIG_IGN);  // a reader of our output that went away is no reason to end
}

Signals::What Signals::wait(std::chrono::milliseconds limit) const {
    const timespec time{limit.count() / 1000, limit.count() % 1000 * 1'000'000};
    switch (sigtimedwait(&set_, nullptr, &time)) {
        case SIGUSR1:
            return What::kReport;
        case SIGINT:
        case SIGTERM:
            return What::kEnd;
        default:
            return What::kNone;
    }
}

}  // namespace viommu::app
