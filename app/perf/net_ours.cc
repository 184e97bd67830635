// SPDX-License-Identifier: BSD-3-Clause
/// The subjects of `net` that are ours: what the daemon is made of, put together as it does it,
/// with the traffic of `net` where the daemon has a patch.
#include "net_guest.hh"
#include "iommu_port.hh"
#include "viommu_nic.hh"
#include "viommu_poll.hh"

namespace viommu::perf {
namespace {

using guest::Dma;
using guest::IommuDriver;
using guest::OffsetDma;
using guest::PagedDma;

constexpr DomainId kDomain = 1;
constexpr EndpointId kEndpoint = 0x20;

/// Linux with iommu.strict=1: unmap() returns when the UNMAP has been answered. MAPs still go
/// together, one batch for what is published together.
class StrictDma final : public Dma {
  public:
    explicit StrictDma(Dma& dma) : dma_(dma) {}
    Result<guest::DmaBlock> allocate(uint64_t bytes) override { return dma_.allocate(bytes); }
    Result<void> release(const guest::DmaBlock& block) override { return dma_.release(block); }
    Result<guest::BusAddress> map(Gpa gpa, uint64_t bytes, Access access) override {
        return dma_.map(gpa, bytes, access);
    }
    Result<void> unmap(guest::BusAddress bus, uint64_t bytes) override {
        if (auto ok = dma_.unmap(bus, bytes); !ok) return ok;
        return dma_.sync();
    }
    Result<void> sync() override { return dma_.sync(); }

  private:
    Dma& dma_;
};

class OurBackend final : public Backend {
  public:
    explicit OurBackend(net::NetPort& port) : port_(port) {}
    unsigned from_guest(std::span<rte_mbuf*> out) noexcept override {
        return port_.from_guest(0, out);
    }
    unsigned to_guest(std::span<rte_mbuf*> in) noexcept override { return port_.to_guest(0, in); }

  private:
    net::NetPort& port_;
};

/// The traffic as what a Poller drives, beside the IommuPort: one lcore for both.
class PolledTraffic final : public poll::Pollable {
  public:
    explicit PolledTraffic(Traffic& traffic) : traffic_(traffic) {}
    unsigned poll() noexcept override { return traffic_.round(); }

  private:
    Traffic& traffic_;
};

class OurHandler final : public nic::NetHandler {
  public:
    OurHandler(net::NetPort& port, poll::Poller& poller, poll::Pollable& traffic)
        : NetHandler(port, false), poller_(poller), traffic_(traffic) {
        poller_.add(traffic_);
    }
    ~OurHandler() override { poller_.remove(traffic_); }

  private:
    void pause() override { poller_.remove(traffic_); }
    void resume() override { poller_.add(traffic_); }

    poll::Poller& poller_;
    poll::Pollable& traffic_;
};

class Ours final : public NetSubject {
  public:
    Ours(const PacketCase& c, Maps maps, std::unique_ptr<device::Device> device,
         std::unique_ptr<net::NetPort> port, PacketPools& pools)
        : NetSubject(c),
          maps_(maps),
          device_(std::move(device)),
          port_(std::move(port)),
          backend_(*port_),
          traffic_(backend_, c, pools),
          polled_(traffic_),
          iommu_port_(*device_, poller_),
          handler_(*port_, poller_, polled_) {}

    Result<void> listen(const std::string& folder) {
        for (const auto& [name, handler] :
             {std::pair<const char*, vhost::Handler*>{"iommu", &iommu_port_}, {"net", &handler_}}) {
            auto socket = vhost::Socket::listen(fmt::format("{}/{}.sock", folder, name), *handler);
            if (!socket) return tl::unexpected(socket.error());
            sockets_.push_back(std::move(*socket));
        }
        return {};
    }

    Result<void> connect() override {
        auto memory = guest::Memory::create(kNetMemoryBytes);
        if (!memory) return tl::unexpected(memory.error());
        memory_ = std::move(*memory);
        start_device();
        auto ok = start_guest();
        stop_device();
        return ok;
    }

  private:
    Result<void> start_guest() {
        guest::IommuOptions iommu;
        iommu.frontend.socket = sockets_[0]->path();
        iommu.request_queue_size = 1024;  // two descriptors for each request
        auto driver = IommuDriver::start(*memory_, iommu);
        if (!driver) return tl::unexpected(driver.error());
        iommu_ = std::move(*driver);
        const uint32_t flags = maps_ == Maps::kNone ? wire::VIRTIO_IOMMU_ATTACH_F_BYPASS : 0;
        if (const auto answer = iommu_->attach(kDomain, kEndpoint, flags); !answer.ok())
            return fail("ATTACH was answered {}", to_string(answer));
        if (auto ok = make_dma(); !ok) return ok;
        auto net = guest::NetDriver::connect(
            *memory_, net_options(packet_case(), maps_, true, sockets_[1]->path()));
        if (!net) return tl::unexpected(net.error());
        net_ = std::move(*net);
        return net_->start(*dma_);
    }

    Result<void> make_dma() {
        switch (maps_) {
            case Maps::kNone:
                dma_ = std::make_unique<OffsetDma>(*memory_);
                return {};
            case Maps::k1G:
            case Maps::k2M:
                dma_ = std::make_unique<OffsetDma>(*memory_, kNetOffset);
                return map_all(maps_ == Maps::k1G ? kNetMemoryBytes : uint64_t{2} << 20);
            default:
                break;
        }
        // Rings in one piece, as librte_vhost needs them.
        dma_ = std::make_unique<PagedDma>(*iommu_, kDomain, kNetWindow,
                                          guest::Placement::kContiguous);
        if (maps_ != Maps::kStrict) return {};
        inner_ = std::exchange(dma_, nullptr);
        dma_ = std::make_unique<StrictDma>(*inner_);
        return {};
    }

    Result<void> map_all(uint64_t each) {
        for (uint64_t at = 0; at < kNetMemoryBytes; at += each) {
            const auto range = *IovaRange::from_length(Iova{kNetOffset + at}, each);
            const auto answer = iommu_->map(kDomain, range, Gpa{at});
            if (!answer.ok()) return fail("MAP was answered {}", to_string(answer));
        }
        return {};
    }

    void start_device() override {
        DeviceThread::run([this] { poller_.run(); });
    }
    void stop_device() override {
        poller_.stop();
        DeviceThread::join();
    }
    guest::NetDriver& driver() override { return *net_; }
    Traffic& traffic() override { return traffic_; }

    const Maps maps_;
    std::unique_ptr<device::Device> device_;
    std::unique_ptr<net::NetPort> port_;
    OurBackend backend_;
    Traffic traffic_;
    PolledTraffic polled_;
    poll::Poller poller_{poll::Policy::kBusy};
    vhost::IommuPort iommu_port_;
    OurHandler handler_;
    std::vector<std::unique_ptr<vhost::Socket>> sockets_;
    std::unique_ptr<guest::Memory> memory_;
    std::unique_ptr<IommuDriver> iommu_;
    std::unique_ptr<Dma> inner_, dma_;
    std::unique_ptr<guest::NetDriver> net_;
};

}  // namespace

Result<std::unique_ptr<NetSubject>> make_ours(const PacketCase& c, Maps maps, PacketPools& pools,
                                              const std::string& folder) {
    device::Config config;
    config.endpoints = {kEndpoint};
    auto device = device::Device::create(config);
    if (!device) return tl::unexpected(device.error());
    net::Config net_config;
    net_config.endpoint = kEndpoint;
    net_config.offloads = false;
    auto port = net::NetPort::create(net_config, (*device)->table(), (*device)->faults(),
                                     pools.from_guest());
    if (!port) return tl::unexpected(port.error());
    auto ours = std::make_unique<Ours>(c, maps, std::move(*device), std::move(*port), pools);
    if (auto ok = ours->listen(folder); !ok) return tl::unexpected(ok.error());
    return ours;
}

}  // namespace viommu::perf
