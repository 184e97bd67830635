// SPDX-License-Identifier: BSD-3-Clause
#include "port.hh"

#include "guest.hh"
#include "port_counters.hh"
#include "viommu_net.hh"
#include "viommu_nic.hh"
#include "viommu_vhost.hh"

namespace viommu::app {
namespace {

net::Config net_config(const Net& net) {
    return {.endpoint = net.endpoint,
            .mac = net.mac,
            .mtu = net.mtu,
            .queue_pairs = net.queue_pairs,
            .control_queue = net.control_queue,
            .offloads = net.offloads,  // EthdevSender finishes packets for devices
            .speed_mbps = net.speed_mbps,
            .ring_addresses = net.ring_addresses};
}
static_assert(kMaxQueuePairs == net::NetPort::kMaxPairs);

/// A NetPort as an end of a patch.
class PortEnd final : public PacketEnd {
  public:
    explicit PortEnd(net::NetPort& port) : port_(port) {}

    uint16_t pairs() const noexcept override { return port_.max_pairs(); }
    unsigned receive(uint16_t pair, std::span<rte_mbuf*> out) noexcept override {
        return port_.from_guest(pair, out);
    }
    void poll_control() noexcept override { port_.poll_control(); }

    uint16_t send_queues() const noexcept override { return port_.max_pairs(); }
    /// Which receiveqs are used is up to the guest: any lcore may come to any of them.
    void steer(std::span<rte_mbuf* const> packets, uint16_t pair,
               std::span<uint16_t> queues) const noexcept override {
        for (size_t i = 0; i < packets.size(); i++) queues[i] = port_.pair_for(*packets[i], pair);
    }
    unsigned send(uint16_t queue, std::span<rte_mbuf*> in) noexcept override {
        return port_.to_guest(queue, in);
    }

    bool arm(uint16_t pair) noexcept override { return port_.arm(pair); }
    void disarm(uint16_t pair) noexcept override { port_.disarm(pair); }
    std::span<const int> wake_fds(uint16_t pair) const noexcept override {
        return port_.wake_fds(pair);
    }
    std::chrono::microseconds sleep_limit(uint16_t pair) const noexcept override {
        return port_.sleep_limit(pair);
    }

  private:
    net::NetPort& port_;
};

/// Behind a socket: taken from its lcore while the frontend changes it.
class PortHandler final : public nic::NetHandler {
  public:
    using NetHandler::NetHandler;
    void drive_with(Wire& wire) { wire_ = &wire; }

    /// Nobody knows yet whether this frontend can be told of the link.
    void connected() override { port().set_link(true); }

  private:
    void pause() override { wire_->pause(); }
    void resume() override { wire_->resume(); }

    Wire* wire_ = nullptr;
};

}  // namespace

struct NetService::Impl {
    Impl(const Guest& guest, const Net& net, std::unique_ptr<net::NetPort> the_port)
        : prefix(fmt::format("net.{}/{}", guest.name, net.name)),
          path(net.socket),
          port(std::move(the_port)),
          handler(*port, guest.dirty_log) {}

    const std::string prefix;
    const std::string path;
    const std::unique_ptr<net::NetPort> port;
    PortEnd end{*port};
    PortHandler handler;
    std::unique_ptr<vhost::Socket> socket;
};

NetService::NetService(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
NetService::~NetService() = default;

Result<std::unique_ptr<NetService>> NetService::create(const Guest& guest, const Net& net,
                                                       device::Device& device, rte_mempool& pool) {
    auto port = net::NetPort::create(net_config(net), device.table(), device.faults(), pool);
    if (!port) return fail("net port {}/{}: {}", guest.name, net.name, port.error().message);
    return std::unique_ptr<NetService>(
        new NetService(std::make_unique<Impl>(guest, net, std::move(*port))));
}

PacketEnd& NetService::end() { return impl_->end; }

void NetService::drive_with(Wire& wire) { impl_->handler.drive_with(wire); }

Result<void> NetService::listen() {
    if (auto made = make_directories(impl_->path); !made) return made;
    auto socket = vhost::Socket::listen(impl_->path, impl_->handler);
    if (!socket) return tl::unexpected(socket.error());
    impl_->socket = std::move(*socket);
    return {};
}

void NetService::close() { impl_->socket.reset(); }

void NetService::set_link(bool up) {
    if (!impl_->socket) return;
    if (impl_->port->set_link(up || !impl_->socket->hears_changes()))
        impl_->socket->config_changed();
}

const net::NetPort& NetService::port() const { return *impl_->port; }

void NetService::add_counters(Counters& out, const Direction& sent, const Direction& received,
                              const Ethdev* device) const {
    const net::NetPort& port = *impl_->port;
    PortCounters all(impl_->prefix, port.max_pairs());
    out.heading("net port " + impl_->prefix.substr(4));
    out.add(impl_->prefix, "translations", port.translations());
    for (uint16_t pair = 0; pair < port.max_pairs(); pair++) {
        all.add("from_guest", pair, port.from_guest_counters(pair));
        all.add("to_guest", pair, port.to_guest_counters(pair));
    }
    for (uint16_t pair = 0; pair < sent.from().pairs(); pair++)
        all.add("to_peer", pair, sent.counters(pair));
    for (uint16_t pair = 0; pair < received.from().pairs(); pair++)
        all.add("from_peer", pair, received.counters(pair));
    for (uint16_t queue = 0; device != nullptr && queue < device->send_queues(); queue++)
        all.add("device", queue, device->sender(queue));
    if (device != nullptr) all.add("device", 0, device->steering());
    all.print(out);
    if (const net::Counters* control = port.control_counters())
        control->for_each([&](std::string_view name, uint64_t value) {
            out.add(impl_->prefix + ".control", name, value);
        });
}

uint64_t NetService::lost_faults() const { return impl_->port->lost_faults(); }

}  // namespace viommu::app
