// SPDX-License-Identifier: BSD-3-Clause
#include "ethdev.hh"

#include <rte_dev.h>
#include <rte_ethdev.h>

namespace viommu::app {
namespace {

constexpr uint16_t kQueue = 0;
constexpr uint16_t kDescriptors = 512;

/// A port without receive interrupts is looked at this often while its lcore sleeps.
constexpr std::chrono::microseconds kNoInterruptLimit{500};
/// And one with them this often: not every driver tells of packets that came before the interrupt
/// was enabled.
constexpr std::chrono::microseconds kInterruptLimit{20000};

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

Result<std::unique_ptr<Ethdev>> Ethdev::open(const Peer& peer, std::optional<uint16_t> mtu,
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
    std::unique_ptr<Ethdev> ethdev(new Ethdev(port, vdev));
    if (auto started = ethdev->start(mtu, pool); !started)
        return fail("{}: port '{}' {}", to_string(peer.place), name, started.error().message);
    return ethdev;
}

Result<void> Ethdev::start(std::optional<uint16_t> mtu, rte_mempool& pool) {
    const auto failed = [](const char* what, int error) {
        return fail("{}: {}; see DPDK's messages above", what, rte_strerror(-error));
    };
    rte_eth_conf conf{};
    conf.intr_conf.rxq = 1;
    int error = rte_eth_dev_configure(port_, 1, 1, &conf);
    const bool interrupts = error == 0;
    if (!interrupts) {
        conf.intr_conf.rxq = 0;
        error = rte_eth_dev_configure(port_, 1, 1, &conf);
    }
    if (error != 0) return failed("cannot be configured for one queue each way", error);

    uint16_t received = kDescriptors, sent = kDescriptors;
    if ((error = rte_eth_dev_adjust_nb_rx_tx_desc(port_, &received, &sent)) != 0)
        return failed("has no descriptors", error);
    const int socket = rte_eth_dev_socket_id(port_);
    if ((error = rte_eth_rx_queue_setup(port_, kQueue, received, socket, nullptr, &pool)) != 0)
        return failed("has no receive queue", error);
    if ((error = rte_eth_tx_queue_setup(port_, kQueue, sent, socket, nullptr)) != 0)
        return failed("has no transmit queue", error);
    if (mtu && (error = rte_eth_dev_set_mtu(port_, *mtu)) != 0)
        return failed("does not take the net port's mtu", error);
    if ((error = rte_eth_dev_start(port_)) != 0) return failed("cannot be started", error);
    started_ = true;
    rte_eth_promiscuous_enable(port_);  // those that cannot are promiscuous anyway
    if (interrupts) interrupt_fd_ = rte_eth_dev_rx_intr_ctl_q_get_fd(port_, kQueue);
    return {};
}

Ethdev::~Ethdev() {
    if (started_) rte_eth_dev_stop(port_);
    if (vdev_.empty())
        rte_eth_dev_close(port_);
    else
        rte_eal_hotplug_remove("vdev", vdev_.c_str());
}

unsigned Ethdev::receive(std::span<rte_mbuf*> out) noexcept {
    return rte_eth_rx_burst(port_, kQueue, out.data(), uint16_t(out.size()));
}

unsigned Ethdev::send(std::span<rte_mbuf*> in) noexcept {
    return rte_eth_tx_burst(port_, kQueue, in.data(), uint16_t(in.size()));
}

bool Ethdev::arm() noexcept {
    if (interrupt_fd_ < 0) return true;
    rte_eth_dev_rx_intr_enable(port_, kQueue);
    return rte_eth_rx_queue_count(port_, kQueue) <= 0;
}

void Ethdev::disarm() noexcept {
    if (interrupt_fd_ >= 0) rte_eth_dev_rx_intr_disable(port_, kQueue);
}

std::span<const int> Ethdev::wake_fds() const noexcept {
    return interrupt_fd_ < 0 ? std::span<const int>() : std::span(&interrupt_fd_, 1);
}

std::chrono::microseconds Ethdev::sleep_limit() const noexcept {
    return interrupt_fd_ < 0 ? kNoInterruptLimit : kInterruptLimit;
}

}  // namespace viommu::app
