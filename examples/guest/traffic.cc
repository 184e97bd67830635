// SPDX-License-Identifier: BSD-3-Clause
#include "traffic.hh"

#include <algorithm>

namespace viommu::example {

using namespace guest;

namespace {

constexpr uint32_t kBurst = 32;
constexpr size_t kSequenceOffset = 14;

/// The `index`th 8 bytes from the sequence number on; the 0th is the number itself.
uint64_t word(uint64_t sequence, uint64_t index) {
    return index == 0 ? sequence : (sequence + index) * 0x9e3779b97f4a7c15;
}

/// Read access at an address that is known, of a page without a mapping.
bool is_expected(const FaultEvent& fault, EndpointId endpoint, BusAddress at) {
    return fault.reason == wire::VIRTIO_IOMMU_FAULT_R_MAPPING &&
           fault.flags == (wire::VIRTIO_IOMMU_FAULT_F_READ | wire::VIRTIO_IOMMU_FAULT_F_ADDRESS) &&
           fault.endpoint == endpoint && fault.address.value == at.value &&
           fault.bytes >= sizeof(wire::virtio_iommu_fault);
}

std::string describe(const FaultEvent& fault) {
    return fmt::format("reason {}, flags {:#x}, endpoint {}, address {}, {} bytes", fault.reason,
                       fault.flags, format_bdf(fault.endpoint), fault.address, fault.bytes);
}

}  // namespace

Pattern::Pattern(std::array<uint8_t, 6> from, std::array<uint8_t, 6> to, uint32_t bytes)
    : bytes_(bytes) {
    std::memcpy(ethernet_.data(), to.data(), 6);
    std::memcpy(ethernet_.data() + 6, from.data(), 6);
    ethernet_[12] = std::byte{0x88}, ethernet_[13] = std::byte{0xb5};  // for local experiments
}

uint32_t Pattern::write(uint64_t sequence, std::span<std::byte> room) const {
    std::copy(ethernet_.begin(), ethernet_.end(), room.begin());
    for (size_t at = kSequenceOffset, i = 0; at < bytes_; at += 8, ++i) {
        const uint64_t value = word(sequence, i);
        std::memcpy(room.data() + at, &value, std::min<size_t>(8, bytes_ - at));
    }
    return bytes_;
}

bool Pattern::matches(uint64_t sequence, std::span<const std::byte> packet) const {
    if (packet.size() != bytes_ ||
        std::memcmp(packet.data(), ethernet_.data(), ethernet_.size()) != 0)
        return false;
    for (size_t at = kSequenceOffset, i = 0; at < bytes_; at += 8, ++i) {
        const uint64_t value = word(sequence, i);
        if (std::memcmp(packet.data() + at, &value, std::min<size_t>(8, bytes_ - at)) != 0)
            return false;
    }
    return true;
}

Result<Passed> pass_packets(NetDriver& from, NetDriver* to, const Pattern& pattern, uint64_t count,
                            Milliseconds limit) {
    using Clock = std::chrono::steady_clock;
    Passed passed;
    auto fill = [&, next = uint64_t{0}](std::span<std::byte> room) mutable {
        return pattern.write(next++, room);
    };
    const auto compare = [&](std::span<const std::byte> packet) {
        passed.verified += pattern.matches(passed.received++, packet);
    };
    const uint64_t done_before = from.counters().tx_done;
    const uint64_t window = to != nullptr ? to->rx_buffers() : UINT64_MAX;
    const auto start = Clock::now();
    Patience patience(limit);
    for (;;) {
        const uint64_t taken = from.counters().tx_done - done_before;
        if (to != nullptr ? passed.received >= count : taken == count) break;
        const uint64_t on_the_way = to != nullptr ? passed.sent - passed.received : 0;
        const auto burst =
            uint32_t(std::min({uint64_t{kBurst}, count - passed.sent, window - on_the_way}));
        const auto sent = from.transmit(burst, fill);
        if (!sent) return tl::unexpected(sent.error());
        passed.sent += *sent;
        const auto received = to != nullptr ? to->receive(kBurst, compare) : Result<uint32_t>(0);
        if (!received) return tl::unexpected(received.error());
        if (passed.verified != passed.received)
            return fail("packet {} is not what was sent: lost, out of order or changed",
                        passed.verified);
        if (*sent + *received != 0 || from.counters().tx_done - done_before != taken)
            patience.renew();
        else if (!patience.wait())
            return fail("nothing moved for {} ms: {} packets sent, {} taken, {} received",
                        limit.count(), passed.sent, taken, passed.received);
    }
    passed.seconds = std::chrono::duration<double>(Clock::now() - start).count();
    return passed;
}

Result<FaultEvent> provoke_fault(Guest& guest, const Pattern& pattern, Milliseconds patience) {
    NetDriver& port = guest.port(0);
    PagedDma& dma = guest.dma(0);
    const auto page = guest.memory().allocate(1);
    if (!page) return tl::unexpected(page.error());
    constexpr uint32_t kHeader = sizeof(wire::virtio_net_hdr);
    pattern.write(0, {guest.memory().at(*page) + kHeader, kPageBytes - kHeader});

    const auto at = dma.map(*page, kPageBytes, Access::kRead);
    if (!at) return tl::unexpected(at.error());
    if (auto ok = dma.sync(); !ok) return tl::unexpected(ok.error());
    const Segment segment{*at, kHeader + pattern.bytes()};
    const auto send = [&]() -> Result<void> {
        const auto sent = port.transmit_segments(std::span(&segment, 1));
        if (!sent) return tl::unexpected(sent.error());
        return port.drain(patience);
    };
    const auto arrives = [&](Milliseconds limit) -> Result<bool> {
        const auto packet = guest.port(1).receive(limit);
        if (!packet) return tl::unexpected(packet.error());
        return packet->has_value() && pattern.matches(0, **packet);
    };
    const bool has_peer = guest.ports() > 1;

    if (auto ok = send(); !ok) return tl::unexpected(ok.error());
    if (has_peer) {
        const auto arrived = arrives(patience);
        if (!arrived) return tl::unexpected(arrived.error());
        if (!*arrived) return fail("the packet at {} did not arrive while it was mapped", *at);
    }
    if (auto ok = dma.unmap(*at, kPageBytes); !ok) return tl::unexpected(ok.error());
    if (auto ok = dma.sync(); !ok) return tl::unexpected(ok.error());
    guest.memory().release(*page);
    if (auto ok = send(); !ok) return tl::unexpected(ok.error());
    const auto fault = guest.iommu().poll_fault(patience);
    if (!fault) return tl::unexpected(fault.error());
    if (!*fault) return fail("no fault was reported for the packet at {}, unmapped", *at);
    if (!is_expected(**fault, guest.endpoint(0), *at))
        return fail("the fault reported for the packet at {} of {} is another: {}", *at,
                    format_bdf(guest.endpoint(0)), describe(**fault));
    if (has_peer) {
        const auto arrived = arrives(Milliseconds(10));
        if (!arrived) return tl::unexpected(arrived.error());
        if (*arrived) return fail("the packet at {} arrived although it was unmapped", *at);
    }
    return **fault;
}

}  // namespace viommu::example
