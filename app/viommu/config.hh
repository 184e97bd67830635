// SPDX-License-Identifier: BSD-3-Clause
/// What the operator asked for. The keys are described in doc/configuration.md.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "viommu_base.hh"
#include "viommu_device.hh"
#include "viommu_net.hh"
#include "viommu_poll.hh"
#include "viommu_share.hh"

namespace viommu::app {

/// Where in the configuration something was said, for messages: "vm.toml:12: guest.vm0.lcore".
struct Place {
    std::string file;
    unsigned line = 0;
    std::string key;
};
std::string to_string(const Place& place);

struct Lcore {
    unsigned id = 0;
    Place place;  ///< of the key, or of the table that does without it
};

/// The other end of a net port.
struct Peer {
    enum class Kind {
        kNone,    ///< packets from the guest are counted and dropped
        kVdev,    ///< a DPDK virtual device made for this port; target: devargs
        kEthdev,  ///< a port that EAL has found; target: its name
        kNet,     ///< a net port of ours; target: "guest/net"
    };
    Kind kind = Kind::kNone;
    std::string target;
    Place place;
};

using MacAddress = std::array<uint8_t, 6>;

/// NetPort::kMaxPairs
inline constexpr uint16_t kMaxQueuePairs = 64;

struct Net {
    std::string name;
    std::string socket;
    EndpointId endpoint = 0;
    MacAddress mac{};
    std::optional<uint16_t> mtu;
    uint16_t queue_pairs = 1;
    bool control_queue = false;  ///< it comes to us, as the last of the device's queues
    bool offloads = true;
    std::optional<uint32_t> speed_mbps;
    net::RingAddresses ring_addresses = net::RingAddresses::kAuto;
    Peer peer;
    /// Pair i of the port, and of its peer if that is an ethdev, is polled by lcores[i % size].
    /// All differ; no more than queue_pairs.
    std::vector<Lcore> lcores;
    bool lcores_given = false;

    unsigned lcore_of(uint16_t pair) const { return lcores[pair % lcores.size()].id; }
};

/// Where other processes get the table, and what becomes of those that hold up the guest.
struct Readers {
    std::string socket;
    std::chrono::milliseconds stall{1000};
    share::StalledReaders stalled = share::StalledReaders::kKill;
};

struct Guest {
    std::string name;
    std::string socket;
    Lcore lcore;
    bool dirty_log = false;  ///< offered to the VMM, at every socket of the guest
    device::Config device;  ///< endpoints: those of [[guest.endpoint]], then those of the nets
    std::vector<Net> nets;
    std::optional<Readers> readers;
};

struct Config {
    poll::Policy poll = poll::Policy::kAdaptive;
    std::optional<std::vector<std::string>> eal;  ///< absent: chosen by default_eal_arguments()
    std::vector<Guest> guests;
};

/// Everything that is wrong, one message each, in the order of the file's lines.
/// Every message has the form "file:line: key = value: what is wrong; what would be right".
using Problems = std::vector<std::string>;

/// Errors: the file cannot be read, is not TOML, or asks for what cannot be served.
tl::expected<Config, Problems> load_config(const std::string& path);
/// The same of a text; `file` is what messages call it.
tl::expected<Config, Problems> parse_config(std::string_view text, const std::string& file);

/// Two ends between which packets are moved. Every net port is in exactly one.
struct Link {
    struct End {
        size_t guest, net;  ///< indices
    };
    End a;
    std::optional<End> b;  ///< absent: what a's Net::peer says, which is not kNet
};
std::vector<Link> links_of(const Config& config);

/// Every lcore that polls something, ascending.
std::vector<unsigned> lcores_of(const Config& config);

}  // namespace viommu::app
