// SPDX-License-Identifier: BSD-3-Clause
#pragma once

namespace viommu::e2e {

/// Two guests: two ports of the first are each other's peers, and one is the second's. Ends in the
/// first guest, so that it can be given more.
inline constexpr const char* kTwoGuests = R"(
poll = "adaptive"
[[guest]]
name = "vm1"
socket = "@DIR@/vm1.sock"
lcore = 1
bypass = false
  [[guest.net]]
  name = "net0"
  socket = "@DIR@/vm1-net0.sock"
  endpoint = "0000:00:04.0"
  [[guest.endpoint]]
  id = "0000:00:1f.0"
[[guest]]
name = "vm0"
socket = "@DIR@/vm0.sock"
lcore = 1
bypass = false
  [[guest.net]]
  name = "net0"
  socket = "@DIR@/vm0-net0.sock"
  endpoint = "0000:00:04.0"
  peer = "guest:vm0/net1"
  lcore = 2
  [[guest.net]]
  name = "net1"
  socket = "@DIR@/vm0-net1.sock"
  endpoint = "0000:00:05.0"
  [[guest.net]]
  name = "net2"
  socket = "@DIR@/vm0-net2.sock"
  endpoint = "0000:00:06.0"
  peer = "guest:vm1/net0"
  lcore = 2
)";

}  // namespace viommu::e2e
