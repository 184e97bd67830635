// SPDX-License-Identifier: BSD-3-Clause
/// VFIO type 1, for programs that run inside the Linux guest: one container, one PCI function.
///
/// For tests: what cannot go on ends the program with a message.
#pragma once

#include <fcntl.h>
#include <linux/vfio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

namespace guest {

/// What the run reads from the guest's console.
[[gnu::format(printf, 1, 2)]] inline void say(const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    std::printf("@viommu vfio ");
    std::vprintf(format, arguments);
    std::printf("\n");
    std::fflush(stdout);
    va_end(arguments);
}

[[noreturn, gnu::format(printf, 1, 2)]] inline void die(const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    std::fprintf(stderr, "vfio-net: ");
    std::vfprintf(stderr, format, arguments);
    std::fprintf(stderr, "\n");
    va_end(arguments);
    std::exit(1);
}

inline void require(bool fine, const char* what) {
    if (!fine) die("%s", what);
}

/// `result` of a system call, which did not fail.
template <class T>
T sys(T result, const char* what) {
    if (result < 0) die("%s: %s", what, std::strerror(errno));
    return result;
}

/// Memory of this process that a device may be shown.
class Memory {
  public:
    explicit Memory(size_t bytes) : bytes_(bytes) {
        void* at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
        if (at == MAP_FAILED) die("mmap: %s", std::strerror(errno));
        at_ = static_cast<uint8_t*>(at);
    }
    ~Memory() { munmap(at_, bytes_); }
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;

    uint8_t* data() const { return at_; }
    size_t size() const { return bytes_; }
    void fill(uint8_t value) { std::memset(at_, value, bytes_); }
    bool is_filled_with(uint8_t value) const {
        for (size_t i = 0; i < bytes_; ++i)
            if (at_[i] != value) return false;
        return true;
    }

  private:
    uint8_t* at_;
    size_t bytes_;
};

/// The address space that the device gets: an IOMMU domain.
class Container {
  public:
    /// With the IOMMU group of the function `bdf`, which is bound to vfio-pci.
    explicit Container(const std::string& bdf)
        : fd_(sys(open("/dev/vfio/vfio", O_RDWR), "/dev/vfio/vfio")) {
        const auto group =
            std::filesystem::read_symlink("/sys/bus/pci/devices/" + bdf + "/iommu_group");
        const std::string path = "/dev/vfio/" + group.filename().string();
        group_ = sys(open(path.c_str(), O_RDWR), path.c_str());
        vfio_group_status status{.argsz = sizeof status, .flags = 0};
        sys(ioctl(group_, VFIO_GROUP_GET_STATUS, &status), "VFIO_GROUP_GET_STATUS");
        require(status.flags & VFIO_GROUP_FLAGS_VIABLE, "the group is not viable");
        sys(ioctl(group_, VFIO_GROUP_SET_CONTAINER, &fd_), "VFIO_GROUP_SET_CONTAINER");
        sys(ioctl(fd_, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU), "VFIO_SET_IOMMU");
    }
    ~Container() {
        close(group_);
        close(fd_);
    }
    Container(const Container&) = delete;
    Container& operator=(const Container&) = delete;

    void map(const Memory& memory, uint64_t iova) {
        vfio_iommu_type1_dma_map map{};
        map.argsz = sizeof map;
        map.flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE;
        map.vaddr = reinterpret_cast<uintptr_t>(memory.data());
        map.iova = iova;
        map.size = memory.size();
        sys(ioctl(fd_, VFIO_IOMMU_MAP_DMA, &map), "VFIO_IOMMU_MAP_DMA");
    }

    /// On return the device cannot reach `memory` through `iova` any more.
    void unmap(const Memory& memory, uint64_t iova) {
        vfio_iommu_type1_dma_unmap unmap{};
        unmap.argsz = sizeof unmap;
        unmap.iova = iova;
        unmap.size = memory.size();
        sys(ioctl(fd_, VFIO_IOMMU_UNMAP_DMA, &unmap), "VFIO_IOMMU_UNMAP_DMA");
        require(unmap.size == memory.size(), "less was unmapped than had been mapped");
    }

    struct Range {
        uint64_t first, last;
    };
    /// What may be mapped: the IOMMU's input range without its reserved regions.
    std::vector<Range> iova_ranges() const {
        vfio_iommu_type1_info info{};
        info.argsz = sizeof info;
        sys(ioctl(fd_, VFIO_IOMMU_GET_INFO, &info), "VFIO_IOMMU_GET_INFO");
        std::vector<uint8_t> bytes(info.argsz);
        std::memcpy(bytes.data(), &info, sizeof info);
        sys(ioctl(fd_, VFIO_IOMMU_GET_INFO, bytes.data()), "VFIO_IOMMU_GET_INFO");
        std::memcpy(&info, bytes.data(), sizeof info);
        std::vector<Range> out;
        uint32_t next = info.flags & VFIO_IOMMU_INFO_CAPS ? info.cap_offset : 0;
        while (next != 0 && next + sizeof(vfio_info_cap_header) <= bytes.size()) {
            vfio_info_cap_header header;
            std::memcpy(&header, &bytes[next], sizeof header);
            if (header.id == VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE) {
                const auto* cap =
                    reinterpret_cast<const vfio_iommu_type1_info_cap_iova_range*>(&bytes[next]);
                for (uint32_t i = 0; i < cap->nr_iovas; ++i)
                    out.push_back({cap->iova_ranges[i].start, cap->iova_ranges[i].end});
            }
            next = header.next;
        }
        return out;
    }

    int device(const std::string& bdf) const {
        return sys(ioctl(group_, VFIO_GROUP_GET_DEVICE_FD, bdf.c_str()),
                   "VFIO_GROUP_GET_DEVICE_FD");
    }

  private:
    int fd_;
    int group_ = -1;
};

/// A part of the PCI function: its configuration space, or a BAR.
class Region {
  public:
    Region() = default;
    Region(int device, uint32_t index) : device_(device) {
        vfio_region_info info{};
        info.argsz = sizeof info;
        info.index = index;
        sys(ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &info), "VFIO_DEVICE_GET_REGION_INFO");
        offset_ = info.offset;
        size_ = info.size;
    }

    template <class T>
    T read(uint64_t at) const {
        T value{};
        require(at + sizeof value <= size_, "read beyond a region");
        require(pread(device_, &value, sizeof value, off_t(offset_ + at)) == ssize_t(sizeof value),
                "cannot read a region");
        return value;
    }
    template <class T>
    void write(uint64_t at, T value) const {
        require(at + sizeof value <= size_, "write beyond a region");
        require(pwrite(device_, &value, sizeof value, off_t(offset_ + at)) == ssize_t(sizeof value),
                "cannot write a region");
    }

  private:
    int device_ = -1;
    uint64_t offset_ = 0, size_ = 0;
};

}  // namespace guest
