// SPDX-License-Identifier: BSD-3-Clause
#include "ethdev.hh"

#include <rte_dev.h>
#include <rte_ethdev.h>

#include <algorithm>

#include "eal_log.hh"
#include "ethdev_rss.hh"

namespace viommu::app {
namespace {

const EalLog log("viommu.ethdev");

/// What spreads flows over queues.
constexpr uint64_t kRssTypes = RTE_ETH_RSS_IP | RTE_ETH_RSS_TCP | RTE_ETH_RSS_UDP;

/// A port without receive interrupts is looked at this often while its lcore sleeps.
constexpr std::chrono::microseconds kNoInterruptLimit{500};
/// And one with them this often: not every driver tells of packets that came before the interrupt
/// was enabled.
constexpr std::chrono::microseconds kInterruptLimit{20000};

/// What a guest may leave undone, of which net::offload::Receiver knows.
constexpr uint64_t kTxOffloads = RTE_ETH_TX_OFFLOAD_IPV4_CKSUM | RTE_ETH_TX_OFFLOAD_UDP_CKSUM |
                                 RTE_ETH_TX_OFFLOAD_TCP_CKSUM | RTE_ETH_TX_OFFLOAD_TCP_TSO;

/// Drivers whose offloads are work of our own lcore, which we do with less: not for packets that
/// nobody has asked to have checked.
bool in_software(const rte_eth_dev_info& info) {
    return std::string_view(info.driver_name) == "net_tap";
}

std::string names_of_ports() {
    std::string out;
    uint16_t port;
    char name[RTE_ETH_NAME_MAX_LEN];
    RTE_ETH_FOREACH_DEV(port) {
        if (rte_eth_dev_get_name_by_port(port, name) == 0) {
            if (!out.empty()) out.append(", ");
            out.append(name);
        }
    }
    return out.empty() ? "none" : out;
}

}  // namespace

Result<std::unique_ptr<Ethdev>> Ethdev::open(const Peer& peer, const Options& options,
                                             rte_mempool& pool) {
    std::string name = peer.target;
    std::string vdev;
    if (peer.kind == Peer::Kind::kVdev) {
        const size_t comma = std::min(name.find(','), name.size());
        const std::string arguments = name.substr(std::min(comma + 1, name.size()));
        name.resize(comma);
        if (const int error = rte_eal_hotplug_add("vdev", name.c_str(), arguments.c_str()); error)
            return fail("{} = \"vdev:{}\": DPDK cannot make the device: {}; see its messages above",
                        to_string(peer.place), peer.target, rte_strerror(-error));
        vdev = name;
    }
    uint16_t port;
    if (rte_eth_dev_get_port_by_name(name.c_str(), &port) != 0) {
        if (!vdev.empty()) rte_eal_hotplug_remove("vdev", vdev.c_str());
        return fail("{}: DPDK has no port '{}'; it has: {}", to_string(peer.place), name,
                    names_of_ports());
    }
    std::unique_ptr<Ethdev> ethdev(new Ethdev(port, vdev, options));
    if (auto started = ethdev->start(pool); !started)
        return fail("{}: port '{}' {}", to_string(peer.place), name, started.error().message);
    return ethdev;
}

int Ethdev::configure(const Wishes& wishes) {
    rte_eth_dev_info info{};
    if (const int error = rte_eth_dev_info_get(port_, &info); error != 0) return error;
    queues_ = std::max<uint16_t>(
        1, std::min({options_.pairs, info.max_rx_queues, info.max_tx_queues}));
    rte_eth_conf conf{};
    conf.intr_conf.rxq = wishes.interrupts;
    if (wishes.rss && queues_ > 1) {
        conf.rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
        conf.rx_adv_conf.rss_conf.rss_hf = info.flow_type_rss_offloads & kRssTypes;
    }
    tx_offloads_ = info.tx_offload_capa & RTE_ETH_TX_OFFLOAD_MULTI_SEGS;
    if (wishes.offloads && !in_software(info)) {
        tx_offloads_ |= info.tx_offload_capa & kTxOffloads;
        conf.rxmode.offloads = info.rx_offload_capa & RTE_ETH_RX_OFFLOAD_CHECKSUM;
    }
    conf.txmode.offloads = tx_offloads_;
    return rte_eth_dev_configure(port_, queues_, queues_, &conf);
}

Result<void> Ethdev::start(rte_mempool& pool) {
    // Whatever the device can of what makes it better. Drivers refuse what they have not.
    bool interrupts = false;
    int error = -1;
    for (unsigned without = 0; error != 0 && without < 8; without++) {
        interrupts = (without & 1) == 0;
        error = configure({.interrupts = interrupts,
                           .rss = (without & 2) == 0,
                           .offloads = options_.offloads && (without & 4) == 0});
    }
    if (error != 0)
        return fail("cannot be configured for {} queues each way: {}; see DPDK's messages above",
                    queues_, rte_strerror(-error));
    if (auto done = set_up_queues(pool); !done) return done;
    for (uint16_t q = 0; q < queues_; q++)
        senders_.push_back(std::make_unique<EthdevSender>(port_, q, tx_offloads_, pool));
    rte_eth_promiscuous_enable(port_);  // those that cannot are promiscuous anyway
    interrupt_fds_.assign(queues_, -1);
    // DPDK logs an error where there are none, so ask no longer than there are some.
    for (uint16_t q = 0; interrupts && q < queues_; q++)
        if ((interrupt_fds_[q] = rte_eth_dev_rx_intr_ctl_q_get_fd(port_, q)) < 0) break;
    return {};
}

Result<void> Ethdev::set_up_queues(rte_mempool& pool) {
    const auto failed = [](const char* what, int error) {
        return fail("{}: {}; see DPDK's messages above", what, rte_strerror(-error));
    };
    uint16_t received = kDescriptors, sent = kDescriptors;
    int error = rte_eth_dev_adjust_nb_rx_tx_desc(port_, &received, &sent);
    if (error != 0) return failed("has no descriptors", error);
    const int socket = rte_eth_dev_socket_id(port_);
    for (uint16_t q = 0; q < queues_; q++) {
        error = rte_eth_rx_queue_setup(port_, q, received, unsigned(socket), nullptr, &pool);
        if (error != 0) return failed("has no receive queue", error);
        error = rte_eth_tx_queue_setup(port_, q, sent, unsigned(socket), nullptr);
        if (error != 0) return failed("has no transmit queue", error);
    }
    if (options_.mtu && (error = rte_eth_dev_set_mtu(port_, *options_.mtu)) != 0)
        return failed("does not take the net port's mtu", error);
    if ((error = rte_eth_dev_start(port_)) != 0) return failed("cannot be started", error);
    started_ = true;
    return {};
}

Ethdev::~Ethdev() {
    if (started_) rte_eth_dev_stop(port_);
    if (vdev_.empty())
        rte_eth_dev_close(port_);
    else
        rte_eal_hotplug_remove("vdev", vdev_.c_str());
}

unsigned Ethdev::receive(uint16_t pair, std::span<rte_mbuf*> out) noexcept {
    return rte_eth_rx_burst(port_, pair, out.data(), uint16_t(out.size()));
}

void Ethdev::steer(std::span<rte_mbuf* const> packets, uint16_t pair,
                   std::span<uint16_t> queues) const noexcept {
    const unsigned queue =
        queues_ >= options_.pairs ? pair : pair % options_.lcores % queues_;
    std::fill_n(queues.begin(), packets.size(), uint16_t(queue));
}

unsigned Ethdev::send(uint16_t queue, std::span<rte_mbuf*> in) noexcept {
    return senders_[queue]->send(in);
}

bool Ethdev::arm(uint16_t pair) noexcept {
    if (interrupt_fds_[pair] < 0) return true;
    rte_eth_dev_rx_intr_enable(port_, pair);
    return rte_eth_rx_queue_count(port_, pair) <= 0;
}

void Ethdev::disarm(uint16_t pair) noexcept {
    if (interrupt_fds_[pair] >= 0) rte_eth_dev_rx_intr_disable(port_, pair);
}

std::span<const int> Ethdev::wake_fds(uint16_t pair) const noexcept {
    return interrupt_fds_[pair] < 0 ? std::span<const int>() : std::span(&interrupt_fds_[pair], 1);
}

std::chrono::microseconds Ethdev::sleep_limit(uint16_t pair) const noexcept {
    return interrupt_fds_[pair] < 0 ? kNoInterruptLimit : kInterruptLimit;
}

void Ethdev::steer_like(const net::NetPort& port) {
    const uint64_t version = port.rss_version();
    if (version == steered_like_ || queues_ == 1 || queues_ != port.max_pairs()) return;
    steered_like_ = version;
    const auto rss = port.rss();
    if (!rss && !by_guest_) return;
    by_guest_ = rss.has_value();
    const auto done = program_rss(port_, rss, port.active_pairs());
    (done ? steering_.programmed : steering_.refused).add();
    if (!done)
        log(RTE_LOG_INFO, "port {}: {}: its queues do not follow the guest's receive-side scaling",
            port_, done.error().message);
}

bool Ethdev::link_up() const noexcept {
    rte_eth_link link{};
    return rte_eth_link_get_nowait(port_, &link) != 0 || link.link_status == RTE_ETH_LINK_UP;
}

}  // namespace viommu::app
