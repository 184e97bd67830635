// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "net_driver.hh"
#include "paged_dma.hh"

namespace viommu::guest {

struct PortOptions {
    std::string socket;
    EndpointId endpoint = 0;
    NetOptions net{};  ///< its frontend's socket, timeout, vmm and ring_addresses are the guest's
};

struct GuestOptions {
    std::vector<RegionLayout> banks{{Gpa{0}, uint64_t{64} << 20}};
    std::string iommu_socket;
    std::vector<PortOptions> ports;
    Vmm vmm = Vmm::kCloudHypervisor;
    RingAddresses ring_addresses = RingAddresses::kUva;
    Milliseconds timeout{5000};
    IommuOptions iommu{};  ///< its frontend's socket, timeout and vmm are the guest's
    Placement rings = Placement::kScattered;
    /// Where IOVAs are taken from; unset: usable_window().
    std::optional<IovaRange> window{};
};

/// The largest range of IOVAs in the device's input_range which no reserved region touches, inside
/// a bank of RAM if ring addresses go through a VMM that takes them for GPAs, else below 4 GiB when
/// there is room, as Linux prefers. Errors: nothing is left.
Result<IovaRange> usable_window(const IommuDriver& iommu, RingAddresses ring_addresses,
                                std::span<const ReservedRegion> reserved);

/// A whole guest: memory, its IOMMU, and network devices behind it, each in a domain of its own.
///
///     GuestOptions options;
///     options.iommu_socket = "iommu.sock";
///     options.ports = {{"net0.sock", 0x20}, {"net1.sock", 0x28}};
///     auto guest = Guest::create(options);       // everything runs
///     (*guest)->port(0).transmit(packet);
///     (*guest)->port(1).receive(Milliseconds(1000));
///
/// The steps in between are public for tests that want to stop half-way.
///
/// Threads: one.
class Guest {
  public:
    /// connect(), then bring_up() of every port.
    static Result<std::unique_ptr<Guest>> create(const GuestOptions& options);
    /// VM create, and the IOMMU's driver: no port is attached or started.
    static Result<std::unique_ptr<Guest>> connect(const GuestOptions& options);
    /// PROBE, ATTACH, then the network driver.
    Result<void> bring_up(size_t port);
    /// The inverse: the driver stops, everything is unmapped, DETACH.
    Result<void> take_down(size_t port);
    /// Every port that is up, then the IOMMU's device reset.
    Result<void> shut_down();

    Memory& memory() { return *memory_; }
    IommuDriver& iommu() { return *iommu_; }
    size_t ports() const { return ports_.size(); }
    NetDriver& port(size_t i) { return *ports_[i].driver; }
    /// After bring_up(): what its driver maps with; and what PROBE said.
    PagedDma& dma(size_t i) { return *ports_[i].dma; }
    const ProbeAnswer& probed(size_t i) const { return ports_[i].probed; }
    EndpointId endpoint(size_t i) const { return options_.ports[i].endpoint; }
    DomainId domain(size_t i) const;

  private:
    struct Port {
        std::unique_ptr<PagedDma> dma{};
        std::unique_ptr<NetDriver> driver{};
        ProbeAnswer probed{};
        bool up = false;
    };
    explicit Guest(const GuestOptions& options) : options_(options) {}

    GuestOptions options_;
    std::unique_ptr<Memory> memory_;
    std::unique_ptr<IommuDriver> iommu_;
    std::vector<Port> ports_;
};

}  // namespace viommu::guest
