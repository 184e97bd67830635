// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "config.hh"
#include "ethdev.hh"
#include "guest.hh"
#include "lcores.hh"
#include "pools.hh"
#include "port.hh"
#include "reader_sockets.hh"
#include "wire.hh"

namespace viommu::app {

/// In the order of Config::guests.
using Devices = std::vector<std::unique_ptr<device::Device>>;

/// Everything that is served, on running lcores. Threads: the main lcore, after EAL has started.
class Daemon {
  public:
    /// `config` outlives it. On return all sockets are there and all lcores poll.
    static Result<std::unique_ptr<Daemon>> create(const Config& config, Devices devices);
    ~Daemon();
    Daemon(const Daemon&) = delete;
    Daemon& operator=(const Daemon&) = delete;

    /// Disconnect all frontends, remove the sockets, end polling. Idempotent.
    void stop();

    /// One text of headings and "<dotted name> <value>" lines.
    std::string counters();
    /// What happened since the last call that the operator should know.
    std::vector<std::string> warnings();
    /// Have guests know whether the devices that their ports are patched to have a link, and these
    /// devices how the guests want packets spread.
    void watch_devices();

  private:
    /// A wire and what is at its ends.
    struct Cable {
        NetService *a, *b;                 ///< b: null when `outer` is the other end
        std::unique_ptr<PacketEnd> outer;  ///< not a net port of ours
        Ethdev* ethdev;                    ///< `outer`, if it is one
        std::unique_ptr<Wire> wire;
    };

    explicit Daemon(const Config& config);
    Result<void> make_services(Devices devices);
    Result<void> connect(const Link& link);
    Result<void> listen();
    const Net& net_of(const Link::End& end) const;
    NetService& service_of(const Link::End& end) { return *nets_[end.guest][end.net]; }

    // In the order in which they depend on one another.
    const Config& config_;
    Pools pools_;
    Lcores lcores_;
    std::vector<std::unique_ptr<GuestIommu>> guests_;
    std::vector<std::vector<std::unique_ptr<NetService>>> nets_;  ///< by guest
    std::vector<Cable> cables_;
    ReaderSockets reader_sockets_;
};

}  // namespace viommu::app
