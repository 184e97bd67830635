// SPDX-License-Identifier: BSD-3-Clause
/// The subjects of `net` that are librte_vhost's, in this process: what testpmd's net_vhost calls.
///
/// Besides lib/vhost this is the only place that includes rte_vhost.h: as the rival's, not as ours.
#include <rte_mbuf.h>
#include <sys/stat.h>

#include <mutex>
#include <thread>

#include "net_vmm.hh"
#include "librte_vhost.hh"

namespace viommu::perf {
namespace {

/// rte_vhost has no place for a pointer of ours: connections are found by their socket's path.
class Connections {
  public:
    static void put(int vid, bool there) {
        char path[PATH_MAX] = {};
        if (rte_vhost_get_ifname(vid, path, sizeof path) != 0) return;
        const std::lock_guard lock(mutex_);
        if (there)
            vids_[path] = vid;
        else
            vids_.erase(path);
    }
    static std::optional<int> find(const std::string& path) {
        const std::lock_guard lock(mutex_);
        const auto found = vids_.find(path);
        return found == vids_.end() ? std::nullopt : std::optional(found->second);
    }

  private:
    static inline std::mutex mutex_;
    static inline std::map<std::string, int> vids_;
};

constexpr uint16_t kReceiveq = 0, kTransmitq = 1;

/// The device is ready: as net_vhost, it polls and wants no kicks.
int new_device(int vid) {
    for (const uint16_t queue : {kReceiveq, kTransmitq})
        rte_vhost_enable_guest_notification(vid, queue, 0);
    Connections::put(vid, true);
    return 0;
}

void destroy_device(int vid) { Connections::put(vid, false); }

const rte_vhost_device_ops* device_ops() {
    static const rte_vhost_device_ops ops = [] {
        rte_vhost_device_ops o{};
        o.new_device = new_device;
        o.destroy_device = destroy_device;
        return o;
    }();
    return &ops;
}

class VhostBackend final : public Backend {
  public:
    explicit VhostBackend(rte_mempool& pool) : pool_(pool) {}
    void set_vid(int vid) { vid_ = vid; }

    unsigned from_guest(std::span<rte_mbuf*> out) noexcept override {
        return rte_vhost_dequeue_burst(vid_, kTransmitq, &pool_, out.data(), uint16_t(out.size()));
    }
    unsigned to_guest(std::span<rte_mbuf*> in) noexcept override {
        const unsigned n =
            rte_vhost_enqueue_burst(vid_, kReceiveq, in.data(), uint16_t(in.size()));
        rte_pktmbuf_free_bulk(in.data(), n);
        return n;
    }

  private:
    rte_mempool& pool_;
    int vid_ = -1;
};

class Vhost final : public NetSubject {
  public:
    Vhost(const PacketCase& c, Maps maps, Iotlb iotlb, PacketPools& pools, std::string path)
        : NetSubject(c),
          maps_(maps),
          iotlb_(iotlb),
          path_(std::move(path)),
          backend_(pools.from_guest()),
          traffic_(backend_, c, pools) {}
    ~Vhost() override {
        net_.reset();
        // Or unregistering would meet the event thread on its way out.
        for (int i = 0; i < 1000 && Connections::find(path_); ++i)
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
        if (registered_) rte_vhost_driver_unregister(path_.c_str());
    }

    Result<void> listen() {
        const uint64_t flags = is_translated() ? RTE_VHOST_USER_IOMMU_SUPPORT : 0;
        if (rte_vhost_driver_register(path_.c_str(), flags) != 0)
            return fail("{}: librte_vhost does not take the socket", path_);
        registered_ = true;
        if (rte_vhost_driver_callback_register(path_.c_str(), device_ops()) != 0 ||
            rte_vhost_driver_start(path_.c_str()) != 0)
            return fail("{}: librte_vhost does not listen", path_);
        return {};
    }

    Result<void> connect() override {
        auto memory = guest::Memory::create(kNetMemoryBytes);
        if (!memory) return tl::unexpected(memory.error());
        memory_ = std::move(*memory);
        auto net = guest::NetDriver::connect(
            *memory_, net_options(packet_case(), maps_, is_translated(), path_));
        if (!net) return tl::unexpected(net.error());
        net_ = std::move(*net);
        if (auto ok = is_translated() ? start_translated() : start_plain(); !ok) return ok;
        return wait_for_device();
    }

  private:
    bool is_translated() const { return iotlb_ != Iotlb::kNone; }

    Result<void> start_plain() {
        dma_ = std::make_unique<guest::OffsetDma>(*memory_);
        return net_->start(*dma_);
    }

    Result<void> start_translated() {
        if (auto ok = vmm_.open_channel(net_->frontend(), *memory_); !ok) return ok;
        if (maps_ == Maps::k1G) {
            dma_ = std::make_unique<guest::OffsetDma>(*memory_, kNetOffset);
            vmm_.map(kNetOffset, kNetMemoryBytes, Gpa{0});
        } else {
            dma_ = std::make_unique<IotlbDma>(*memory_, vmm_, maps_ == Maps::kStrict, iotlb_);
        }
        if (auto ok = net_->start(*dma_); !ok) return ok;
        if (auto ok = vmm_.take_over(); !ok) return ok;
        // Misses that the start of the rings has caused, one part of a ring after the other.
        for (auto* queue : {&net_->rx_queue(), &net_->tx_queue()})
            if (auto ok = vmm_.push(maps_ == Maps::k1G ? kNetOffset : queue->desc().value); !ok)
                return ok;
        if (auto done = vmm_.attend(); !done) return tl::unexpected(done.error());
        return {};
    }

    Result<void> wait_for_device() {
        guest::Patience patience(guest::Milliseconds(3000));
        for (;;) {
            if (const auto vid = Connections::find(path_)) {
                backend_.set_vid(*vid);
                return {};
            }
            if (is_translated())
                if (auto done = vmm_.attend(); !done) return tl::unexpected(done.error());
            if (!patience.wait()) return fail("{}: librte_vhost has no ready device", path_);
        }
    }

    Result<bool> attend() override {
        return is_translated() ? vmm_.attend() : Result<bool>(false);
    }
    void start_device() override {
        stop_.store(false, std::memory_order_relaxed);
        DeviceThread::run([this] {
            while (!stop_.load(std::memory_order_acquire)) traffic_.round();
        });
    }
    void stop_device() override {
        stop_.store(true, std::memory_order_release);
        DeviceThread::join();
    }
    guest::NetDriver& driver() override { return *net_; }
    Traffic& traffic() override { return traffic_; }

    const Maps maps_;
    const Iotlb iotlb_;
    const std::string path_;
    VhostBackend backend_;
    Traffic traffic_;
    std::atomic<bool> stop_{false};
    bool registered_ = false;
    std::unique_ptr<guest::Memory> memory_;
    IotlbVmm vmm_;
    std::unique_ptr<guest::Dma> dma_;
    std::unique_ptr<guest::NetDriver> net_;
};

}  // namespace

Result<std::unique_ptr<NetSubject>> make_vhost(const PacketCase& c, Maps maps, Iotlb iotlb,
                                               PacketPools& pools, const std::string& folder) {
    auto vhost = std::make_unique<Vhost>(c, maps, iotlb, pools, folder + "/net.sock");
    if (auto ok = vhost->listen(); !ok) return tl::unexpected(ok.error());
    return vhost;
}

}  // namespace viommu::perf
