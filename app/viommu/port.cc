// SPDX-License-Identifier: BSD-3-Clause
#include "port.hh"

#include "guest.hh"
#include "viommu_net.hh"
#include "viommu_nic.hh"
#include "viommu_vhost.hh"

namespace viommu::app {
namespace {

net::Config net_config(const Net& net) {
    return {.endpoint = net.endpoint,
            .mac = net.mac,
            .mtu = net.mtu,
            .ring_addresses = net.ring_addresses};
}

/// A NetPort as an end of a patch.
class PortEnd final : public PacketEnd {
  public:
    explicit PortEnd(net::NetPort& port) : port_(port) {}
    unsigned receive(std::span<rte_mbuf*> out) noexcept override {
        return port_.from_guest(0, out);
    }
    unsigned send(std::span<rte_mbuf*> in) noexcept override { return port_.to_guest(0, in); }
    bool arm() noexcept override { return port_.arm(0); }
    void disarm() noexcept override { port_.disarm(0); }
    std::span<const int> wake_fds() const noexcept override { return port_.wake_fds(0); }
    std::chrono::microseconds sleep_limit() const noexcept override { return port_.sleep_limit(0); }

  private:
    net::NetPort& port_;
};

/// Behind a socket: taken from its lcore while the frontend changes it.
class PortHandler final : public nic::NetHandler {
  public:
    using NetHandler::NetHandler;
    void drive_with(Patch& patch, poll::Poller& poller) {
        patch_ = &patch;
        poller_ = &poller;
    }

  private:
    void pause() override { poller_->remove(*patch_); }
    void resume() override { poller_->add(*patch_); }

    Patch* patch_ = nullptr;
    poll::Poller* poller_ = nullptr;
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

void NetService::drive_with(Patch& patch, poll::Poller& poller) {
    impl_->handler.drive_with(patch, poller);
}

Result<void> NetService::listen() {
    if (auto made = make_directories(impl_->path); !made) return made;
    auto socket = vhost::Socket::listen(impl_->path, impl_->handler);
    if (!socket) return tl::unexpected(socket.error());
    impl_->socket = std::move(*socket);
    return {};
}

void NetService::close() { impl_->socket.reset(); }

const std::string& NetService::counter_prefix() const { return impl_->prefix; }

void NetService::add_counters(Counters& out) const {
    out.heading("net port " + impl_->prefix.substr(4));
    const auto add = [&](const char* direction, const net::Counters& counters) {
        counters.for_each([&](const char* name, uint64_t value) {
            out.add(impl_->prefix, fmt::format("{}.{}", direction, name), value);
        });
    };
    out.add(impl_->prefix, "translations", impl_->port->translations());
    add("from_guest", impl_->port->from_guest_counters(0));
    add("to_guest", impl_->port->to_guest_counters(0));
}

uint64_t NetService::lost_faults() const { return impl_->port->lost_faults(); }

}  // namespace viommu::app
