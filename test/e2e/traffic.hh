// SPDX-License-Identifier: BSD-3-Clause
/// Packets that are compared byte by byte, for tests with two ports.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <random>

#include "viommu_guest.hh"

namespace viommu::e2e {

inline std::vector<std::byte> random_packet(std::mt19937& rng, size_t bytes) {
    std::vector<std::byte> p(bytes);
    for (auto& b : p) b = std::byte(rng());
    return p;
}

/// `count` packets of random sizes from port a to port b, no more in flight than b has buffers
/// for; every byte compared.
inline void exchange(guest::Guest& guest, size_t a, size_t b, unsigned count, size_t max_bytes,
                     std::mt19937& rng) {
    std::deque<std::vector<std::byte>> in_flight;
    guest::Patience patience(guest::Milliseconds(10000));
    unsigned sent = 0, received = 0;
    while (received < count) {
        const unsigned window = std::max(guest.port(b).rx_buffers() / 4, 1);
        bool progress = false;
        while (sent < count && in_flight.size() < window) {
            auto packet = random_packet(rng, 14 + rng() % (max_bytes - 13));
            const auto ok = guest.port(a).transmit(packet);
            ASSERT_TRUE(ok) << ok.error().message;
            if (!*ok) break;
            in_flight.push_back(std::move(packet));
            ++sent;
            progress = true;
        }
        const auto n = guest.port(b).receive(32, [&](std::span<const std::byte> packet) {
            ASSERT_FALSE(in_flight.empty());
            ASSERT_TRUE(std::equal(packet.begin(), packet.end(), in_flight.front().begin(),
                                   in_flight.front().end()))
                << "packet " << received << ": " << packet.size() << " bytes, sent "
                << in_flight.front().size();
            in_flight.pop_front();
            ++received;
        });
        ASSERT_TRUE(n) << n.error().message;
        if (testing::Test::HasFatalFailure()) return;
        progress |= *n != 0;
        if (progress)
            patience.renew();
        else
            ASSERT_TRUE(patience.wait()) << received << " of " << sent << " packets arrived";
    }
}

}  // namespace viommu::e2e
