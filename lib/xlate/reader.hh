// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <algorithm>
#include <optional>
#include <span>

#include "fault.hh"
#include "viommu_table.hh"

namespace viommu::xlate {

/// The outcome of one translation: `bytes` bytes from the asked address on lie at `gpa`, or a fault
/// (bytes == 0). Two registers: the rights are in the top bits of the length.
class Translation {
  public:
    static constexpr unsigned kBytesBits = 61;
    /// The longest run that one translation tells.
    static constexpr uint64_t kMaxBytes = (uint64_t{1} << kBytesBits) - 1;

    /// A fault of unknown reason: what an array holds before it is filled in.
    constexpr Translation() = default;

    static constexpr Translation to(Gpa gpa, uint64_t bytes, Access rights = Access::kReadWrite) {
        return {gpa.value, std::min(bytes, kMaxBytes) | uint64_t(rights) << kBytesBits};
    }
    static constexpr Translation faulted(FaultReason why) { return {uint64_t(why), 0}; }

    explicit constexpr operator bool() const { return bytes() != 0; }
    constexpr Gpa gpa() const { return {word_}; }
    /// Contiguous in guest-physical memory, at most what was asked for and kMaxBytes.
    constexpr uint64_t bytes() const { return bytes_ & kMaxBytes; }
    /// What all of the run allows, asked for or not. With kMmio the guest mapped device registers,
    /// e.g. an MSI doorbell: a run is all such or all memory. In bypass mode: kReadWrite.
    constexpr Access rights() const { return Access(bytes_ >> kBytesBits); }
    constexpr bool is_mmio() const { return allows(rights(), Access::kMmio); }
    /// Only when there is no translation.
    constexpr FaultReason fault() const { return FaultReason(word_); }

  private:
    constexpr Translation(uint64_t word, uint64_t bytes) : word_(word), bytes_(bytes) {}
    uint64_t word_ = uint64_t(FaultReason::kUnknown);
    uint64_t bytes_ = 0;
};

/// One question of many, see Reader::translate_burst().
struct Lookup {
    Iova iova;
    uint64_t bytes;
};

/// What one MAP request mapped.
struct Mapping {
    IovaRange range;
    Gpa gpa;
    Access rights;  ///< kMmio: device registers

    constexpr bool operator==(const Mapping&) const = default;
};

/// One thread's view of one endpoint. See viommu_xlate.hh for the contract.
/// Threads: created and destroyed by a control thread while no section is open; everything else by
/// the one thread that owns it.
class Reader {
  public:
    /// In the writer's process.
    /// Errors: the endpoint is not in `table`; the table has no reader slot left.
    static Result<Reader> create(table::Table& table, FaultSink& faults, EndpointId endpoint);
    /// Anywhere. What `view` shows stays mapped, and `faults` alive, as long as the Reader.
    /// Errors: the endpoint is not in that table.
    static Result<Reader> create(const table::View& view, table::Section section,
                                 FaultSink& faults, EndpointId endpoint);
    Reader(Reader&& other) noexcept;
    Reader& operator=(Reader&&) = delete;
    ~Reader() = default;

    void enter() noexcept {
        section_.enter();
        // The generation first: what is remembered with a new one must have been found after it.
        generation_ = view_.header->generation.load(std::memory_order_acquire);  // R3 pairs W3
        route_ = endpoint_->route.load(std::memory_order_acquire);               // R2 pairs W2
        cached_tag_ = kNoTag;
    }
    void leave() noexcept { section_.leave(); }

    /// As of enter(). While it is the same as in an earlier section of this Reader, translations
    /// made in that section are still right; when it differs, make them again.
    uint64_t generation() const noexcept { return generation_; }

    /// The longest run, at most `bytes`, that begins at `iova`, is contiguous in guest-physical
    /// memory and allows `need` throughout. It crosses mappings that continue one another, but not
    /// from memory to device registers or back.
    ///
    /// Threads: the owner, inside a section
    /// Errors:  a Translation that is false when the first byte cannot be accessed, or `bytes` is 0
    ///          (then fault() means nothing)
    Translation translate(Iova iova, uint64_t bytes, Access need) noexcept;

    /// translate() of each of `in`, with the same answers in the same order. Returns how many of them
    /// are no translation.
    ///
    /// Units:   out.size() >= in.size(); what is beyond in.size() is not touched
    /// Threads: the owner, inside a section
    unsigned translate_burst(std::span<const Lookup> in, std::span<Translation> out,
                             Access need) noexcept;

    /// The first mapping that lies at `from` or above, or around it; nothing when there is none, or
    /// the endpoint is attached to no domain that has mappings. To go through all of them, go on at
    /// the end of each, plus 1, in the same section. For mirrors of a domain, and to find doorbells;
    /// not for packets.
    ///
    /// Threads: the owner, inside a section. While the writer maps and unmaps, a mapping that is
    ///          just coming or going may be found in part.
    std::optional<Mapping> next_mapping(Iova from) const noexcept;

    /// Tell the guest about a fault, by its event queue. Counted as lost when the sink takes no more.
    void report(Iova iova, Access access, FaultReason why) noexcept {
        if (!faults_->push({iova, id_, why, access})) lost_faults_.add();
    }

    EndpointId endpoint() const noexcept { return id_; }
    uint64_t lost_faults() const noexcept { return lost_faults_.was(); }

  private:
    static constexpr uint64_t kNoTag = ~uint64_t{0};

    Reader(const table::View&, table::Section, FaultSink&, EndpointId, const table::EndpointSlot*);
    Translation extend(Iova iova, uint64_t bytes, Access need, Gpa gpa, uint64_t have,
                       Access rights) noexcept;
    Translation bypassed(Iova iova, uint64_t bytes) const noexcept;
    /// The leaf entry that covers `iova` and its size as a power of two, or 0.
    uint64_t find(uint64_t iova, unsigned& size_lg2) noexcept;

    table::Section section_;
    const table::EndpointSlot* endpoint_;
    table::View view_;
    FaultSink* faults_;
    EndpointId id_;
    uint64_t route_ = 0;
    uint64_t generation_ = 0;
    // The last level-0 node walked to, valid in this section only.
    uint64_t cached_tag_ = kNoTag;
    const table::Node* cached_node_ = nullptr;
    Counter lost_faults_;
};

inline uint64_t Reader::find(uint64_t iova, unsigned& size_lg2) noexcept {
    const unsigned granule = view_.granule_lg2;
    const uint64_t tag = iova >> (granule + table::kNodeBits);
    if (tag == cached_tag_) [[likely]] {
        size_lg2 = granule;
        return cached_node_->entries[(iova >> granule) % table::kNodeEntries].load(
            std::memory_order_acquire);  // R1 pairs W1
    }
    if (iova > view_.input_last) return 0;
    const table::Node* node = view_.node(table::route::root(route_));
    for (unsigned level = view_.levels; level-- > 0;) {
        const unsigned shift = granule + table::kNodeBits * level;
        if (level == 0) {
            cached_tag_ = tag;
            cached_node_ = node;
        }
        const uint64_t e = node->entries[(iova >> shift) % table::kNodeEntries].load(
            std::memory_order_acquire);  // R1 pairs W1
        if (!table::entry::is_table(e)) {
            size_lg2 = shift;
            return e;
        }
        node = view_.node(table::entry::address(e));
    }
    return 0;
}

inline Translation Reader::translate(Iova iova, uint64_t bytes, Access need) noexcept {
    if (table::route::kind(route_) != table::route::kTree) [[unlikely]] {
        if (table::route::kind(route_) != table::route::kBypass)
            return Translation::faulted(FaultReason::kDomain);
        return bypassed(iova, bytes);
    }
    unsigned size_lg2;
    const uint64_t e = find(iova.value, size_lg2);
    if (e == 0 || !allows(table::entry::rights(e), need)) [[unlikely]]
        return Translation::faulted(FaultReason::kMapping);
    const uint64_t offset = iova.value & ((uint64_t{1} << size_lg2) - 1);
    const uint64_t have = (uint64_t{1} << size_lg2) - offset;
    const Gpa gpa{table::entry::address(e) + offset};
    const Access rights = table::entry::rights(e);
    if (bytes <= have) [[likely]]
        return Translation::to(gpa, bytes, rights);
    return extend(iova, bytes, need, gpa, have, rights);
}

}  // namespace viommu::xlate
