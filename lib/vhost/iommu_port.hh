// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <vector>

#include "handler.hh"
#include "viommu_device.hh"
#include "viommu_poll.hh"

namespace viommu::vhost {

/// A virtio-iommu on its vhost-user socket: carries bytes between the request queue and a Device,
/// and faults to the event queue.
///
/// Requests are taken in passes: all that are found in the ring, at most a burst. When one of them
/// took something from readers, the answers of the whole pass wait for one grace period; meanwhile
/// poll() returns at once, and the lcore serves its other guests. Everything taken is answered
/// before the queue stops, so the used ring always says where to go on.
///
/// Reset or resume: a frontend does not say whether it stops the queue because the guest reset the
/// device or because the VM pauses. So the decision falls when the queue starts again: if the ring
/// is where it was, and its used ring still ends with the element we wrote last, this is a resume
/// and nothing has changed; otherwise the driver began anew, and the device is reset first
/// (virtio 1.3, 5.13.5). With VIRTIO_F_RING_RESET a driver may reset the request queue alone: when
/// the event queue has been running all the while, nothing has changed either.
///
/// Threads: Handler calls from librte_vhost's event thread; Pollable calls from the Poller's; each
/// Handler call that matters takes the port out of the Poller first.
class IommuPort final : public Handler, public poll::Pollable {
  public:
    /// `dirty_log`: offer VHOST_F_LOG_ALL, without which a VMM does not migrate the guest.
    IommuPort(device::Device& device, poll::Poller& poller, bool dirty_log = false);
    ~IommuPort() override;

    // Handler
    uint64_t features() const override;
    uint16_t num_queues() const override { return kQueues; }
    void connected() override;
    void features_acked(uint64_t features) override;
    void config_read(uint32_t offset, std::span<std::byte> out) override;
    void config_write(uint32_t offset, std::span<const std::byte> in) override;
    void memory_changed(std::shared_ptr<const virtq::MemoryMap> memory) override;
    void disconnected() override;
    void log_changed(std::shared_ptr<const virtq::DirtyLog> log) override;
    void queue_started(const virtq::Vring& vring) override;
    uint32_t queue_stopped(uint16_t index, Stop why) override;

    // Pollable
    unsigned poll() noexcept override;
    bool arm() noexcept override;
    void disarm() noexcept override;
    std::span<const int> wake_fds() const noexcept override { return wake_fds_; }
    std::chrono::microseconds sleep_limit() const noexcept override;

    struct Stats {
        Counter passes;           ///< passes with at least one request
        Counter grace_periods;    ///< passes that waited for readers
        Counter malformed;        ///< request chains returned with used length 0 unread
        Counter unreachable;      ///< request chains whose buffers are not guest memory
        Counter unusable_queues;  ///< queues whose addresses are not acceptable
    };
    /// Threads: any.
    const Stats& stats() const noexcept { return stats_; }

  private:
    using Queue = virtq::Queue<virtq::GpaSpace>;
    static constexpr uint16_t kQueues = 2;
    static constexpr unsigned kBurst = 256;

    /// A request that was taken and not answered yet.
    struct Answer {
        virtq::Taken chain;
        uint32_t written;
    };
    enum class Step { kDone, kRetry };

    void pause();
    void resume();
    void wait_for_readers() noexcept;
    void settle() noexcept;
    template <class Change>
    void while_paused(Change change);

    unsigned take_requests() noexcept;
    Step execute() noexcept;
    void finish_pass() noexcept;
    void publish_answers() noexcept;
    unsigned report_faults() noexcept;

    device::Device& device_;
    poll::Poller& poller_;
    const bool dirty_log_;
    std::shared_ptr<const virtq::MemoryMap> memory_;
    std::shared_ptr<const virtq::DirtyLog> log_;
    virtq::GpaSpace space_;
    uint64_t acked_ = 0;

    std::array<Queue, kQueues> queues_;
    std::array<std::optional<virtq::Vring>, kQueues> vrings_;  // of running queues
    std::array<uint32_t, kQueues> bases_{};                    // where they were started
    std::optional<virtq::RingEnd> end_;              // of the request queue
    bool only_requests_stopped_ = false;  // and the event queue has been running since
    std::vector<int> wake_fds_;
    bool polled_ = false;

    // The pass under way.
    virtq::Chain chain_;
    std::vector<Answer> answers_;
    std::vector<std::byte> reply_;
    std::optional<table::Readers::Token> token_;
    bool retry_ = false;  // chain_ holds a request to be executed again after the grace period
    Stats stats_;
};

}  // namespace viommu::vhost
