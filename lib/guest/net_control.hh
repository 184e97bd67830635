// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "driver_queue.hh"
#include "frontend.hh"

namespace viommu::guest {

/// How a command lies in descriptors: lengths of the device-readable segments, which may be cut
/// anywhere. What is left over is the last segment.
struct CommandLayout {
    std::vector<uint32_t> segments{};
};

/// The driver's end of a controlq: one command at a time, waited for.
///
/// Spec:    virtio 1.3, 5.1.6.5
/// Errors:  of the ring; no answer in time
/// Threads: one.
class NetControl {
  public:
    static Result<std::unique_ptr<NetControl>> create(Dma& dma, uint16_t index, RingFormat format,
                                                      Milliseconds timeout);
    NetControl(const NetControl&) = delete;
    NetControl& operator=(const NetControl&) = delete;
    Result<void> release();

    /// What the device acknowledged with: 0 is VIRTIO_NET_OK, 1 VIRTIO_NET_ERR.
    Result<uint8_t> command(uint8_t class_, uint8_t command, std::span<const std::byte> data,
                            const CommandLayout& layout = {});

    uint16_t index() const { return index_; }
    DriverQueue& queue() { return *queue_; }
    void signal() const;
    QueueSetup setup() const;
    /// As NetQueue's; no command may be in flight.
    QueueSetup setup_again();

  private:
    static constexpr uint16_t kSize = 64;

    NetControl(Dma& dma, uint16_t index, RingFormat format, Milliseconds timeout)
        : dma_(dma), index_(index), format_(format), timeout_(timeout) {}

    Dma& dma_;
    const uint16_t index_;
    const RingFormat format_;
    const Milliseconds timeout_;
    Fd kick_, call_;
    DmaBlock ring_, memory_;  ///< the command's bytes, and the acknowledgement at their end
    std::optional<DriverQueue> queue_;
};

}  // namespace viommu::guest
