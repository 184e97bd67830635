// SPDX-License-Identifier: BSD-3-Clause
#include "patch.hh"

#include <rte_mbuf.h>

#include <algorithm>

namespace viommu::app {

unsigned Discard::send(uint16_t, std::span<rte_mbuf*> in) noexcept {
    rte_pktmbuf_free_bulk(in.data(), unsigned(in.size()));
    return unsigned(in.size());
}

Direction::Direction(PacketEnd& from, PacketEnd& to, unsigned lcores)
    : from_(from), to_(to), counters_(std::make_unique<OfPair[]>(from.pairs())) {
    if (!to.exclusive(lcores)) guards_ = std::make_unique<Guard[]>(to.send_queues());
}

Patch::~Patch() {
    for (const auto& line : lines_) rte_pktmbuf_free_bulk(line->kept.data(), line->waiting);
}

void Patch::add(Direction& direction, uint16_t pair) {
    auto turn = std::ranges::find(turns_, &direction, &Turn::direction);
    if (turn == turns_.end()) turn = turns_.insert(turn, Turn{.direction = &direction});
    if (pair == 0) turn->control = true;
    lines_.push_back(std::make_unique<Line>(Line{.direction = &direction, .pair = pair}));
    turn->lines.push_back(lines_.back().get());
}

/// To one queue, once more if it takes only some, and drop the rest. False: another lcore is there,
/// and nothing has been done.
bool Patch::deliver(Line& line, uint16_t queue, std::span<rte_mbuf*> packets) noexcept {
    Direction& direction = *line.direction;
    uint64_t bytes[kBurst + 1] = {0};  // of the first n packets; sent ones are not ours to look at
    for (size_t i = 0; i < packets.size(); i++) bytes[i + 1] = bytes[i] + packets[i]->pkt_len;
    if (!direction.enter(queue)) return false;
    unsigned sent = direction.to_.send(queue, packets);
    if (sent < packets.size()) sent += direction.to_.send(queue, packets.subspan(sent));
    direction.leave(queue);
    Direction::Counters& counters = direction.counters_[line.pair].its;
    counters.packets.add(sent);
    counters.bytes.add(bytes[sent]);
    if (sent < packets.size()) {
        counters.dropped_full.add(packets.size() - sent);
        rte_pktmbuf_free_bulk(packets.data() + sent, unsigned(packets.size() - sent));
    }
    return true;
}

/// To the queues that the receiving end wants them in, those of a queue in their order. What cannot
/// go now is kept; none is, yet, and `packets` are not in `kept`.
void Patch::distribute(Line& line, std::span<rte_mbuf*> packets) noexcept {
    uint16_t queues[kBurst];
    line.direction->to_.steer(packets, line.pair, std::span(queues).first(packets.size()));
    size_t left = packets.size();
    while (left > 0) {
        // Those for the first one's queue; the others move up.
        const uint16_t queue = queues[0];
        rte_mbuf* group[kBurst];
        unsigned n = 0;
        size_t others = 0;
        for (size_t i = 0; i < left; i++) {
            if (queues[i] == queue) {
                group[n++] = packets[i];
            } else {
                queues[others] = queues[i];
                packets[others++] = packets[i];
            }
        }
        left = others;
        if (deliver(line, queue, std::span(group).first(n))) continue;
        std::copy_n(group, n, line.kept.begin() + line.waiting);
        line.waiting += n;
    }
    if (line.waiting != 0) line.direction->counters_[line.pair].its.waits.add();
}

/// A burst. Returns how many packets got on.
unsigned Patch::move(Line& line) noexcept {
    rte_mbuf* packets[kBurst];
    if (line.waiting != 0) [[unlikely]] {
        const unsigned waited = line.waiting;
        std::copy_n(line.kept.begin(), waited, packets);
        line.waiting = 0;
        distribute(line, std::span(packets).first(waited));
        return waited - line.waiting;
    }
    const unsigned received = line.direction->from_.receive(line.pair, packets);
    if (received != 0) distribute(line, std::span(packets).first(received));
    return received;
}

/// From each pair a burst, until it is enough for one poll; the next one goes on with the pairs
/// that had no turn.
unsigned Patch::poll(Turn& turn) noexcept {
    unsigned done = 0;
    for (size_t i = 0; i < turn.lines.size() && done < kBurst; i++) {
        done += move(*turn.lines[turn.next]);
        if (++turn.next == turn.lines.size()) turn.next = 0;
    }
    return done;
}

unsigned Patch::poll() noexcept {
    unsigned done = 0;
    for (Turn& turn : turns_) {
        if (turn.control) turn.direction->from_.poll_control();
        done += poll(turn);
    }
    return done;
}

bool Patch::arm() noexcept {
    return std::ranges::all_of(lines_, [](const auto& line) {
        return line->waiting == 0 && line->direction->from_.arm(line->pair);
    });
}

void Patch::disarm() noexcept {
    for (const auto& line : lines_) line->direction->from_.disarm(line->pair);
}

std::span<const int> Patch::wake_fds() const noexcept {
    wake_fds_.clear();
    for (const auto& line : lines_) {
        const auto fds = line->direction->from_.wake_fds(line->pair);
        wake_fds_.insert(wake_fds_.end(), fds.begin(), fds.end());
    }
    return wake_fds_;
}

std::chrono::microseconds Patch::sleep_limit() const noexcept {
    auto limit = std::chrono::microseconds::max();
    for (const auto& line : lines_)
        limit = std::min(limit, line->direction->from_.sleep_limit(line->pair));
    return limit;
}

}  // namespace viommu::app
