// SPDX-License-Identifier: BSD-3-Clause
#include "control_queue.hh"

#include <algorithm>

namespace viommu::net {

void ControlQueue::start(const std::optional<virtq::Vring>& vring, uint32_t base,
                         uint64_t acked) {
    waiting_ = false;
    NetQueue::start(vring, base, acked);
    if (begins_anew()) restart();  // else when its ring is found
}

uint32_t ControlQueue::stop() noexcept {
    // What was executed and not answered is executed again, should the ring go on. But while
    // nothing has been returned in it, it looks the same as the next driver's.
    waiting_ = false;
    if (untouched_) restart();
    return NetQueue::stop();
}

void ControlQueue::poll() noexcept {
    if (!runs() || (waiting_ && !all_over())) return;
    const Burst burst(*this);
    if (!burst) return;
    if (begins_anew()) restart();
    for (unsigned i = 0; i < kBurst && serve_next(); ++i) {
    }
    count_broken();
}

void ControlQueue::restart() noexcept {
    control_.restart();
    untouched_ = true;
}

/// False: there is none, or it is to be answered later.
bool ControlQueue::serve_next() noexcept {
    const virtq::Pop pop = take_chain();
    if (pop == virtq::Pop::kEmpty || pop == virtq::Pop::kBroken) return false;
    uint32_t written = 0;
    if (pop == virtq::Pop::kFault) {
        counters_.drop_fault.add();
    } else if (pop == virtq::Pop::kMalformed || chain_.writable_bytes() == 0) {
        counters_.drop_malformed.add();
    } else {
        virtq::Cursor<IovaSpace, Access::kWrite> cursor(space_, chain_.writable(), 1);
        const auto place = cursor.take(1);
        if (place.empty() || (!waiting_ && !execute())) {
            counters_.drop_fault.add();
        } else if (!waiting_ && !all_over()) {
            waiting_ = true;
            ring_.unpop(chain_.taken());
            return false;
        } else {
            place[0] = std::byte{ack_};
            virtq::wrote(space_, place);
            counters_.packets.add();
            counters_.bytes.add(chain_.readable_bytes());
            written = 1;
        }
    }
    waiting_ = untouched_ = false;
    ring_.push(chain_.taken(), written);
    return true;
}

/// False: the command could not be read.
bool ControlQueue::execute() noexcept {
    const auto bytes = size_t(std::min<uint64_t>(chain_.readable_bytes(), command_.size()));
    const auto command = std::span(command_).first(bytes);
    if (ring_.gather(chain_.readable(), command).bytes != bytes) return false;
    ack_ = control_.execute(command);
    full_fence();  // N4 pairs N3
    for (Watched& w : bursts_) w.then = w.bursts->now();
    return true;
}

bool ControlQueue::all_over() noexcept {
    return std::ranges::all_of(bursts_, [](const Watched& w) { return w.bursts->is_over(w.then); });
}

}  // namespace viommu::net
