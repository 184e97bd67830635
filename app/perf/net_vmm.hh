// SPDX-License-Identifier: BSD-3-Clause
/// The VMM of a guest whose NIC is librte_vhost's: it has the vIOMMU and keeps the backend's IOTLB.
#pragma once

#include <vector>

#include "net_guest.hh"

namespace viommu::perf {

/// What QEMU does for a vhost-user backend with an IOMMU, but without what QEMU needs for it: the
/// guest's requests cost no exit and no ring, since this is called by the guest's own Dma, on its
/// thread. It could as well be a thread of its own, as QEMU's; on the guest's CPU that would be two
/// more switches between threads for each message, on the device's it would take turns with the
/// device. So this is what is best for librte_vhost. Its event thread, which receives the messages,
/// shares the guest's CPU (DeviceThread), which waits for it anyway.
///
/// - A miss is answered with an UPDATE of the whole mapping. UPDATE and INVALIDATE are sent with
///   NEED_REPLY, and the answer is waited for.
/// - UNMAP: INVALIDATE. Not before its answer is the guest told.
/// - MAP: nothing. The backend asks when it meets the address.
///
/// Source:  QEMU, hw/virtio/vhost-user.c: vhost_user_send_device_iotlb_msg(),
///          vhost_user_backend_handle_iotlb_msg(); hw/virtio/vhost.c: vhost_device_iotlb_miss(),
///          vhost_iommu_unmap_notify()
/// Threads: the guest's.
class IotlbVmm {
  public:
    /// Gives the backend its channel for misses, as QEMU does before the guest runs.
    Result<void> open_channel(guest::Frontend& frontend, guest::Memory& memory);
    /// Before the first message: nothing but this is sent on the frontend's channel from here on.
    Result<void> take_over();

    /// `mapped`: what the guest's page table says of [first, first + bytes).
    void map(uint64_t first, uint64_t bytes, Gpa gpa);
    void forget(uint64_t first);
    Result<void> invalidate(uint64_t first, uint64_t bytes);
    /// The backend is told of a mapping that it has not asked for: a ring.
    Result<void> push(uint64_t first);
    /// Answer misses that have come. True: there were some.
    Result<bool> attend();

  private:
    struct Mapping {
        uint64_t first = 0, bytes = 0;  ///< 0 bytes: none
        Gpa gpa;
    };
    struct Message;
    const Mapping* find(uint64_t iova) const;
    Result<void> update(const Mapping& mapping);
    Result<void> exchange(const Message& message);

    guest::Frontend* frontend_ = nullptr;
    guest::Memory* memory_ = nullptr;
    Fd channel_;
    std::vector<Mapping> pages_;  ///< of kNetWindow; one for each page of a mapping
    Mapping whole_;               ///< of all memory, outside of it
};

/// A guest's Dma of which such a VMM knows. As Linux's, and as PagedDma: unmap() is kept until
/// sync(), or with `strict` done at once.
class IotlbDma final : public guest::Dma {
  public:
    IotlbDma(guest::Memory& memory, IotlbVmm& vmm, bool strict, Iotlb iotlb)
        : memory_(memory), vmm_(vmm), strict_(strict), iotlb_(iotlb), iovas_(kNetWindow) {}

    Result<guest::DmaBlock> allocate(uint64_t bytes) override;
    Result<void> release(const guest::DmaBlock& block) override;
    Result<guest::BusAddress> map(Gpa gpa, uint64_t bytes, Access access) override;
    Result<void> unmap(guest::BusAddress bus, uint64_t bytes) override;
    Result<void> sync() override;

  private:
    struct Freed {
        Iova first;
        uint64_t pages;
    };
    guest::Memory& memory_;
    IotlbVmm& vmm_;
    const bool strict_;
    const Iotlb iotlb_;
    guest::IovaAllocator iovas_;
    std::vector<Freed> freed_;
};

}  // namespace viommu::perf
