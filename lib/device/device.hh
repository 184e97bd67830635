// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "viommu_base.hh"
#include "viommu_table.hh"
#include "viommu_wire.hh"
#include "viommu_xlate.hh"

namespace viommu::device {

/// A range of IOVAs that the guest must not map (virtio 1.3, 5.13.6.8.1 RESV_MEM).
struct ReservedRegion {
    enum class Type : uint8_t { kReserved = 0, kMsi = 1 };
    IovaRange range;
    Type type = Type::kReserved;
};

/// One virtio-iommu, as configured by the operator.
struct Config {
    uint64_t page_size_mask = ~uint64_t{0xfff};  ///< the lowest bit is the granule
    IovaRange input_range{{0}, {(uint64_t{1} << 48) - 1}};
    uint32_t domain_first = 0;
    uint32_t domain_last = 0xffff;
    bool bypass = true;                          ///< initial value of the config field
    std::vector<EndpointId> endpoints;
    std::vector<ReservedRegion> reserved;        ///< the same for every endpoint
    uint32_t max_domains = 1024;
    uint64_t max_mappings = 1u << 20;
    uint64_t arena_bytes = uint64_t{64} << 20;
    unsigned max_readers = 64;
    uint32_t faults_per_second = 1000;           ///< reported per endpoint; more are counted as dropped
};

/// See viommu_device.hh.
/// Threads: the writer, except where said otherwise.
class Device {
  public:
    /// Errors: a configuration that cannot be served; names the key, the value and the limit.
    static Result<std::unique_ptr<Device>> create(const Config& config);
    ~Device();

    /// Device feature bits offered. Threads: any.
    uint64_t features() const noexcept;
    void set_acked_features(uint64_t features) noexcept;

    /// Configuration space; bytes past its end read as zero, writes but to `bypass` are ignored.
    void read_config(uint32_t offset, std::span<std::byte> out) const noexcept;
    void write_config(uint32_t offset, std::span<const std::byte> in) noexcept;

    /// What became of a request.
    struct Outcome {
        uint32_t written = 0;        ///< bytes of the writable part to return (used length); 0: none
        bool needs_grace = false;    ///< answer only after a grace period started from now is over
    };
    /// Execute one request.
    ///
    /// `request`: a private copy of the device-readable bytes. `reply`: filled from its start; it
    /// stands for the device-writable part of the chain, of which the last 4 bytes are the tail.
    /// Spec:    5.13.6; an unreadable request has Outcome::written 0
    Outcome handle(std::span<const std::byte> request, std::span<std::byte> reply) noexcept;

    /// The largest writable part that has a meaning: PROBE's properties and the tail.
    std::size_t max_reply_bytes() const noexcept;

    /// Device reset (virtio 1.3, 5.13.5): every endpoint is detached. The caller need not wait.
    void reset() noexcept;

    /// The next fault to report, rate limit applied; false when there is none.
    bool next_fault(wire::virtio_iommu_fault& out) noexcept;
    /// A fault could not be reported because the guest gave no (large enough) buffer.
    void count_dropped_fault() noexcept { stats_.faults_dropped_no_buffer.add(); }
    void count_reported_fault() noexcept { stats_.faults_reported.add(); }

    table::Table& table() noexcept { return *table_; }
    xlate::FaultQueue& faults() noexcept { return faults_; }
    const Config& config() const noexcept { return config_; }

    struct Stats {
        Counter attach, detach, map, unmap, probe;  ///< requests by type, whatever the status
        Counter unreadable;                         ///< returned with used length 0
        std::array<Counter, 9> status;              ///< answers by Status
        Counter faults_reported;
        Counter faults_dropped_no_buffer;
        Counter faults_dropped_rate;
        Counter resets;
    };
    /// Threads: any.
    const Stats& stats() const noexcept { return stats_; }

  private:
    Device(const Config& config, std::unique_ptr<table::Table> table);

    Status attach(const wire::AttachRequest& r);
    Status detach(const wire::DetachRequest& r);
    Status map(const wire::MapRequest& r);
    Status unmap(const wire::UnmapRequest& r);
    Status probe(const wire::ProbeRequest& r, std::span<std::byte> properties);

    struct Bucket {
        double tokens;
        std::chrono::steady_clock::time_point refilled;
    };

    Config config_;
    std::unique_ptr<table::Table> table_;
    xlate::FaultQueue faults_;
    uint64_t acked_ = 0;
    std::vector<std::byte> properties_;  // what PROBE answers, probe_size bytes
    std::unordered_map<EndpointId, Bucket> buckets_;
    Stats stats_;
};

}  // namespace viommu::device
