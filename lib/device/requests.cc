// SPDX-License-Identifier: BSD-3-Clause
/// Requests (virtio 1.3, 5.13.6): what each is checked for, in the order of checking, and done.
#include <algorithm>
#include <cstring>

#include "device.hh"

namespace viommu::device {

using namespace wire;

static_assert(uint8_t(Access::kRead) == VIRTIO_IOMMU_MAP_F_READ);
static_assert(uint8_t(Access::kWrite) == VIRTIO_IOMMU_MAP_F_WRITE);
static_assert(uint8_t(Access::kMmio) == VIRTIO_IOMMU_MAP_F_MMIO);

namespace {
constexpr uint32_t kKnownMapFlags =
    VIRTIO_IOMMU_MAP_F_READ | VIRTIO_IOMMU_MAP_F_WRITE | VIRTIO_IOMMU_MAP_F_MMIO;
}

Device::Outcome Device::handle(std::span<const std::byte> request,
                               std::span<std::byte> reply) noexcept {
    const auto decoded = decode(request);
    if (!decoded || reply.size() < sizeof(virtio_iommu_req_tail)) {
        stats_.unreadable.add();
        return {};
    }
    if (const auto* p = std::get_if<ProbeRequest>(&*decoded)) return probe(*p, reply);

    const Status status = std::visit(
        [this](const auto& r) {
            if constexpr (std::is_same_v<std::decay_t<decltype(r)>, ProbeRequest>)
                return Status::kDevErr;  // answered above
            else
                return execute(r);
        },
        *decoded);
    if (status == Status::kNoMem) {
        const table::Quota quota = table_->exhausted();
        if (quota == table::Quota::kArena && table_->usage().trees_waiting != 0)
            return {.written = 0, .retry_after_grace = true};
        stats_.exhausted[uint8_t(quota)].add();
    }
    constexpr Counter Stats::* kByType[] = {&Stats::attach, &Stats::detach, &Stats::map,
                                            &Stats::unmap};
    (stats_.*kByType[decoded->index()]).add();
    return answer(status, reply, 0);
}

Device::Outcome Device::answer(Status status, std::span<std::byte> reply,
                               std::size_t tail_offset) noexcept {
    virtio_iommu_req_tail tail{};
    tail.status = uint8_t(status);
    std::memcpy(reply.data() + tail_offset, &tail, sizeof tail);
    stats_.status[uint8_t(status)].add();
    return {.written = uint32_t(tail_offset + sizeof tail)};
}

Status Device::execute(const AttachRequest& r) noexcept {
    const uint32_t known = offers(VIRTIO_IOMMU_F_BYPASS_CONFIG) ? VIRTIO_IOMMU_ATTACH_F_BYPASS : 0;
    if (!r.reserved_is_zero || (r.flags & ~known) != 0) return Status::kInval;
    if (!table_->has_endpoint(r.endpoint)) return Status::kNoEnt;
    if (r.domain < config_.domain_first || r.domain > config_.domain_last) return Status::kRange;
    const bool bypass = (r.flags & VIRTIO_IOMMU_ATTACH_F_BYPASS) != 0;
    const Status status = table_->attach(r.endpoint, r.domain, bypass);
    if (bypass && status == Status::kOk) stats_.attach_bypass.add();
    return status;
}

Status Device::execute(const DetachRequest& r) noexcept {
    return table_->detach(r.endpoint, r.domain);
}

Status Device::execute(const MapRequest& r) noexcept {
    if ((r.flags & ~kKnownMapFlags) != 0) return Status::kInval;
    const auto range = IovaRange::from_bounds(r.first, r.last);
    if (!range) return Status::kRange;
    const Status status = table_->map(r.domain, *range, r.gpa, Access(r.flags));
    if ((r.flags & VIRTIO_IOMMU_MAP_F_MMIO) != 0 && status == Status::kOk) stats_.map_mmio.add();
    return status;
}

Status Device::execute(const UnmapRequest& r) noexcept {
    if (!r.reserved_is_zero) return Status::kInval;
    const auto range = IovaRange::from_bounds(r.first, r.last);
    if (!range) return Status::kRange;
    return table_->unmap(r.domain, *range);
}

Device::Outcome Device::probe(const ProbeRequest& r, std::span<std::byte> reply) noexcept {
    stats_.probe.add();
    const std::size_t tail = probe_size_;
    if (reply.size() < tail + sizeof(virtio_iommu_req_tail)) {
        // 5.13.6.7: a list shorter than probe_size gets no property, and INVAL where the driver
        // will look for it: at the end of what it gave.
        std::fill(reply.begin(), reply.end(), std::byte{0});
        return answer(Status::kInval, reply, reply.size() - sizeof(virtio_iommu_req_tail));
    }
    if (!table_->has_endpoint(r.endpoint)) {
        std::fill_n(reply.begin(), tail, std::byte{0});
        return answer(Status::kNoEnt, reply, tail);
    }
    const auto own = own_properties_.find(r.endpoint);
    const Properties& properties = own == own_properties_.end() ? properties_ : own->second;
    std::copy(properties.begin(), properties.end(), reply.begin());
    return answer(Status::kOk, reply, tail);
}

void Device::reset() noexcept {
    table_->reset();
    bypass_before_.reset();
    stats_.resets.add();
}

}  // namespace viommu::device
