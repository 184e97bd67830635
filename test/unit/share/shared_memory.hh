// SPDX-License-Identifier: BSD-3-Clause
/// What a test and the reader processes it starts share: the guest's memory and their counts.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <new>

#include "viommu_base.hh"

namespace viommu::share {

constexpr uint64_t kPoison = 0xdeadbeefdeadbeef;
constexpr uint64_t kSlots = 64;
constexpr unsigned kReaders = 64;

/// IOVA of a slot: spread over many nodes and levels, so that nodes come and go.
constexpr uint64_t iova_of(uint64_t slot) {
    return slot % 4 == 0 ? slot * 4096 : slot * ((uint64_t{1} << 21) + 4096);
}

struct SharedMemory {
    /// A guest page: one word, on a line of its own. Holds the slot it is mapped at, or kPoison.
    struct alignas(64) Page {
        std::atomic<uint64_t> word{kPoison};
    };
    struct alignas(64) Tally {
        std::atomic<uint64_t> starts{0}, sections{0}, hits{0}, faults{0}, violations{0};
        /// 1: the process stands where its mode wants it to.
        std::atomic<uint64_t> there{0};
    };
    Page pages[2 * kSlots];
    Tally tallies[kReaders];
};

/// Of the descriptor that children inherit.
class SharedMapping {
  public:
    SharedMapping() : fd_(memfd_create("test-memory", 0)) {
        if (ftruncate(fd_.get(), sizeof(SharedMemory)) == 0) map();
        if (memory != nullptr) new (memory) SharedMemory;
    }
    explicit SharedMapping(int inherited) : fd_(inherited) { map(); }
    ~SharedMapping() {
        if (memory != nullptr) munmap(memory, sizeof *memory);
    }
    int fd() const { return fd_.get(); }

    SharedMemory* memory = nullptr;

  private:
    void map() {
        void* at = mmap(nullptr, sizeof *memory, PROT_READ | PROT_WRITE, MAP_SHARED, fd_.get(), 0);
        if (at != MAP_FAILED) memory = static_cast<SharedMemory*>(at);
    }
    Fd fd_;
};

}  // namespace viommu::share
