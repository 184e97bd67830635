// SPDX-License-Identifier: BSD-3-Clause
/// One guest with an IOMMU and two ports that are each other's peers.
#pragma once

#include <gtest/gtest.h>

#include "suite_daemon.hh"
#include "viommu_guest.hh"

namespace viommu::e2e {

inline constexpr const char* kTwoPorts = R"(
poll = "adaptive"
[[guest]]
name = "vm0"
socket = "@DIR@/iommu.sock"
lcore = 1
bypass = false
dirty_log = true
  [[guest.net]]
  name = "net0"
  socket = "@DIR@/net0.sock"
  endpoint = "0000:00:04.0"
  mac = "52:54:00:00:00:01"
  peer = "guest:vm0/net1"
  lcore = 2
  [[guest.net]]
  name = "net1"
  socket = "@DIR@/net1.sock"
  endpoint = "0000:00:05.0"
)";
inline constexpr EndpointId kEndpoint0 = 0x20, kEndpoint1 = 0x28;

inline guest::GuestOptions two_ports(const Daemon& daemon) {
    guest::GuestOptions o;
    o.iommu_socket = daemon.path("iommu.sock");
    o.ports.resize(2);
    o.ports[0].socket = daemon.path("net0.sock");
    o.ports[0].endpoint = kEndpoint0;
    o.ports[1].socket = daemon.path("net1.sock");
    o.ports[1].endpoint = kEndpoint1;
    return o;
}

using TwoPorts = SuiteDaemon<kTwoPorts>;

/// What a VMM is offered at a socket.
inline Result<uint64_t> offered(const std::string& socket) {
    guest::FrontendOptions o;
    o.socket = socket;
    auto frontend = guest::Frontend::connect(o);
    if (!frontend) return tl::unexpected(frontend.error());
    return frontend->features();
}

}  // namespace viommu::e2e

/// The rest of the test needs `wanted` of the device at `socket`.
#define VIOMMU_NEEDS(socket, wanted)                                                            \
    do {                                                                                        \
        const auto offer_ = ::viommu::e2e::offered(socket);                                     \
        ASSERT_TRUE(offer_) << offer_.error().message;                                          \
        ASSERT_EQ((wanted) & ~*offer_, 0u) << socket << " does not offer these feature bits";   \
    } while (false)
