// SPDX-License-Identifier: BSD-3-Clause
/// What `net` has measured as tables, charts and targets.
#pragma once

#include "net_guest.hh"
#include "options.hh"

namespace viommu::perf {

/// One competitor: a device and how the guest's buffers are mapped.
struct NetEntrant {
    const char* name;
    bool ours;
    Maps maps;
    Iotlb iotlb = Iotlb::kNone;

    bool is_dynamic() const { return perf::is_dynamic(maps); }
};

inline constexpr const char* kVhost = "librte_vhost";
inline constexpr const char* kTlb1G = "librte_vhost, IOTLB, 1G";
inline constexpr const char* kTlb4K = "librte_vhost, IOTLB, 4K";
inline constexpr const char* kTlbDeferred = "librte_vhost, IOTLB, deferred";
inline constexpr const char* kTlbFlush = "librte_vhost, IOTLB, one flush";
inline constexpr const char* kTlbStrict = "librte_vhost, IOTLB, strict";
inline constexpr const char* kOursBypass = "ours, no translation";
inline constexpr const char* kOurs1G = "ours, 1G";
inline constexpr const char* kOurs2M = "ours, 2M";
inline constexpr const char* kOurs4K = "ours, 4K";
inline constexpr const char* kOursDeferred = "ours, deferred";
inline constexpr const char* kOursStrict = "ours, strict";

inline constexpr NetEntrant kNetEntrants[] = {
    {kVhost, false, Maps::kNone},
    {kTlb1G, false, Maps::k1G, Iotlb::kEach},
    {kTlb4K, false, Maps::k4K, Iotlb::kEach},
    {kOursBypass, true, Maps::kNone},
    {kOurs1G, true, Maps::k1G},
    {kOurs2M, true, Maps::k2M},
    {kOurs4K, true, Maps::k4K},
    {kTlbDeferred, false, Maps::kDeferred, Iotlb::kEach},
    {kTlbFlush, false, Maps::kDeferred, Iotlb::kFlush},
    {kTlbStrict, false, Maps::kStrict, Iotlb::kEach},
    {kOursDeferred, true, Maps::kDeferred},
    {kOursStrict, true, Maps::kStrict},
};

/// Of one case, in million packets per second. Who could not take part is missing.
struct NetMeasured {
    PacketCase c;
    std::vector<Measured> both_ends;  ///< all
    std::vector<Measured> device;     ///< what its core can do; of static mappings
};

/// `notes`: for every table.
void report_net(const std::vector<NetMeasured>& all, const std::vector<std::string>& notes,
                Results& results);

}  // namespace viommu::perf
