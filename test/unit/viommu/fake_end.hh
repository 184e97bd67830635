// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <rte_mbuf.h>

#include <algorithm>
#include <deque>
#include <vector>

#include "packet_end.hh"

namespace viommu::app {

/// An end of some pairs: gives `incoming`, takes into `taken` while there is room for a call and in
/// all. Packets go to the queue of the pair that they came from, unless `queue_of` says otherwise.
struct FakeEnd final : PacketEnd {
    using microseconds = std::chrono::microseconds;

    explicit FakeEnd(uint16_t pairs = 1) : incoming(pairs), taken(pairs), disarmed(pairs) {}
    ~FakeEnd() override {
        for (auto& queue : incoming)
            for (rte_mbuf* m : queue) rte_pktmbuf_free(m);
        for (auto& queue : taken)
            for (rte_mbuf* m : queue) rte_pktmbuf_free(m);
    }

    uint16_t pairs() const noexcept override { return uint16_t(incoming.size()); }
    unsigned receive(uint16_t pair, std::span<rte_mbuf*> out) noexcept override {
        auto& queue = incoming[pair];
        const auto n = std::min(out.size(), queue.size());
        std::copy_n(queue.begin(), n, out.begin());
        queue.erase(queue.begin(), queue.begin() + long(n));
        return unsigned(n);
    }
    void poll_control() noexcept override { controls++; }
    uint16_t send_queues() const noexcept override { return pairs(); }
    void steer(std::span<rte_mbuf* const> packets, uint16_t pair,
               std::span<uint16_t> queues) const noexcept override {
        for (size_t i = 0; i < packets.size(); i++)
            queues[i] = queue_of ? queue_of(*packets[i]) : uint16_t(pair % pairs());
    }
    unsigned send(uint16_t queue, std::span<rte_mbuf*> in) noexcept override {
        sends++;
        const unsigned n = std::min({unsigned(in.size()), room_per_call, room});
        taken[queue].insert(taken[queue].end(), in.begin(), in.begin() + n);
        room -= n;
        return n;
    }
    bool arm(uint16_t pair) noexcept override { return busy_pair != pair; }
    void disarm(uint16_t pair) noexcept override { disarmed[pair]++; }
    std::span<const int> wake_fds(uint16_t pair) const noexcept override {
        return pair < fds.size() ? std::span(&fds[pair], 1) : std::span<const int>();
    }
    microseconds sleep_limit(uint16_t) const noexcept override { return limit; }

    std::vector<std::deque<rte_mbuf*>> incoming;  ///< by pair
    std::vector<std::vector<rte_mbuf*>> taken;    ///< by queue
    uint16_t (*queue_of)(const rte_mbuf&) = nullptr;
    unsigned room = 100000, room_per_call = 1000;
    unsigned sends = 0, controls = 0;
    int busy_pair = -1;
    std::vector<unsigned> disarmed;
    std::vector<int> fds;
    microseconds limit = microseconds::max();
};

}  // namespace viommu::app
