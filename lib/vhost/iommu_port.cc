// SPDX-License-Identifier: BSD-3-Clause
#include "iommu_port.hh"

#include <sched.h>

#include <algorithm>

namespace viommu::vhost {

using wire::VIRTIO_IOMMU_VQ_EVENT;
using wire::VIRTIO_IOMMU_VQ_REQUEST;

namespace {

/// Faults reach the guest within this while the lcore sleeps: readers do not wake it, for that
/// would be a system call on the packet path.
constexpr std::chrono::milliseconds kFaultLatency{20};

}  // namespace

IommuPort::IommuPort(device::Device& device, poll::Poller& poller, bool dirty_log)
    : device_(device), poller_(poller), dirty_log_(dirty_log), reply_(device.max_reply_bytes()) {
    answers_.reserve(kBurst);
}

IommuPort::~IommuPort() { pause(); }

uint64_t IommuPort::features() const {
    return device_.features() | virtq::kRingFeatures |
           uint64_t{dirty_log_} << wire::VHOST_F_LOG_ALL;
}

// --- control thread ------------------------------------------------------------------------------

void IommuPort::pause() {
    if (!polled_) return;
    poller_.remove(*this);
    polled_ = false;
    // What has been taken is answered while the ring is still there. Readers are in a section for
    // one burst at most, so this ends.
    while (!answers_.empty() || retry_ || token_) {
        wait_for_readers();
        poll();
    }
}

void IommuPort::resume() {
    wake_fds_.clear();
    for (const auto& vring : vrings_)
        if (vring && vring->kick_fd >= 0) wake_fds_.push_back(vring->kick_fd);
    if (!vrings_[VIRTIO_IOMMU_VQ_REQUEST] && !vrings_[VIRTIO_IOMMU_VQ_EVENT]) return;
    polled_ = true;
    poller_.add(*this);
}

void IommuPort::wait_for_readers() noexcept {
    if (!token_) token_ = device_.table().start_grace();
    while (!device_.table().grace_over(*token_)) sched_yield();
}

void IommuPort::config_read(uint32_t offset, std::span<std::byte> out) {
    device_.read_config(offset, out);
}

/// After a change to the device that may have taken something from readers.
void IommuPort::settle() noexcept {
    if (!device_.table().dirty()) return;
    wait_for_readers();
    token_.reset();
}

template <class Change>
void IommuPort::while_paused(Change change) {
    pause();
    change();
    settle();
    resume();
}

void IommuPort::config_write(uint32_t offset, std::span<const std::byte> in) {
    if (device_.would_change(offset, in))
        while_paused([&] { device_.write_config(offset, in); });
    else
        device_.write_config(offset, in);
}

void IommuPort::features_acked(uint64_t features) {
    acked_ = features;
    while_paused([&] { device_.features_acked(features); });
}

void IommuPort::connected() {
    while_paused([&] { device_.connected(); });
}

void IommuPort::memory_changed(std::shared_ptr<const virtq::MemoryMap> memory) {
    memory_ = std::move(memory);
    space_ = virtq::GpaSpace(*memory_);
    space_.set_dirty_log(log_.get());
}

void IommuPort::disconnected() {
    space_ = {};
    memory_.reset();  // or the guest's memory would stay allocated
}

void IommuPort::log_changed(std::shared_ptr<const virtq::DirtyLog> log) {
    log_ = std::move(log);
    space_.set_dirty_log(log_.get());
}

void IommuPort::queue_started(const virtq::Vring& vring) {
    const uint16_t index = vring.index;
    if (index >= kQueues) return;
    pause();
    bases_[index] = vring.base;
    Queue& queue = queues_[index];
    const auto in_memory = memory_ ? virtq::from_uva(vring, *memory_) : std::nullopt;
    if (in_memory && queue.bind(space_, *in_memory, acked_)) {
        if (index == VIRTIO_IOMMU_VQ_REQUEST) {
            if ((end_ && queue.continues(*end_, *in_memory)) || only_requests_stopped_)
                device_.resumed();
            else
                device_.reset();
            settle();
        }
        chain_.reserve(in_memory->size);
        queue.start_at_used_or(vring.base);
        queue.enable_notifications(false);
        vrings_[index] = *in_memory;
    } else {
        stats_.unusable_queues.add();
    }
    resume();
}

uint32_t IommuPort::queue_stopped(uint16_t index, Stop) {
    if (index >= kQueues) return 0;
    if (!vrings_[index]) return bases_[index];  // it could not be used
    pause();
    Queue& queue = queues_[index];
    const uint32_t next = queue.next_base();
    if (index == VIRTIO_IOMMU_VQ_REQUEST)
        end_ = queue.end(*vrings_[index]);
    only_requests_stopped_ = index == VIRTIO_IOMMU_VQ_REQUEST && vrings_[VIRTIO_IOMMU_VQ_EVENT] &&
                             virtq::negotiated(acked_, wire::VIRTIO_F_RING_RESET);
    queue.unbind();
    vrings_[index].reset();
    resume();
    return next;
}

// --- polling thread ------------------------------------------------------------------------------

unsigned IommuPort::poll() noexcept {
    if (token_) {
        if (!device_.table().grace_over(*token_)) return 0;
        token_.reset();
        publish_answers();
        if (retry_) execute();
        finish_pass();
        return 1;
    }
    unsigned done = vrings_[VIRTIO_IOMMU_VQ_REQUEST] ? take_requests() : 0;
    if (!device_.faults().was_empty()) done += report_faults();
    return done;
}

unsigned IommuPort::take_requests() noexcept {
    Queue& queue = queues_[VIRTIO_IOMMU_VQ_REQUEST];
    unsigned taken = 0;
    uint32_t descriptors = 0;
    while (taken < kBurst && descriptors < virtq::kBurstDescriptors) {
        const virtq::Pop pop = queue.pop(chain_);
        if (pop == virtq::Pop::kEmpty || pop == virtq::Pop::kBroken) break;
        ++taken;
        descriptors += chain_.descriptors();
        if (pop != virtq::Pop::kChain) {
            stats_.malformed.add();
            answers_.push_back({chain_.taken(), 0});
        } else if (execute() == Step::kRetry) {
            break;
        }
    }
    if (taken == 0) return 0;
    stats_.passes.add();
    finish_pass();
    return taken;
}

/// Execute the request in chain_.
IommuPort::Step IommuPort::execute() noexcept {
    Queue& queue = queues_[VIRTIO_IOMMU_VQ_REQUEST];
    std::array<std::byte, wire::kMaxRequestBytes> request;
    const auto in = queue.gather(chain_.readable(), std::span(request));
    // A reply longer than any that has a meaning is written from its start.
    const auto room =
        std::span(reply_).first(std::min<uint64_t>(chain_.writable_bytes(), reply_.size()));
    if (in.faulted) {
        stats_.unreachable.add();
        answers_.push_back({chain_.taken(), 0});
        retry_ = false;
        return Step::kDone;
    }
    const auto outcome = device_.handle(std::span(request).first(in.bytes), room);
    retry_ = outcome.retry_after_grace;
    if (retry_) return Step::kRetry;
    const auto out =
        queue.scatter(std::span<const std::byte>(room).first(outcome.written), chain_.writable());
    if (out.faulted) stats_.unreachable.add();
    answers_.push_back({chain_.taken(), out.faulted ? 0 : outcome.written});
    return Step::kDone;
}

/// Answer what was executed, now or after the readers have left.
void IommuPort::finish_pass() noexcept {
    if (device_.table().dirty() || retry_) {
        token_ = device_.table().start_grace();
        stats_.grace_periods.add();
        return;
    }
    publish_answers();
}

void IommuPort::publish_answers() noexcept {
    if (answers_.empty()) return;
    Queue& queue = queues_[VIRTIO_IOMMU_VQ_REQUEST];
    for (const Answer& a : answers_) queue.push(a.chain, a.written);
    answers_.clear();
    queue.complete();
}

/// Spec: 5.13.6.9 Fault reporting. Without an event queue, or a large enough buffer, the report is
/// dropped and counted; while the queue is only empty, faults wait for its next buffer.
unsigned IommuPort::report_faults() noexcept {
    Queue& queue = queues_[VIRTIO_IOMMU_VQ_EVENT];
    const bool running = vrings_[VIRTIO_IOMMU_VQ_EVENT].has_value() && !queue.broken();
    wire::virtio_iommu_fault fault;
    unsigned done = 0;
    for (; done < kBurst; ++done) {
        if (running && queue.available(1) == 0) break;
        if (!device_.next_fault(fault)) break;
        if (!running) {
            device_.count_dropped_fault();
            continue;
        }
        const virtq::Pop pop = queue.pop(chain_);
        if (pop == virtq::Pop::kBroken) {
            device_.count_dropped_fault();
            break;
        }
        uint32_t written = 0;
        if (pop == virtq::Pop::kChain && chain_.writable_bytes() >= sizeof fault) {
            const auto out = queue.scatter(std::as_bytes(std::span(&fault, 1)), chain_.writable());
            if (!out.faulted) written = sizeof fault;
        }
        if (written != 0)
            device_.count_reported_fault();
        else
            device_.count_dropped_fault();
        queue.push(chain_.taken(), written);
    }
    if (running) queue.complete();
    return done;
}

bool IommuPort::arm() noexcept {
    if (token_) return false;
    for (uint16_t i = 0; i < kQueues; ++i) {
        if (!vrings_[i]) continue;
        // Event buffers are no work, faults are; but their kick ends the sleep.
        const bool idle = queues_[i].arm();
        if (i == VIRTIO_IOMMU_VQ_REQUEST && !idle) return false;
    }
    return device_.faults().was_empty() ||
           (vrings_[VIRTIO_IOMMU_VQ_EVENT] && queues_[VIRTIO_IOMMU_VQ_EVENT].available(1) == 0);
}

void IommuPort::disarm() noexcept {
    for (uint16_t i = 0; i < kQueues; ++i)
        if (vrings_[i]) queues_[i].enable_notifications(false);
}

std::chrono::microseconds IommuPort::sleep_limit() const noexcept { return kFaultLatency; }

}  // namespace viommu::vhost
