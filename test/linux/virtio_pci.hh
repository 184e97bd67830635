// SPDX-License-Identifier: BSD-3-Clause
/// The driver's side of a modern virtio-pci device behind VFIO: virtio 1.3, 4.1 and 2.7.
#pragma once

#include <linux/pci_regs.h>
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>

#include <chrono>
#include <optional>

#include "vfio.hh"

namespace guest {

// As they lie in memory (2.7, 5.1.6). linux/virtio_ring.h and linux/virtio_net.h are not C++, and
// the project's own structures are what is tested here; this host and its guest are little-endian.
struct virtq_desc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags, next;
};
struct virtq_avail {
    uint16_t flags, idx, ring[];
};
struct virtq_used_elem {
    uint32_t id, len;
};
struct virtq_used {
    uint16_t flags, idx;
    virtq_used_elem ring[];
};
inline constexpr uint16_t VIRTQ_DESC_F_WRITE = 2, VIRTQ_AVAIL_F_NO_INTERRUPT = 1;

/// What a capability points to.
struct Window {
    Region region;
    uint32_t offset = 0;

    template <class T>
    T read(uint32_t at) const {
        return region.read<T>(offset + at);
    }
    template <class T>
    void write(uint32_t at, T value) const {
        region.write<T>(offset + at, value);
    }
};

/// Split virtqueue number `index`; one page of memory, which the device sees at `iova`.
/// Buffer n is described by descriptor n, so there are no chains and no free list.
class Ring {
  public:
    static constexpr uint16_t kSize = 16;
    static constexpr uint32_t kPage = 4096, kAvail = 0x400, kUsed = 0x800;

    Ring(uint16_t index, uint8_t* page, uint64_t iova) : index_(index), page_(page), iova_(iova) {
        // Everything is polled.
        avail()->flags = VIRTQ_AVAIL_F_NO_INTERRUPT;
    }

    uint16_t index() const { return index_; }
    uint64_t iova() const { return iova_; }

    void describe(uint16_t buffer, uint64_t iova, uint32_t bytes, bool device_writes) {
        auto* desc = reinterpret_cast<virtq_desc*>(page_) + buffer;
        *desc = {iova, bytes, uint16_t(device_writes ? VIRTQ_DESC_F_WRITE : 0), 0};
    }

    void give(uint16_t buffer) {
        avail()->ring[next_avail_++ % kSize] = buffer;
        __atomic_store_n(&avail()->idx, next_avail_, __ATOMIC_RELEASE);  // the device's acquire
    }

    struct Used {
        uint16_t buffer;
        uint32_t bytes;
    };
    std::optional<Used> take() {
        if (__atomic_load_n(&used()->idx, __ATOMIC_ACQUIRE) == next_used_) return std::nullopt;
        const virtq_used_elem element = used()->ring[next_used_++ % kSize];
        require(element.id < kSize, "the used ring names a descriptor that is not there");
        return Used{uint16_t(element.id), element.len};
    }

  private:
    virtq_avail* avail() const { return reinterpret_cast<virtq_avail*>(page_ + kAvail); }
    virtq_used* used() const { return reinterpret_cast<virtq_used*>(page_ + kUsed); }

    uint16_t index_;
    uint8_t* page_;
    uint64_t iova_;
    uint16_t next_avail_ = 0, next_used_ = 0;
};

class VirtioPci {
  public:
    VirtioPci(const Container& container, const std::string& bdf)
        : fd_(container.device(bdf)), config_(fd_, VFIO_PCI_CONFIG_REGION_INDEX) {
        config_.write<uint16_t>(PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
        for (uint8_t at = config_.read<uint8_t>(PCI_CAPABILITY_LIST); at != 0;
             at = config_.read<uint8_t>(at + PCI_CAP_LIST_NEXT))
            if (config_.read<uint8_t>(at) == PCI_CAP_ID_VNDR) add_capability(at);
        require(common_ && notify_ && device_, "the device lacks a virtio capability");
    }
    ~VirtioPci() { close(fd_); }
    VirtioPci(const VirtioPci&) = delete;
    VirtioPci& operator=(const VirtioPci&) = delete;

    /// Reset, and accept `features`, all of which must be offered. 3.1.1 up to step 6.
    void negotiate(uint64_t features) {
        reset();
        set_status(VIRTIO_CONFIG_S_ACKNOWLEDGE);
        set_status(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
        uint64_t offered = 0;
        for (uint32_t half : {0u, 1u}) {
            common_->write<uint32_t>(VIRTIO_PCI_COMMON_DFSELECT, half);
            offered |= uint64_t{common_->read<uint32_t>(VIRTIO_PCI_COMMON_DF)} << 32 * half;
            common_->write<uint32_t>(VIRTIO_PCI_COMMON_GFSELECT, half);
            common_->write<uint32_t>(VIRTIO_PCI_COMMON_GF, uint32_t(features >> 32 * half));
        }
        if ((offered & features) != features)
            die("the device offers %#llx, not all of %#llx", (unsigned long long)offered,
                (unsigned long long)features);
        set_status(kNegotiated);
        require(status() & VIRTIO_CONFIG_S_FEATURES_OK, "the device refuses the features");
    }

    void add_queue(const Ring& ring) {
        common_->write<uint16_t>(VIRTIO_PCI_COMMON_Q_SELECT, ring.index());
        require(common_->read<uint16_t>(VIRTIO_PCI_COMMON_Q_SIZE) >= Ring::kSize,
                "the queue is too small");
        common_->write<uint16_t>(VIRTIO_PCI_COMMON_Q_SIZE, Ring::kSize);
        write_address(VIRTIO_PCI_COMMON_Q_DESCLO, ring.iova());
        write_address(VIRTIO_PCI_COMMON_Q_AVAILLO, ring.iova() + Ring::kAvail);
        write_address(VIRTIO_PCI_COMMON_Q_USEDLO, ring.iova() + Ring::kUsed);
        common_->write<uint16_t>(VIRTIO_PCI_COMMON_Q_ENABLE, 1);
        notify_at_[ring.index()] =
            common_->read<uint16_t>(VIRTIO_PCI_COMMON_Q_NOFF) * notify_multiplier_;
    }

    void start() { set_status(kNegotiated | VIRTIO_CONFIG_S_DRIVER_OK); }

    void reset() {
        set_status(0);
        require(status() == 0, "the device does not reset");
    }

    void kick(const Ring& ring) {
        notify_->write<uint16_t>(notify_at_[ring.index()], ring.index());
    }

    uint8_t device_byte(uint32_t at) const { return device_->read<uint8_t>(at); }

  private:
    static constexpr uint8_t kNegotiated =
        VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK;

    void add_capability(uint8_t at) {
        const auto type = config_.read<uint8_t>(at + VIRTIO_PCI_CAP_CFG_TYPE);
        auto* window = type == VIRTIO_PCI_CAP_COMMON_CFG   ? &common_
                       : type == VIRTIO_PCI_CAP_NOTIFY_CFG ? &notify_
                       : type == VIRTIO_PCI_CAP_DEVICE_CFG ? &device_
                                                           : nullptr;
        if (window == nullptr || *window) return;
        const uint32_t bar = config_.read<uint8_t>(at + VIRTIO_PCI_CAP_BAR);
        *window = Window{Region(fd_, VFIO_PCI_BAR0_REGION_INDEX + bar),
                         config_.read<uint32_t>(at + VIRTIO_PCI_CAP_OFFSET)};
        if (window == &notify_)
            notify_multiplier_ = config_.read<uint32_t>(at + VIRTIO_PCI_NOTIFY_CAP_MULT);
    }

    void write_address(uint32_t at, uint64_t iova) {
        common_->write<uint32_t>(at, uint32_t(iova));
        common_->write<uint32_t>(at + 4, uint32_t(iova >> 32));
    }
    void set_status(uint8_t status) { common_->write<uint8_t>(VIRTIO_PCI_COMMON_STATUS, status); }
    uint8_t status() const { return common_->read<uint8_t>(VIRTIO_PCI_COMMON_STATUS); }

    int fd_;
    Region config_;
    std::optional<Window> common_, notify_, device_;
    uint32_t notify_multiplier_ = 0;
    uint32_t notify_at_[2] = {};
};

}  // namespace guest
