// SPDX-License-Identifier: BSD-3-Clause
/// The guest's end of `net`: lib/guest's driver and memory, the same for every device, and one run
/// of packets between it and a device on another core.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "net_traffic.hh"
#include "viommu_guest.hh"

namespace viommu::perf {

/// How a guest's buffers are mapped.
enum class Maps : uint8_t {
    kNone,      ///< no IOMMU, or an endpoint that bypasses it
    k1G,        ///< all of memory, one mapping
    k2M,        ///< all of memory, 2M each
    k4K,        ///< each buffer once
    kDeferred,  ///< each buffer for one packet, UNMAPs 256 at a time
    kStrict,    ///< each buffer for one packet, and each UNMAP is waited for alone
};
constexpr bool is_dynamic(Maps maps) { return maps >= Maps::kDeferred; }

/// The thread of devices: EAL's worker lcore, on a CPU of its own. It sleeps when nothing runs.
class DeviceThread {
  public:
    /// Starts EAL; the caller's thread becomes its main lcore, on `guest_cpu`. Once per process.
    /// librte_vhost's event thread shares that CPU, since EAL keeps control threads off the others.
    static Result<void> start_eal(unsigned guest_cpu, unsigned device_cpu);
    static void run(std::function<void()> work);
    static void join();
};

/// A guest, the device that it drives, and the traffic between them.
class NetSubject {
  public:
    explicit NetSubject(const PacketCase& c) : case_(c) {}
    virtual ~NetSubject() = default;
    NetSubject(const NetSubject&) = delete;
    NetSubject& operator=(const NetSubject&) = delete;

    /// The guest's VMM connects to the device's socket, which is there since this was made, and
    /// the guest starts. The first time after a socket was made this takes up to a second, until
    /// librte_vhost's event thread looks at it; so make all that are needed before.
    virtual Result<void> connect() = 0;

    /// Packets per second as fast as both ends can, in millions; both ways: the sum. Before and
    /// after, not timed, everything is brought into motion, and drained and counted.
    Result<double> rate(double window_ns);
    /// ns of the device's thread per packet, rings always full: guest and device take turns, and
    /// the device's are timed; the median turn, so that one in which its CPU was taken from it
    /// does not count.
    Result<double> device_time(double window_ns);
    /// Some packets whose every byte is compared. Errors: as the others', whatever is wrong.
    Result<void> verify(uint64_t packets);
    /// How long something may take that must happen. Long: others may have the CPUs.
    void set_patience(double ns) { patience_ns_ = ns; }

  protected:
    /// The device's thread polls from now on, and no longer.
    virtual void start_device() = 0;
    virtual void stop_device() = 0;
    virtual guest::NetDriver& driver() = 0;
    virtual Traffic& traffic() = 0;
    /// What the VMM does beside a guest that finds nothing to do. True: it did something.
    virtual Result<bool> attend() { return false; }

    /// NetDriver's options that all subjects have in common.
    static guest::NetOptions net_options(const PacketCase& c, Maps maps, bool translated,
                                         const std::string& socket);

    const PacketCase& packet_case() const { return case_; }

  private:
    Result<bool> send();
    Result<bool> receive();
    Result<void> step();
    Result<void> turn();
    Result<void> drain();
    Result<void> look() const;
    /// Device and traffic run in `mode` while `work` does, and are drained after it.
    Result<void> run(Traffic::Mode mode, const std::function<Result<void>()>& work);

    const PacketCase case_;
    double patience_ns_ = 60e9;
    bool thorough_ = false;
    uint64_t sent_ = 0, received_ = 0, wrong_ = 0;
};

/// Guest memory of all subjects: enough for a mapping of 1G.
inline constexpr uint64_t kNetMemoryBytes = uint64_t{1} << 30;
/// Where mappings of all memory begin.
inline constexpr uint64_t kNetOffset = uint64_t{1} << 40;
/// Where other IOVAs are taken from: below 4 GiB, as Linux prefers.
inline constexpr IovaRange kNetWindow{Iova{0x8000'0000}, Iova{0x8fff'ffff}};

/// Our port and our virtio-iommu, served by one thread as the daemon does by default, each behind
/// its vhost-user socket in `folder`. Maps happen by requests through the ring.
Result<std::unique_ptr<NetSubject>> make_ours(const PacketCase& c, Maps maps, PacketPools& pools,
                                              const std::string& folder);

/// How a VMM keeps librte_vhost's IOTLB.
enum class Iotlb : uint8_t {
    kNone,   ///< the guest has no IOMMU
    kEach,   ///< QEMU's way: an invalidation for each UNMAP, and its answer waited for
    kFlush,  ///< one for all UNMAPs that come together
};
/// librte_vhost of the DPDK that we are linked with, in this process.
Result<std::unique_ptr<NetSubject>> make_vhost(const PacketCase& c, Maps maps, Iotlb iotlb,
                                               PacketPools& pools, const std::string& folder);

}  // namespace viommu::perf
