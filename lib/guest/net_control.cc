// SPDX-License-Identifier: BSD-3-Clause
#include "net_control.hh"

#include <algorithm>

#include "eventfd.hh"

namespace viommu::guest {

namespace {
constexpr uint64_t kMemoryBytes = 2 * kPageBytes;
constexpr uint64_t kAckAt = kMemoryBytes - 64;
}  // namespace

Result<std::unique_ptr<NetControl>> NetControl::create(Dma& dma, uint16_t index,
                                                       RingFormat format, Milliseconds timeout) {
    std::unique_ptr<NetControl> c(new NetControl(dma, index, format, timeout));
    for (Fd* fd : {&c->kick_, &c->call_}) {
        auto made = make_eventfd();
        if (!made) return tl::unexpected(made.error());
        *fd = std::move(*made);
    }
    auto ring = dma.allocate(DriverQueue::ring_bytes(kSize, format));
    if (!ring) return tl::unexpected(ring.error());
    c->ring_ = *ring;
    c->queue_.emplace(std::move(*ring), kSize, c->kick_.get(), format);
    c->queue_->want_interrupts(false);
    auto memory = dma.allocate(kMemoryBytes);
    if (!memory) return tl::unexpected(memory.error());
    c->memory_ = std::move(*memory);
    return c;
}

Result<void> NetControl::release() {
    if (auto ok = dma_.release(memory_); !ok) return ok;
    return dma_.release(ring_);
}

void NetControl::signal() const { signal_eventfd(kick_.get()); }

QueueSetup NetControl::setup() const {
    return {index_,         queue_->size(), queue_->desc(), queue_->avail(),
            queue_->used(), kick_.get(),    call_.get(),    {}};
}

QueueSetup NetControl::setup_again() {
    auto setup = this->setup();
    if (format_.packed) setup.base = queue_->base();
    return setup;
}

Result<uint8_t> NetControl::command(uint8_t class_, uint8_t command,
                                    std::span<const std::byte> data, const CommandLayout& layout) {
    std::vector<std::byte> bytes{std::byte{class_}, std::byte{command}};
    bytes.insert(bytes.end(), data.begin(), data.end());
    if (bytes.size() > kAckAt)
        return fail("a command of {} bytes is longer than the driver's memory", bytes.size());
    memory_.write(0, bytes);
    *memory_.at(kAckAt) = std::byte{0xff};  // what no device says

    std::vector<Segment> out;
    uint32_t at = 0;
    const auto left = [&] { return uint32_t(bytes.size()) - at; };
    for (const uint32_t wanted : layout.segments) {
        const uint32_t n = std::min(wanted, left());
        if (n != 0) out.push_back({memory_.bus + at, n});
        at += n;
    }
    if (left() != 0) out.push_back({memory_.bus + at, left()});
    const Segment in{memory_.bus + kAckAt, 1};
    if (!queue_->add(out, {&in, 1}, 0))
        return fail("a command in {} segments does not fit into the controlq", out.size());
    queue_->kick();
    Patience patience(timeout_);
    std::optional<Completion> done;
    while (!(done = queue_->pop()) && queue_->broken().empty() && patience.wait()) {
    }
    if (!queue_->broken().empty()) return fail("controlq: {}", queue_->broken());
    if (!done)
        return fail("controlq: no answer to command {}.{} in {} ms", class_, command,
                    timeout_.count());
    return uint8_t(*memory_.at(kAckAt));
}

}  // namespace viommu::guest
