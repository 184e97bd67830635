// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <array>
#include <memory>

#include "driver_queue.hh"
#include "frontend.hh"
#include "request.hh"

namespace viommu::guest {

/// How requests lie in descriptors. Cuts are offsets, ascending; those past the end of a part are
/// not for it.
struct RequestLayout {
    std::vector<uint32_t> cut_out;  ///< where the device-readable part is cut
    std::vector<uint32_t> cut_in;   ///< where the device-writable part is cut
    uint32_t piece_bytes = 0;       ///< no segment is longer; 0: as long as may be
    bool indirect = false;          ///< in an indirect table each; INDIRECT_DESC must be negotiated

    bool plain() const { return cut_out.empty() && cut_in.empty() && piece_bytes == 0; }
};

struct IommuOptions {
    FrontendOptions frontend;
    uint16_t request_queue_size = 256;
    uint16_t event_queue_size = 64;
    uint16_t event_buffers = 64;  ///< kept in the event queue; 0: faults have nowhere to go
    bool event_queue = true;      ///< false: a driver that sets up only the request queue
    RequestLayout layout{};
    /// Accepted if offered. What they say about rings is for both queues.
    uint64_t features = bit(wire::VIRTIO_F_VERSION_1) | bit(wire::VIRTIO_IOMMU_F_INPUT_RANGE) |
                        bit(wire::VIRTIO_IOMMU_F_DOMAIN_RANGE) |
                        bit(wire::VIRTIO_IOMMU_F_MAP_UNMAP) | bit(wire::VIRTIO_IOMMU_F_PROBE) |
                        bit(wire::VIRTIO_IOMMU_F_MMIO) | bit(wire::VIRTIO_IOMMU_F_BYPASS_CONFIG);
    uint64_t required = bit(wire::VIRTIO_F_VERSION_1);  ///< a device that lacks one is an error
};

/// Any bytes, cut into any segments.
struct RawRequest {
    std::vector<std::byte> out;
    std::vector<uint32_t> out_segments;  ///< lengths; they add up to out.size(); empty: one segment
    std::vector<uint32_t> in_segments;   ///< lengths; empty: no device-writable part
};
struct RawAnswer {
    uint32_t used_bytes = 0;
    std::vector<std::byte> in;  ///< all of the writable part; zero where the device did not write
};

/// A virtio-iommu driver. Synchronous, like Linux's: a batch of requests is put into the ring, the
/// device is signalled once if it wants that, and the used ring is watched until all are answered.
///
/// The IOMMU's own rings and buffers are GPAs: nothing translates for the translator.
///
/// Spec:    virtio 1.3, 5.13
/// Threads: one.
class IommuDriver {
  public:
    /// Connect, read the configuration, negotiate, activate, stock the event queue.
    /// `memory` must outlive the driver.
    static Result<std::unique_ptr<IommuDriver>> start(Memory& memory, const IommuOptions& options);
    ~IommuDriver();
    IommuDriver(const IommuDriver&) = delete;
    IommuDriver& operator=(const IommuDriver&) = delete;

    /// Device reset: the driver lets the device go.
    Result<void> stop();
    /// Device reset, then DRIVER_OK again with empty queues; what the device forgets is its affair.
    Result<void> reset();
    /// The connection is made anew, and the queues go on where they are: what a VMM does when the
    /// backend was restarted. `base`: the request queue's; unset: what the VMM would guess.
    Result<void> reconnect(std::optional<uint32_t> base = {});
    /// The VM is paused, and goes on; the driver does not notice.
    Result<void> pause() { return frontend_.pause(); }
    Result<void> resume();
    /// Queue reset (virtio 1.3, 2.6.1): the request queue stops, and begins anew in another ring of
    /// `size` entries. Returns what GET_VRING_BASE said. No request may be in flight.
    Result<uint32_t> reset_request_queue(uint16_t size);
    /// From the next request on; none may be in flight. Errors: no INDIRECT_DESC, no memory.
    Result<void> set_layout(const RequestLayout& layout);

    const wire::virtio_iommu_config& config() const { return config_; }
    uint64_t features() const { return acked_; }
    /// All that may be mapped: input_range where the device limits it.
    IovaRange input_range() const;
    uint64_t granule() const { return config_.page_size_mask & -uint64_t(config_.page_size_mask); }
    Result<void> set_bypass(bool bypass);

    Answer attach(DomainId domain, EndpointId endpoint, uint32_t flags = 0);
    Answer detach(DomainId domain, EndpointId endpoint);
    Answer map(DomainId domain, IovaRange range, Gpa gpa, Access access = Access::kReadWrite);
    Answer unmap(DomainId domain, IovaRange range);
    ProbeAnswer probe(EndpointId endpoint);
    Answer submit(const Request& request);
    /// As many at a time as the ring holds. Answers are in the order of the requests.
    /// Errors: in the answers; after one with `trouble` the driver is of no use but to reset().
    void submit(std::span<const Request> requests, std::span<Answer> answers);

    Result<RawAnswer> submit_raw(const RawRequest& request);
    /// Segments wherever they are: for descriptors that lie.
    Result<Completion> submit_segments(std::span<const Segment> readable,
                                       std::span<const Segment> writable);

    /// The next fault; nothing within `timeout` is an answer, not an error.
    Result<std::optional<FaultEvent>> poll_fault(Milliseconds timeout);

    Memory& memory() const { return memory_; }
    Frontend& frontend() { return frontend_; }
    DriverQueue& request_queue() { return *requests_; }
    DriverQueue& event_queue() { return *events_; }

    /// Per request type, as the requester saw them: those of one batch took the time of the batch.
    const RoundTrips& round_trips(uint8_t type) const { return round_trips_[type]; }

    /// What the device signals when it has answered; taken by drain_eventfd(). The driver itself
    /// polls, and asks for no signals.
    int request_call_fd() const { return request_call_.get(); }
    int event_call_fd() const { return event_call_.get(); }

  private:
    IommuDriver(Memory& memory, const IommuOptions& options);
    Result<void> read_config_and_negotiate();
    Result<void> make_queues();
    Result<void> activate(std::optional<uint32_t> base);
    QueueSetup request_setup(std::optional<uint32_t> base) const;
    std::vector<QueueSetup> queue_setups(std::optional<uint32_t> base) const;
    Result<void> make_request_queue(uint16_t size);
    void begin_request_queue();
    bool add_request(std::span<const Segment> readable, std::span<const Segment> writable,
                     uint64_t token);
    void stock_event(uint16_t slot);
    std::string no_room(size_t segments) const;
    Result<Completion> wait_for_request();
    bool submit_batch(std::span<const Request> requests, std::span<Answer> answers);

    Memory& memory_;
    IommuOptions options_;
    Frontend frontend_;
    OffsetDma dma_;
    wire::virtio_iommu_config config_{};
    uint64_t acked_ = 0;
    DmaBlock request_ring_, event_ring_, request_slots_, event_slots_, request_tables_;
    Fd request_kick_, request_call_, event_kick_, event_call_;
    uint32_t longest_table_ = 0;  // entries of each of request_tables_
    std::optional<DriverQueue> requests_, events_;
    std::vector<Segment> readable_, writable_;
    std::array<RoundTrips, 256> round_trips_;
};

}  // namespace viommu::guest
