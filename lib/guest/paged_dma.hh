// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <map>

#include "iommu_driver.hh"

namespace viommu::guest {

/// Gives out IOVAs from the top of a window down, as Linux does. What is given back is used again,
/// by runs of the same length.
class IovaAllocator {
  public:
    /// Only whole pages inside `window` are given.
    explicit IovaAllocator(IovaRange window);
    /// Errors: the window is used up.
    Result<Iova> take(uint64_t pages);
    void give_back(Iova first, uint64_t pages);

  private:
    IovaRange window_;
    uint64_t left_;  // pages that were never given: the lowest of the window
    std::map<uint64_t, std::vector<Iova>> returned_;
};

/// A domain's DMA: every map() is a MAP request and an IOVA of its own, every unmap() an UNMAP.
/// Requests are kept until sync(), which sends them as one batch and waits, as Linux's
/// iotlb_sync_map() and iotlb_sync() do.
///
/// After an error of sync() the requests of that batch are forgotten; what the device did with the
/// others of it is unknown.
///
/// Rings are IOVA-contiguous, and with Placement::kScattered no two of their pages are neighbours
/// in memory: one mapping for each.
class PagedDma final : public Dma {
  public:
    /// `window`: where IOVAs are taken from; inside RAM if the VMM takes ring addresses for GPAs.
    PagedDma(IommuDriver& iommu, DomainId domain, IovaRange window,
             Placement placement = Placement::kScattered)
        : iommu_(iommu), domain_(domain), iovas_(window), placement_(placement) {}

    Result<DmaBlock> allocate(uint64_t bytes) override;
    Result<void> release(const DmaBlock& block) override;
    Result<BusAddress> map(Gpa gpa, uint64_t bytes, Access access) override;
    Result<void> unmap(BusAddress bus, uint64_t bytes) override;
    Result<void> sync() override;

    DomainId domain() const { return domain_; }

  private:
    struct Freed {
        Iova first;
        uint64_t pages;
    };

    IommuDriver& iommu_;
    DomainId domain_;
    IovaAllocator iovas_;
    Placement placement_;
    std::vector<Request> pending_;
    std::vector<Answer> answers_;
    std::vector<Freed> freed_;  // IOVAs that are free once pending_ has been answered
};

}  // namespace viommu::guest
