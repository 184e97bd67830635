// SPDX-License-Identifier: BSD-3-Clause
/// An address space that a hostile guest shares with the device under test: memory that changes
/// while it is read, at moments that the fuzz input chooses.
#pragma once

#include <map>
#include <memory>
#include <new>

#include "input.hh"
#include "viommu_virtq.hh"

namespace viommu::fuzz {

class HostileSpace {
  public:
    static constexpr uint64_t kPage = 4096;

    /// Make [addr, addr + bytes) accessible. `scattered`: each page is memory of its own, so that
    /// nothing continues anything; otherwise the whole is one piece. Each piece is an allocation of
    /// its own size: an access beyond is ASan's.
    void add(uint64_t addr, uint64_t bytes, bool scattered, Access rights = Access::kReadWrite) {
        for (uint64_t at = addr, left = bytes; left > 0;) {
            const uint64_t n = scattered ? std::min(left, kPage - at % kPage) : left;
            pieces_.emplace(at, Piece(at, n, rights));
            at += n;
            left -= n;
        }
    }
    /// Take the pieces that touch [addr, addr + bytes) away, or give them back.
    void allow(uint64_t addr, uint64_t bytes, Access rights) {
        for (auto& [at, piece] : pieces_)
            if (at < addr + bytes && addr < at + piece.bytes) piece.rights = rights;
    }

    /// virtq::AddressSpace.
    std::span<std::byte> resolve(uint64_t addr, uint64_t bytes, Access need) noexcept {
        ++resolves;
        asked += bytes;
        if (!changes.empty()) {  // the guest is quick
            const Change c = changes.back();
            changes.pop_back();
            poke(c.addr, c.value);
            ++changed;
        }
        return find(addr, bytes, need);
    }

    // --- the guest's side ------------------------------------------------------------------------

    /// Store without looking at rights; what is nowhere is lost.
    template <class T>
    void put(uint64_t addr, const T& value) {
        std::byte bytes[sizeof value];
        std::memcpy(bytes, &value, sizeof value);
        for (size_t i = 0; i < sizeof value; ++i)
            if (Piece* p = piece_at(addr + i)) p->at(addr + i) = p->seen_at(addr + i) = bytes[i];
    }
    void poke(uint64_t addr, uint16_t value) { put(addr, value); }
    /// For another thread to write, past everything that verify() knows. Not scattered in two.
    volatile uint16_t* word(uint64_t addr) {
        Piece* p = piece_at(addr);
        require(p != nullptr && piece_at(addr + 1) == p, "{:#x} is not there", addr);
        return reinterpret_cast<volatile uint16_t*>(&p->at(addr));
    }
    /// Nothing where some byte is nowhere, or not accessible.
    template <class T>
    std::optional<T> get(uint64_t addr, Access need = Access::kNone) {
        std::byte bytes[sizeof(T)];
        for (size_t i = 0; i < sizeof(T); ++i) {
            const auto here = find(addr + i, 1, need);
            if (here.empty()) return std::nullopt;
            bytes[i] = here[0];
        }
        T value;
        std::memcpy(&value, bytes, sizeof value);
        return value;
    }
    bool accessible(uint64_t addr, Access need) { return !find(addr, 1, need).empty(); }

    // --- what the device wrote -------------------------------------------------------------------

    /// The device is to have written this; see verify().
    template <class T>
    void expect(uint64_t addr, const T& value) {
        std::byte bytes[sizeof value];
        std::memcpy(bytes, &value, sizeof value);
        for (size_t i = 0; i < sizeof value; ++i)
            if (Piece* p = piece_at(addr + i)) p->seen_at(addr + i) = bytes[i];
    }
    /// Whatever is there is right.
    template <class T>
    void accept(uint64_t addr) {
        for (size_t i = 0; i < sizeof(T); ++i)
            if (Piece* p = piece_at(addr + i)) p->seen_at(addr + i) = p->at(addr + i);
    }
    void accept_all() {
        for (auto& [at, p] : pieces_) std::memcpy(p.seen.get(), p.memory.get(), p.skew + p.bytes);
    }
    /// All memory is what the guest put and what was expected, byte by byte.
    void verify(const char* after) {
        for (auto& [at, p] : pieces_) {
            if (std::memcmp(p.begin(), p.seen.get() + p.skew, p.bytes) == 0) continue;
            uint64_t i = 0;
            while (p.begin()[i] == p.seen[p.skew + i]) ++i;
            found("after {}: {:#x} holds {:#x}, not {:#x}", after, at + i, int(p.begin()[i]),
                  int(p.seen[p.skew + i]));
        }
    }

    struct Change {
        uint64_t addr;
        uint16_t value;
    };
    std::vector<Change> changes;  ///< one is made at each resolve(), the last first
    unsigned changed = 0;         ///< how many have been made
    unsigned resolves = 0;
    uint64_t asked = 0;  ///< bytes, by resolve()

  private:
    struct Free {
        void operator()(std::byte* p) const { ::operator delete[](p, std::align_val_t{64}); }
    };
    using Memory = std::unique_ptr<std::byte[], Free>;
    static Memory allocate(size_t bytes) {
        auto* p = new (std::align_val_t{64}) std::byte[bytes];
        std::memset(p, 0, bytes);
        return Memory(p);
    }
    struct Piece {
        Piece(uint64_t at, uint64_t n, Access r)
            : first(at), bytes(n), skew(at % 16), rights(r), memory(allocate(skew + n)),
              seen(allocate(skew + n)) {}
        std::byte* begin() { return memory.get() + skew; }
        std::byte& at(uint64_t addr) { return begin()[addr - first]; }
        std::byte& seen_at(uint64_t addr) { return seen[skew + (addr - first)]; }
        uint64_t first, bytes, skew;
        Access rights;
        Memory memory, seen;
    };

    Piece* piece_at(uint64_t addr) {
        auto it = pieces_.upper_bound(addr);
        if (it == pieces_.begin()) return nullptr;
        Piece& p = (--it)->second;
        return addr - p.first < p.bytes ? &p : nullptr;
    }
    std::span<std::byte> find(uint64_t addr, uint64_t bytes, Access need) {
        Piece* p = piece_at(addr);
        if (p == nullptr || !allows(p->rights, need)) return {};
        return {&p->at(addr), size_t(std::min(bytes, p->bytes - (addr - p->first)))};
    }

    std::map<uint64_t, Piece> pieces_;
};
static_assert(virtq::AddressSpace<HostileSpace>);

}  // namespace viommu::fuzz
