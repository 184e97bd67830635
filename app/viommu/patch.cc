// SPDX-License-Identifier: BSD-3-Clause
#include "patch.hh"

#include <rte_mbuf.h>

#include <algorithm>

namespace viommu::app {

unsigned Discard::send(std::span<rte_mbuf*> in) noexcept {
    rte_pktmbuf_free_bulk(in.data(), unsigned(in.size()));
    return unsigned(in.size());
}

unsigned Patch::move(PacketEnd& from, PacketEnd& to, Direction& counters) noexcept {
    rte_mbuf* packets[kBurst];
    const unsigned received = from.receive(packets);
    if (received == 0) return 0;
    uint64_t bytes[kBurst + 1] = {0};  // of the first n packets; sent ones are not ours to look at
    for (unsigned i = 0; i < received; i++) bytes[i + 1] = bytes[i] + packets[i]->pkt_len;

    const std::span all(packets, received);
    unsigned sent = to.send(all);
    if (sent < received) sent += to.send(all.subspan(sent));
    counters.packets.add(sent);
    counters.bytes.add(bytes[sent]);
    if (sent < received) {
        counters.dropped_full.add(received - sent);
        rte_pktmbuf_free_bulk(packets + sent, received - sent);
    }
    return received;
}

unsigned Patch::poll() noexcept { return move(a_, b_, a_to_b_) + move(b_, a_, b_to_a_); }

void Patch::disarm() noexcept {
    a_.disarm();
    b_.disarm();
}

std::span<const int> Patch::wake_fds() const noexcept {
    wake_fds_.clear();
    for (const PacketEnd* end : {&a_, &b_})
        wake_fds_.insert(wake_fds_.end(), end->wake_fds().begin(), end->wake_fds().end());
    return wake_fds_;
}

std::chrono::microseconds Patch::sleep_limit() const noexcept {
    return std::min(a_.sleep_limit(), b_.sleep_limit());
}

}  // namespace viommu::app
