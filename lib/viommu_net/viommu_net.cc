// SPDX-License-Identifier: BSD-3-Clause
/// The C ABI over program::Port: nothing but the change of types, and no exception gets out.
#pragma GCC visibility push(default)
#include "viommu_net.h"
#pragma GCC visibility pop

#include <rte_random.h>

#include <algorithm>
#include <cstring>
#include <string_view>

#include "port.hh"

using viommu::Result;
using viommu::net::Counters;
using viommu::program::Port;
using viommu::program::PortOptions;

struct viommu_net {
    std::unique_ptr<Port> port;
};

namespace {

static_assert(VIOMMU_NET_DAEMON == int(viommu::program::kDaemon) &&
              VIOMMU_NET_FRONTEND == int(viommu::program::kFrontend) &&
              VIOMMU_NET_RUNNING == int(viommu::program::kRunning));

constexpr unsigned kKnownFlags = VIOMMU_NET_CONTROL_QUEUE | VIOMMU_NET_NO_OFFLOADS |
                                 VIOMMU_NET_DIRTY_LOG | VIOMMU_NET_RINGS_IOVA |
                                 VIOMMU_NET_RINGS_UVA | VIOMMU_NET_NO_RX_CHECKSUM |
                                 VIOMMU_NET_NO_RX_LARGE;

/// Of the last failure in this thread. A place of fixed size, so that telling of a failure cannot
/// fail.
thread_local char error_text[512] = "no error";

void set_error(std::string_view text) noexcept {
    const size_t n = std::min(text.size(), sizeof error_text - 1);
    std::copy_n(text.data(), n, error_text);
    error_text[n] = 0;
}

std::array<uint8_t, 6> mac_of(const viommu_net_options& o) {
    std::array<uint8_t, 6> mac;
    std::copy_n(o.mac, mac.size(), mac.begin());
    if (std::ranges::any_of(mac, [](uint8_t b) { return b != 0; })) return mac;
    const uint64_t random = rte_rand();
    std::memcpy(mac.data(), &random, mac.size());
    mac[0] = uint8_t((mac[0] & ~1) | 2);  // an individual address, locally administered
    return mac;
}

Result<PortOptions> checked(const viommu_net_options& o) {
    using viommu::fail;
    using viommu::net::MayLeave;
    using viommu::net::RingAddresses;
    // There is no earlier version of the structure.
    if (o.size != sizeof o)
        return fail(
            "viommu_net_open: options of {} bytes, not {}: begin with "
            "VIOMMU_NET_OPTIONS_INIT, and use a library as new as its header",
            o.size, sizeof o);
    if (o.readers == nullptr) return fail("viommu_net_open: no `readers` socket of a guest");
    if (o.socket == nullptr) return fail("viommu_net_open: no vhost-user `socket` to listen on");
    if (o.pool == nullptr) return fail("{}: no `pool` for packets from the guest", o.socket);
    if ((o.flags & ~kKnownFlags) != 0 || o.reserved != 0)
        return fail("{}: flags {:#x} are not known to this version", o.socket, o.flags);
    if (o.mtu != 0 && o.mtu < 68)
        return fail("{}: an MTU of {}: the least that IPv4 allows is 68", o.socket, o.mtu);
    const bool iova = (o.flags & VIOMMU_NET_RINGS_IOVA) != 0;
    const bool uva = (o.flags & VIOMMU_NET_RINGS_UVA) != 0;
    if (iova && uva) return fail("{}: rings are at I/O addresses, or they are not", o.socket);
    PortOptions out;
    out.readers = o.readers;
    out.socket = o.socket;
    out.pool = o.pool;
    out.timeout = std::chrono::milliseconds(o.timeout_ms == 0 ? 1000 : o.timeout_ms);
    out.dirty_log = (o.flags & VIOMMU_NET_DIRTY_LOG) != 0;
    out.event = o.event;
    out.event_arg = o.event_arg;
    out.net.endpoint = o.endpoint;
    out.net.mac = mac_of(o);
    if (o.mtu != 0) out.net.mtu = o.mtu;
    out.net.queue_pairs = std::max<uint16_t>(o.queue_pairs, 1);
    out.net.control_queue = (o.flags & VIOMMU_NET_CONTROL_QUEUE) != 0;
    out.net.offloads = (o.flags & VIOMMU_NET_NO_OFFLOADS) == 0;
    if ((o.flags & VIOMMU_NET_NO_RX_LARGE) != 0) out.net.may_leave = MayLeave::kChecksums;
    if ((o.flags & VIOMMU_NET_NO_RX_CHECKSUM) != 0) out.net.may_leave = MayLeave::kNothing;
    if (o.speed_mbps != 0) out.net.speed_mbps = o.speed_mbps;
    out.net.ring_addresses = iova  ? RingAddresses::kIova
                             : uva ? RingAddresses::kUva
                                   : RingAddresses::kAuto;
    return out;
}

/// f(name, value) of each of the port's own counters.
template <class F>
void for_each_of_port(const Port& port, F&& f) {
    f("translations", port.net().translations());
    f("lost_faults", port.net().lost_faults());
    f("daemons_lost", port.daemons_lost());
    f("frontends_refused", port.frontends_refused());
}
constexpr const char* kPortCounters[] = {"translations", "lost_faults", "daemons_lost",
                                         "frontends_refused"};

}  // namespace

viommu_net* viommu_net_open(const viommu_net_options* options) {
    try {
        const auto asked = checked(*options);
        auto port = asked ? Port::open(*asked) : tl::unexpected(asked.error());
        if (port) return new viommu_net{std::move(*port)};
        set_error(port.error().message);
    } catch (const std::exception& e) {
        set_error(e.what());
    } catch (...) {
        set_error("an unknown exception");
    }
    return nullptr;
}

void viommu_net_close(viommu_net* p) { delete p; }

const char* viommu_net_error(void) { return error_text; }

uint16_t viommu_net_rx_burst(viommu_net* p, uint16_t pair, rte_mbuf** packets, uint16_t n) {
    if (pair >= p->port->max_pairs()) [[unlikely]]
        return 0;
    return uint16_t(p->port->receive(pair, {packets, n}));
}

uint16_t viommu_net_tx_burst(viommu_net* p, uint16_t pair, rte_mbuf** packets, uint16_t n) {
    if (pair >= p->port->max_pairs()) [[unlikely]]
        return 0;
    return uint16_t(p->port->send(pair, {packets, n}));
}

uint16_t viommu_net_pairs(const viommu_net* p) { return p->port->max_pairs(); }

uint16_t viommu_net_active_pairs(const viommu_net* p) { return p->port->net().active_pairs(); }

uint16_t viommu_net_pair_for(const viommu_net* p, const rte_mbuf* packet, uint16_t from) {
    return p->port->net().pair_for(*packet, from);
}

void viommu_net_poll_control(viommu_net* p) { p->port->poll_control(); }

int viommu_net_arm(viommu_net* p, uint16_t pair) {
    return pair < p->port->max_pairs() && p->port->arm(pair) ? 1 : 0;
}

void viommu_net_disarm(viommu_net* p, uint16_t pair) {
    if (pair < p->port->max_pairs()) p->port->disarm(pair);
}

int viommu_net_wait_fd(const viommu_net* p, uint16_t pair) {
    return pair < p->port->max_pairs() ? p->port->wait_fd(pair) : -1;
}

uint32_t viommu_net_sleep_limit_us(viommu_net* p, uint16_t pair) {
    if (pair >= p->port->max_pairs()) return UINT32_MAX;
    const auto limit = p->port->sleep_limit(pair);
    return uint32_t(std::min<int64_t>(limit.count(), UINT32_MAX));
}

unsigned viommu_net_state(const viommu_net* p) { return p->port->state(); }

void viommu_net_set_link(viommu_net* p, int up) { p->port->set_link(up != 0); }

unsigned viommu_net_counters(unsigned whose) {
    if (whose == VIOMMU_NET_PORT) return unsigned(std::size(kPortCounters));
    if (whose > VIOMMU_NET_CONTROL) return 0;
    unsigned n = 0;
    Counters().for_each([&](const char*, uint64_t) { ++n; });
    return n;
}

const char* viommu_net_counter_name(unsigned whose, unsigned number) {
    if (whose == VIOMMU_NET_PORT)
        return number < std::size(kPortCounters) ? kPortCounters[number] : nullptr;
    if (whose > VIOMMU_NET_CONTROL) return nullptr;
    const char* found = nullptr;
    Counters().for_each([&](const char* name, uint64_t) {
        if (number-- == 0) found = name;
    });
    return found;
}

uint64_t viommu_net_counter(const viommu_net* p, uint16_t pair, unsigned whose, unsigned number) {
    uint64_t found = 0;
    const auto pick = [&](const char*, uint64_t value) {
        if (number-- == 0) found = value;
    };
    const auto& net = p->port->net();
    if (whose == VIOMMU_NET_PORT)
        for_each_of_port(*p->port, pick);
    else if (pair < net.max_pairs() && whose == VIOMMU_NET_FROM_GUEST)
        net.from_guest_counters(pair).for_each(pick);
    else if (pair < net.max_pairs() && whose == VIOMMU_NET_TO_GUEST)
        net.to_guest_counters(pair).for_each(pick);
    else if (whose == VIOMMU_NET_CONTROL && net.control_counters() != nullptr)
        net.control_counters()->for_each(pick);
    return found;
}
