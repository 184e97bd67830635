// SPDX-License-Identifier: BSD-3-Clause
#include "guest.hh"

#include <algorithm>

namespace viommu::guest {

namespace {

/// The larger part of `range` that `hole` leaves.
std::optional<IovaRange> larger_part(IovaRange range, IovaRange hole) {
    if (!range.overlaps(hole)) return range;
    std::optional<IovaRange> below, above;
    if (range.first < hole.first) below = IovaRange{range.first, hole.first - 1};
    if (hole.last < range.last) above = IovaRange{hole.last + 1, range.last};
    if (!below || !above) return below ? below : above;
    return below->extent() >= above->extent() ? below : above;
}

std::optional<IovaRange> intersection(IovaRange a, IovaRange b) {
    return IovaRange::from_bounds(std::max(a.first, b.first), std::min(a.last, b.last));
}

void keep_larger(std::optional<IovaRange>& best, std::optional<IovaRange> candidate) {
    if (candidate && (!best || candidate->extent() > best->extent())) best = candidate;
}

}  // namespace

Result<IovaRange> usable_window(const IommuDriver& iommu, RingAddresses ring_addresses,
                                std::span<const ReservedRegion> reserved) {
    const IovaRange input = iommu.input_range();
    std::optional<IovaRange> best;
    if (ring_addresses == RingAddresses::kUva) {
        for (const auto& bank : iommu.memory().regions())
            keep_larger(best, intersection(input, {Iova{bank.first.value},
                                                   Iova{bank.first.value + (bank.bytes - 1)}}));
    } else {
        constexpr uint64_t kEnough = uint64_t{256} << 20;
        best = intersection(input, {Iova{0}, Iova{UINT32_MAX}});
        if (!best || best->extent() < kEnough) best = input;
    }
    // In one pass this is not always the largest part, but never one that is reserved.
    for (const auto& region : reserved) {
        const auto hole = IovaRange::from_bounds(Iova{region.start}, Iova{region.end});
        if (best && hole) best = larger_part(*best, *hole);
    }
    if (!best)
        return fail(
            "no IOVA can be used: input_range is {}{}; configure one in RAM", input,
            ring_addresses == RingAddresses::kUva ? ", and ring addresses must be RAM's" : "");
    return *best;
}

Result<std::unique_ptr<Guest>> Guest::create(const GuestOptions& options) {
    auto guest = connect(options);
    for (size_t i = 0; guest && i < options.ports.size(); ++i)
        if (auto ok = (*guest)->bring_up(i); !ok) return tl::unexpected(ok.error());
    return guest;
}

Result<std::unique_ptr<Guest>> Guest::connect(const GuestOptions& options) {
    std::unique_ptr<Guest> guest(new Guest(options));
    auto memory = Memory::create(options.banks);
    if (!memory) return tl::unexpected(memory.error());
    guest->memory_ = std::move(*memory);

    const auto complete = [&](FrontendOptions& frontend, const std::string& socket) {
        frontend.socket = socket;
        frontend.timeout = options.timeout;
        frontend.vmm = options.vmm;
        frontend.ring_addresses = options.ring_addresses;
    };
    for (const auto& port : options.ports) {
        NetOptions net = port.net;
        complete(net.frontend, port.socket);
        auto driver = NetDriver::connect(*guest->memory_, net);
        if (!driver) return tl::unexpected(driver.error());
        guest->ports_.push_back({.driver = std::move(*driver)});
    }
    IommuOptions iommu = options.iommu;
    complete(iommu.frontend, options.iommu_socket);
    auto driver = IommuDriver::start(*guest->memory_, iommu);
    if (!driver) return tl::unexpected(driver.error());
    guest->iommu_ = std::move(*driver);
    return guest;
}

DomainId Guest::domain(size_t i) const {
    const bool limited = (iommu_->features() & bit(wire::VIRTIO_IOMMU_F_DOMAIN_RANGE)) != 0;
    return (limited ? uint32_t(iommu_->config().domain_range.start) : 0) + 1 + DomainId(i);
}

Result<void> Guest::bring_up(size_t i) {
    Port& port = ports_[i];
    const auto refused = [&](const char* what, const Answer& answer) {
        return fail("endpoint {}: {}: {}", format_bdf(endpoint(i)), what, to_string(answer));
    };
    if ((iommu_->features() & bit(wire::VIRTIO_IOMMU_F_PROBE)) != 0) {
        port.probed = iommu_->probe(endpoint(i));
        if (!port.probed.ok() || !port.probed.trouble.empty()) return refused("PROBE", port.probed);
    }
    auto window = options_.window
                      ? Result<IovaRange>(*options_.window)
                      : usable_window(*iommu_, options_.ring_addresses, port.probed.reserved);
    if (!window) return tl::unexpected(window.error());
    const auto answer = iommu_->attach(domain(i), endpoint(i));
    if (!answer.ok()) return refused("ATTACH", answer);
    port.dma = std::make_unique<PagedDma>(*iommu_, domain(i), *window, options_.rings);
    if (auto ok = port.driver->start(*port.dma); !ok) return ok;
    port.up = true;
    return {};
}

Result<void> Guest::take_down(size_t i) {
    Port& port = ports_[i];
    if (auto ok = port.driver->stop(); !ok) return ok;
    port.up = false;
    const auto answer = iommu_->detach(domain(i), endpoint(i));
    if (!answer.ok())
        return fail("endpoint {}: DETACH: {}", format_bdf(endpoint(i)), to_string(answer));
    return {};
}

Result<void> Guest::shut_down() {
    for (size_t i = 0; i < ports_.size(); ++i)
        if (ports_[i].up)
            if (auto ok = take_down(i); !ok) return ok;
    return iommu_->stop();
}

}  // namespace viommu::guest
