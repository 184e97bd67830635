// SPDX-License-Identifier: BSD-3-Clause
/// Streams through queues, in one thread, as fast as the daemon takes and gives.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>

#include "stream.hh"
#include "viommu_guest.hh"

namespace viommu::e2e {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kSanitized = true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = false;
#endif
#else
inline constexpr bool kSanitized = false;
#endif

/// One stream's way from a transmitq to a receiveq. Never more is on the way than half of the
/// receiver's buffers hold, so a packet that is lost was lost by more than want of buffers.
class Lane {
  public:
    Lane(guest::NetDriver& from, guest::NetDriver& to, uint32_t id, uint16_t from_pair = 0,
         uint16_t to_pair = 0)
        : from_(from), to_(to), from_pair_(from_pair), to_pair_(to_pair), stream_(id) {}

    Stream& stream() { return stream_; }
    guest::TxQueue& tx() { return from_.tx(from_pair_); }
    guest::RxQueue& rx() { return to_.rx(to_pair_); }

    /// Up to a burst each way. Returns how many packets moved.
    unsigned turn(bool send) {
        const uint64_t first = stream_.sent();
        const uint32_t window = rx().buffers() / 2u;
        uint32_t count = 0;
        for (uint32_t cost = on_the_way_; send && count < kBurst; ++count) {
            cost += buffers_of(stream_.bytes_of(first + count));
            if (cost > window && on_the_way_ + count != 0) break;
        }
        check(tx().transmit(count, [&](auto room) { return stream_.write(room); }));
        for (uint64_t s = first; s < stream_.sent(); ++s)
            on_the_way_ += buffers_of(stream_.bytes_of(s));
        const auto received = rx().receive(kBurst, [&](std::span<const std::byte> packet) {
            const uint64_t before = stream_.expected();
            if (!stream_.read(packet)) return fail(stream_.why());
            // With it, what was lost before it is not on the way any more.
            for (uint64_t s = before; s < stream_.expected(); ++s)
                on_the_way_ -= std::min(on_the_way_, buffers_of(stream_.bytes_of(s)));
        });
        check(received);
        return unsigned(stream_.sent() - first) + (received ? *received : 0);
    }
    /// Nothing has come for long: what has not is lost.
    void give_up_waiting() { on_the_way_ = 0; }
    bool idle() { return on_the_way_ == 0 && tx().queue().in_flight() == 0; }

  private:
    static constexpr unsigned kBurst = 32;

    uint32_t buffers_of(uint32_t bytes) {
        const bool mergeable =
            (to_.features() & guest::bit(wire::VIRTIO_NET_F_MRG_RXBUF)) != 0;
        const uint32_t room = rx().buffer_bytes();
        return mergeable ? (bytes + uint32_t(sizeof(wire::virtio_net_hdr)) + room - 1) / room : 1;
    }
    static void fail(const std::string& why) { FAIL() << why; }
    template <class R>
    static void check(const R& result) {
        if (!result) fail(result.error().message);
    }

    guest::NetDriver& from_;
    guest::NetDriver& to_;
    const uint16_t from_pair_, to_pair_;
    Stream stream_;
    uint32_t on_the_way_ = 0;  // in buffers of the receiver
};

/// Move `bytes` more through each of `lanes`; `between()` is called after every round in which
/// packets moved. Ends when all has arrived, or when nothing has come for `patience`, which is then
/// no error: see Stream.
inline void pump(std::span<Lane* const> lanes, uint64_t bytes, const std::function<void()>& between,
                 guest::Milliseconds patience = guest::Milliseconds(kSanitized ? 2000 : 300)) {
    std::vector<uint64_t> goals;
    for (Lane* lane : lanes) goals.push_back(lane->stream().sent_bytes() + bytes);
    guest::Patience idle(patience);
    for (;;) {
        unsigned moved = 0;
        bool done = true;
        for (size_t i = 0; i < lanes.size(); ++i) {
            const bool send = lanes[i]->stream().sent_bytes() < goals[i];
            moved += lanes[i]->turn(send);
            done &= !send && lanes[i]->idle();
            if (testing::Test::HasFatalFailure()) return;
        }
        if (done) return;
        if (moved != 0) {
            idle.renew();
            between();
            if (testing::Test::HasFatalFailure()) return;
        } else if (!idle.wait()) {
            bool all_sent = true;
            for (size_t i = 0; i < lanes.size(); ++i) {
                all_sent &= lanes[i]->stream().sent_bytes() >= goals[i];
                ASSERT_EQ(lanes[i]->tx().queue().in_flight(), 0)
                    << "packets are not taken; stream " << i;
                lanes[i]->give_up_waiting();
            }
            if (all_sent) return;
            idle.renew();
        }
    }
}

/// Packets that the daemon's counters say were dropped, on every port and each way. What a port of
/// a guest gives to another's is in the counters of both: `to_peer` is taken. `device`: a port whose
/// peer is not another guest's, "vm0/net3".
inline uint64_t drops(const std::map<std::string, uint64_t>& counters,
                      const std::string& device = {}) {
    uint64_t sum = 0;
    for (const auto& [name, value] : counters) {
        // net.GUEST/NET.DIRECTION.COUNTER; those of single queues have a part more.
        if (!name.starts_with("net.") || std::count(name.begin(), name.end(), '.') != 3) continue;
        if (name.find(".control.") != std::string::npos) continue;  // those are commands
        const bool again = name.find(".from_peer.") != std::string::npos &&
                           (device.empty() || !name.starts_with("net." + device + "."));
        if (name.find(".drop") != std::string::npos && !again) sum += value;
    }
    return sum;
}

}  // namespace viommu::e2e
