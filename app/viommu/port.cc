// SPDX-License-Identifier: BSD-3-Clause
#include "port.hh"

#include "guest.hh"
#include "viommu_net.hh"
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
    unsigned receive(std::span<rte_mbuf*> out) noexcept override { return port_.from_guest(out); }
    unsigned send(std::span<rte_mbuf*> in) noexcept override { return port_.to_guest(in); }
    bool arm() noexcept override { return port_.arm(); }
    void disarm() noexcept override { port_.disarm(); }
    std::span<const int> wake_fds() const noexcept override { return port_.wake_fds(); }
    std::chrono::microseconds sleep_limit() const noexcept override { return port_.sleep_limit(); }

  private:
    net::NetPort& port_;
};

/// A NetPort as what is behind a socket. It is taken from its lcore while the frontend changes it.
class PortHandler final : public vhost::Handler {
  public:
    PortHandler(net::NetPort& port, bool dirty_log) : port_(port), dirty_log_(dirty_log) {}
    void drive_with(Patch& patch, poll::Poller& poller) {
        patch_ = &patch;
        poller_ = &poller;
    }

    uint64_t features() const override {
        return port_.features() | uint64_t{dirty_log_} << wire::VHOST_F_LOG_ALL;
    }
    uint16_t num_queues() const override { return net::NetPort::num_queues(); }
    void features_acked(uint64_t features) override {
        const Pause pause(*this);
        port_.features_acked(features);
    }
    void config_read(uint32_t offset, std::span<std::byte> out) override {
        port_.config_read(offset, out);
    }
    void config_write(uint32_t, std::span<const std::byte>) override {}
    void memory_changed(std::shared_ptr<const virtq::MemoryMap> memory) override {
        const Pause pause(*this);
        port_.memory_changed(std::move(memory));
    }
    void disconnected() override {
        const Pause pause(*this);
        port_.memory_changed(nullptr);  // or the guest's memory would stay allocated
    }
    void log_changed(std::shared_ptr<const virtq::DirtyLog> log) override {
        const Pause pause(*this);
        port_.log_changed(std::move(log));
    }
    void queue_started(const virtq::Vring& vring) override {
        const Pause pause(*this);
        port_.queue_started(vring);
    }
    uint32_t queue_stopped(uint16_t index, Stop) override {
        const Pause pause(*this);
        return port_.queue_stopped(index);
    }

  private:
    class Pause {
      public:
        explicit Pause(const PortHandler& handler) : handler_(handler) {
            handler_.poller_->remove(*handler_.patch_);
        }
        ~Pause() { handler_.poller_->add(*handler_.patch_); }
        Pause(const Pause&) = delete;
        Pause& operator=(const Pause&) = delete;

      private:
        const PortHandler& handler_;
    };

    net::NetPort& port_;
    const bool dirty_log_;
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
    add("from_guest", impl_->port->from_guest_counters());
    add("to_guest", impl_->port->to_guest_counters());
}

uint64_t NetService::lost_faults() const { return impl_->port->lost_faults(); }

}  // namespace viommu::app
