// SPDX-License-Identifier: BSD-3-Clause
/// What is mapped, and what is asked.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace viommu::perf {

inline constexpr unsigned kPageLg2 = 12;
inline constexpr uint64_t kPage = uint64_t{1} << kPageLg2;
inline constexpr uint64_t kLargePage = uint64_t{2} << 20;
/// Addresses in one section: what a virtio-net port takes at a time.
inline constexpr size_t kBurst = 32;
/// Every question is about one small packet, somewhere inside a page.
inline constexpr uint64_t kAccessBytes = 64;
inline constexpr uint64_t kAccessOffset = 128;

enum class Pages : uint8_t { k4K, k2M, kMixed };
enum class Order : uint8_t { kSequential, kRandom };
const char* to_string(Pages pages);
const char* to_string(Order order);
/// 64, 4K, 1M.
std::string count_text(uint64_t count);
/// The inverse.
double parse_count(const std::string& text);

struct Mapped {
    uint64_t iova, bytes, gpa;
};

/// Mappings that lie side by side in IOVA space and apart in guest memory, and a long stream of
/// questions about them. kMixed: half of both are about mappings of 4K, half of 2M.
struct Workload {
    std::vector<Mapped> mapped;    ///< ascending
    std::vector<uint32_t> stream;  ///< addresses / kPage; a multiple of kBurst of them

    /// `hot`: questions are only about that many neighbours; 0: about all.
    static Workload make(uint64_t mappings, Pages pages, Order order, uint64_t hot = 0);

    static uint64_t iova(uint32_t question) {
        return (uint64_t{question} << kPageLg2) + kAccessOffset;
    }
};

}  // namespace viommu::perf
