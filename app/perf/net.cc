// SPDX-License-Identifier: BSD-3-Clause
/// `dpdk-viommu-perf net`: packets between a guest in user space and its virtio-net device on
/// another core.
#include <fmt/format.h>

#include "net_guest.hh"
#include "options.hh"

namespace viommu::perf {
namespace {
}

Result<void> run_net(const Options& options, Results& results) {
    (void)results;
    if (auto ok = DeviceThread::start_eal(options.cpu(0), options.cpu(1)); !ok) return ok;
    auto pools = PacketPools::create();
    if (!pools) return tl::unexpected(pools.error());
    char name[] = "/tmp/dpdk-viommu-perf-XXXXXX";
    const std::string folder = mkdtemp(name);
    for (uint32_t bytes : {64u, 1500u, 9000u})
        for (Way way : {Way::kFromGuest, Way::kToGuest, Way::kBoth})
            for (bool packed : {false, true}) {
                const PacketCase c{bytes, way, packed};
                fmt::print("--- {} {} {}\n", bytes, to_string(way), packed ? "packed" : "split");
                for (int i = 0; i < 11; ++i) {
                    const Maps maps[] = {Maps::kNone, Maps::k1G, Maps::k4K, Maps::kDeferred, Maps::kDeferred, Maps::kStrict, Maps::kNone, Maps::k1G, Maps::k2M, Maps::k4K, Maps::kDeferred, Maps::kStrict};
                    const char* names[] = {"vhost", "vhost tlb 1G", "vhost tlb 4K", "vhost tlb deferred", "vhost tlb deferred flush", "vhost tlb strict", "ours bypass", "ours 1G", "ours 2M", "ours 4K", "ours deferred", "ours strict"};
                    auto s = i < 6 ? make_vhost(c, maps[i], i == 0 ? Iotlb::kNone : i == 4 ? Iotlb::kFlush : Iotlb::kEach, **pools, folder) : make_ours(c, maps[i], **pools, folder);
                    if (!s) { fmt::print("{}: {}\n", names[i], s.error().message); continue; }
                    if (auto ok = (*s)->verify(2000); !ok) { fmt::print("{}: verify {}\n", names[i], ok.error().message); continue; }
                    auto r = (*s)->rate(20e6);
                    if (!r) { fmt::print("{}: rate {}\n", names[i], r.error().message); continue; }
                    double t = 0;
                    if (!is_dynamic(maps[i])) {
                        auto d = (*s)->device_time(5e6);
                        if (!d) { fmt::print("{}: time {}\n", names[i], d.error().message); continue; }
                        t = *d;
                    }
                    fmt::print("{:28} {:8.3f} Mpps  device {:.1f} ns\n", names[i], *r, t);
                }
            }
    return {};
}

}  // namespace viommu::perf
