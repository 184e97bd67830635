// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <map>
#include <memory>
#include <optional>
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
    /// Offer F_BYPASS, and not BYPASS_CONFIG: for drivers of the drafts before virtio 1.2. Then
    /// `bypass` means nothing; unattached endpoints bypass when the driver has accepted the bit.
    bool legacy_bypass = false;
    std::vector<EndpointId> endpoints;
    std::vector<ReservedRegion> reserved;        ///< of every endpoint
    std::map<EndpointId, std::vector<ReservedRegion>> endpoint_reserved;  ///< of one, besides
    uint32_t max_domains = 1024;
    uint64_t max_mappings = 1u << 20;
    uint64_t arena_bytes = uint64_t{64} << 20;
    unsigned max_readers = 1024;
    table::Hugepages hugepages = table::Hugepages::kAuto;  ///< of the arena
    uint32_t faults_per_second = 1000;  ///< reported per endpoint; more are counted as dropped
};

/// See viommu_device.hh.
///
/// What a feature bit makes available, but for F_BYPASS, is available whether or not the driver
/// accepted the bit: the spec asks for no rejection, and Cloud Hypervisor's acked features never
/// lose a bit over a reset.
///
/// Threads: the writer, except where said otherwise.
class Device {
  public:
    /// Errors: a configuration that cannot be served; names the key, the value and the limit.
    static Result<std::unique_ptr<Device>> create(const Config& config);
    ~Device();

    /// Device feature bits offered. Threads: any.
    uint64_t features() const noexcept;

    /// What the driver accepted, the last time it did. May take something from readers, see
    /// handle().
    void features_acked(uint64_t features) noexcept;

    /// Configuration space; bytes past its end read as zero, writes but to `bypass` are ignored.
    /// Threads: reading, any but during a write; writing, the writer. A write of `bypass` takes
    /// something from readers, see handle().
    void read_config(uint32_t offset, std::span<std::byte> out) const noexcept;
    void write_config(uint32_t offset, std::span<const std::byte> in) noexcept;
    /// False: such a write is ignored, or writes what is there; the writer need not be stopped for
    /// write_config().
    /// Threads: as reading.
    bool would_change(uint32_t offset, std::span<const std::byte> in) const noexcept;

    /// What became of a request.
    struct Outcome {
        /// Bytes of `reply` to write to the guest, from its start; 0: nothing could be understood,
        /// the buffer goes back with used length 0.
        uint32_t written = 0;
        /// The arena was exhausted, but nodes are waiting for readers: nothing was done; wait for a
        /// grace period and execute the same request again.
        bool retry_after_grace = false;
    };
    /// Execute one request.
    ///
    /// Answers must not reach the guest while table().dirty(): start a grace period (one for any
    /// number of requests) and wait until it is over.
    ///
    /// `request`: a private copy of the device-readable bytes, the first kMaxRequestBytes at least.
    /// `reply`:   stands for the device-writable bytes, the first max_reply_bytes() at least. The
    ///            tail follows what the request's type says is writable; for all but PROBE it is
    ///            at the start.
    /// Spec:      5.13.6 Device operations
    Outcome handle(std::span<const std::byte> request, std::span<std::byte> reply) noexcept;

    /// The largest writable part that has a meaning: PROBE's properties and the tail.
    std::size_t max_reply_bytes() const noexcept {
        return probe_size_ + sizeof(wire::virtio_iommu_req_tail);
    }

    /// Device reset (virtio 1.3, 5.13.5): every endpoint is detached; `bypass` stays. Readers may
    /// use what they have translated until a grace period, started by the caller, is over.
    void reset() noexcept;

    /// A VMM has connected. Perhaps it is a new one: `bypass` gets its initial value, as after a
    /// system reset (5.13.4), of which vhost-user says nothing else. resumed() undoes that: the VM
    /// that was there before goes on. Either may take something from readers, see handle().
    void connected() noexcept;
    void resumed() noexcept;

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
        Counter attach_bypass;                      ///< attaches with F_BYPASS, answered OK
        Counter map_mmio;                           ///< maps with F_MMIO, answered OK
        Counter unreadable;                         ///< returned with used length 0
        std::array<Counter, 9> status;              ///< answers by Status
        std::array<Counter, table::kQuotas> exhausted;           ///< those of kNoMem, by table::Quota
        Counter faults_reported;
        Counter faults_dropped_no_buffer;
        Counter faults_dropped_rate;
        Counter resets;
    };
    /// Threads: any.
    const Stats& stats() const noexcept { return stats_; }

  private:
    using Properties = std::vector<std::byte>;

    Device(const Config& config, std::unique_ptr<table::Table> table);

    bool offers(unsigned feature) const noexcept { return (features() >> feature & 1) != 0; }
    Outcome answer(Status status, std::span<std::byte> reply, std::size_t tail_offset) noexcept;
    Outcome probe(const wire::ProbeRequest& r, std::span<std::byte> reply) noexcept;
    Status execute(const wire::AttachRequest& r) noexcept;
    Status execute(const wire::DetachRequest& r) noexcept;
    Status execute(const wire::MapRequest& r) noexcept;
    Status execute(const wire::UnmapRequest& r) noexcept;
    bool within_rate(EndpointId endpoint) noexcept;

    struct Bucket {
        double tokens;
        std::chrono::steady_clock::time_point refilled;
    };

    Config config_;
    std::unique_ptr<table::Table> table_;
    xlate::FaultQueue faults_;
    std::size_t probe_size_;
    Properties properties_;  // what PROBE answers, probe_size_ bytes
    /// And for the endpoints that differ.
    std::unordered_map<EndpointId, Properties> own_properties_;
    std::optional<bool> bypass_before_;  // the connection; see connected()
    std::unordered_map<EndpointId, Bucket> buckets_;
    Stats stats_;
};

}  // namespace viommu::device
