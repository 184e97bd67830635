// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <algorithm>
#include <optional>
#include <span>

#include "fault.hh"
#include "viommu_table.hh"
#include "walker.hh"

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
    /// The same, `bytes` known to be at most kMaxBytes.
    static constexpr Translation within_leaf(Gpa gpa, uint64_t bytes, Access rights) {
        return {gpa.value, bytes | uint64_t(rights) << kBytesBits};
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
/// Cost:    it fills cache lines of its own: another thread's Reader may lie beside it
class alignas(64) Reader {
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
    /// Read as `other` does from here on, perhaps in another table; lost_faults() goes on.
    void become(Reader other) noexcept;

    void enter() noexcept {
        section_.enter();
        // The generation first: what is remembered with a new one must have been found after it.
        generation_ = view_.header->generation.load(std::memory_order_acquire);  // R3 pairs W3
        route_ = endpoint_->route.load(std::memory_order_acquire);               // R2 pairs W2
        walker_.begin(table::route::root(route_));
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

    /// translate() of each of `in`, with the same answers in the same order. Returns how many of
    /// them are no translation.
    ///
    /// Cost:    all walks are under way at once, which pays where they miss the caches; where they
    ///          hit, single calls are cheaper (doc/performance.md)
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

    /// Tell the guest about a fault, by its event queue. Counted as lost when the sink takes no
    /// more.
    void report(Iova iova, Access access, FaultReason why) noexcept {
        if (!faults_->push({iova, id_, why, access})) lost_faults_.add();
    }

    EndpointId endpoint() const noexcept { return id_; }
    uint64_t lost_faults() const noexcept { return lost_faults_.was(); }

  private:
    friend class Nearby;
    Reader(const table::View&, table::Section, FaultSink&, EndpointId, const table::EndpointSlot*);
    /// translate() where nothing near is remembered.
    Translation translate_afar(Iova iova, uint64_t bytes, Access need) noexcept;
    /// The answer, from the entry that covers `iova`.
    Translation answer(Iova iova, uint64_t bytes, Access need, uint64_t entry) noexcept;
    /// The same when the leaf allows the access but does not hold all of it.
    Translation extend(Iova iova, uint64_t bytes, Access need, uint64_t entry) noexcept;
    Translation bypassed(Iova iova, uint64_t bytes) noexcept;

    table::Section section_;
    const table::EndpointSlot* endpoint_;
    table::View view_;
    FaultSink* faults_;
    EndpointId id_;
    uint64_t route_ = 0;
    uint64_t generation_ = 0;
    Walker walker_{view_};  // what it remembers is valid in this section only
    // Where bypass mode, if that is the route, is known to be the identity. Regions do not change.
    uint64_t identity_first_ = 0, identity_bytes_ = 0;
    Counter lost_faults_;
};

/// Translations near the last one that a Reader made in this section, by a copy of what it
/// remembers: a loop keeps that in registers, while a Reader's members are loaded again after every
/// load that acquires. Not to be used beyond the section.
class Nearby {
  public:
    explicit Nearby(const Reader& reader) noexcept
        : walker_(reader.walker_), identity_first_(reader.identity_first_) {
        if (table::route::kind(reader.route_) == table::route::kBypass)
            identity_bytes_ = reader.identity_bytes_;
    }

    /// Where all of [iova, iova + bytes) lies, bytes > 0. False says no more than that
    /// Reader::translate() is to be asked; what it finds may make the next near, so make another
    /// Nearby then.
    [[gnu::always_inline]] bool find(Iova iova, uint64_t bytes, Access need,
                                     Gpa& gpa) const noexcept {
        uint64_t entry;
        if (!walker_.find_near(iova.value, entry)) [[unlikely]] {
            gpa = {iova.value};
            const uint64_t offset = iova.value - identity_first_;
            return offset < identity_bytes_ && bytes <= identity_bytes_ - offset;
        }
        const uint64_t last = iova.value + bytes - 1;
        if (!allows(table::entry::rights(entry), need) ||
            (iova.value ^ last) >> table::entry::size_lg2(entry) != 0) [[unlikely]]
            return false;
        gpa = table::entry::gpa(entry, iova.value);
        return true;
    }

  private:
    Walker walker_;
    uint64_t identity_first_, identity_bytes_ = 0;
};

inline Translation Reader::translate(Iova iova, uint64_t bytes, Access need) noexcept {
    // Something is remembered only in a section with a tree, so this is the only question.
    uint64_t entry;
    if (!walker_.find_near(iova.value, entry)) [[unlikely]] {
        walker_.approach(iova.value);
        if (!walker_.find_near(iova.value, entry)) return translate_afar(iova, bytes, need);
    }
    return answer(iova, bytes, need, entry);
}

inline Translation Reader::answer(Iova iova, uint64_t bytes, Access need,
                                  uint64_t entry) noexcept {
    if (!allows(table::entry::rights(entry), need) || (need == Access::kNone && entry == 0))
        [[unlikely]]
        return Translation::faulted(FaultReason::kMapping);
    // The last byte is in the same leaf. (0 bytes: either way there is no translation.)
    const uint64_t last = iova.value + bytes - 1;
    if ((iova.value ^ last) >> table::entry::size_lg2(entry) != 0) [[unlikely]]
        return extend(iova, bytes, need, entry);
    return Translation::within_leaf(table::entry::gpa(entry, iova.value), bytes,
                                    table::entry::rights(entry));
}

}  // namespace viommu::xlate
