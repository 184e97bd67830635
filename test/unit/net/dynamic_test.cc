// SPDX-License-Identifier: BSD-3-Clause
/// A guest that maps, sends, unmaps and reuses its memory, while another thread carries packets.
#include <array>
#include <atomic>
#include <chrono>
#include <thread>

#include "net_rig.hh"

namespace viommu::net::test {
namespace {

constexpr auto kPoison = std::byte{0xd5};
constexpr uint32_t kFrame = 700;
constexpr uint32_t kBuffer = kHeader + kFrame;
constexpr unsigned kSlots = 8;

/// The lcore: what the guest sends goes back to it.
class Carrier {
  public:
    explicit Carrier(NetPort& port) : port_(port), thread_([this] { run(); }) {}
    ~Carrier() { stop(); }
    void stop() {
        stop_ = true;
        if (thread_.joinable()) thread_.join();
    }

  private:
    void run() {
        std::array<rte_mbuf*, NetPort::kBurst> held;
        unsigned n = 0;
        while (!stop_.load(std::memory_order_relaxed)) {
            if (n == 0) n = port_.from_guest(0, held);
            const unsigned taken = n == 0 ? 0 : port_.to_guest(0, std::span(held).first(n));
            std::move(held.begin() + taken, held.begin() + n, held.begin());
            n -= taken;
            if (taken == 0) std::this_thread::yield();
        }
        for (unsigned i = 0; i < n; ++i) rte_pktmbuf_free(held[i]);
    }

    NetPort& port_;
    std::atomic<bool> stop_{false};
    std::thread thread_;
};

/// A mapping made for one packet.
struct Slot {
    uint64_t iova = 0;
    std::array<size_t, 2> pages{};
};

struct Guest {
    explicit Guest(NetRig& rig, unsigned seed) : rig(rig), random(seed) {}

    Slot map(uint64_t iova, Access rights) {
        Slot s{iova + kPage - 1 - random() % kBuffer, {rig.take_page(), rig.take_page()}};
        for (size_t i = 0; i < 2; ++i) {
            check_poison(s.pages[i]);
            rig.map_page(iova + i * kPage, s.pages[i], rights);
        }
        return s;
    }
    /// From here on the page is the guest's own again, and nobody else's.
    void unmap(const Slot& s) {
        const uint64_t first = s.iova / kPage * kPage;
        for (size_t i = 0; i < 2; ++i) rig.unmap_page(first + i * kPage);
        for (const size_t page : s.pages) {
            std::memset(rig.space.host(page), int(kPoison), kPage);
            poisoned.push_back(page);
        }
    }
    void check_poison(size_t page) {
        const auto it = std::find(poisoned.begin(), poisoned.end(), page);
        if (it == poisoned.end()) return;
        poisoned.erase(it);
        for (size_t i = 0; i < kPage; ++i)
            ASSERT_EQ(rig.space.host(page)[i], kPoison) << "written after its UNMAP was answered";
    }
    /// Check and give back what has lain unmapped for a while.
    void recycle(size_t keep) {
        while (poisoned.size() > keep) {
            const size_t page = poisoned.front();
            check_poison(page);
            rig.give_page(page);
        }
    }

    NetRig& rig;
    std::mt19937 random;
    std::vector<size_t> poisoned;  // unmapped, not given back, oldest first
};

template <class Ready>
bool wait_for(Ready&& ready) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (!ready()) {
        if (std::chrono::steady_clock::now() > end) return false;
        std::this_thread::yield();
    }
    return true;
}

/// Send kSlots packets through mappings of their own, and take them back.
void exchange(Guest& g, unsigned round) {
    NetRig& rig = g.rig;
    std::array<Slot, kSlots> tx, rx;
    for (unsigned i = 0; i < kSlots; ++i) {
        rx[i] = g.map(0x700000000 + i * 0x10000, Access::kWrite);
        rig.rx->chain({{rx[i].iova, kBuffer, virtq::test::kWrite, 0}});
        tx[i] = g.map(0x800000000 + i * 0x10000, Access::kRead);
        rig.fill(tx[i].iova, frame(kFrame, round * kSlots + i));
        rig.tx->chain({{tx[i].iova, kBuffer, 0, 0}});
    }
    rig.rx->publish();
    rig.tx->publish();
    for (unsigned i = 0; i < kSlots; ++i) {
        std::optional<Driver::Used> used;
        ASSERT_TRUE(wait_for([&] { return (used = rig.tx->pop()).has_value(); })) << round;
        g.unmap(tx[i]);
        ASSERT_TRUE(wait_for([&] { return (used = rig.rx->pop()).has_value(); })) << round;
        ASSERT_EQ(used->len, kBuffer);
        ASSERT_EQ(rig.read(rx[i].iova + kHeader, kFrame), frame(kFrame, round * kSlots + i));
        g.unmap(rx[i]);
    }
    g.recycle(64);
}

TEST(Dynamic, memory_is_the_guests_own_as_soon_as_its_unmap_is_answered) {
    const unsigned seed = choose_seed();
    SCOPED_TRACE(fmt::format("VIOMMU_SEED={}", seed));
    Pool pool(255);
    NetRig rig(pool, {.ring_skew = true, .seed = seed});
    Guest guest(rig, seed);
    {
        Carrier carrier(*rig.port);
        for (unsigned round = 0; round < 150; ++round) {
            exchange(guest, round);
            if (HasFatalFailure()) return;
        }
    }
    guest.recycle(0);
    EXPECT_EQ(rig.from().packets.was(), 150u * kSlots);
    EXPECT_TRUE(rig.take_faults().empty());
}

/// Pages of both rings move about while packets flow. The old page is the guest's own.
TEST(Dynamic, rings_that_move_are_followed_and_never_touched_where_they_were) {
    const unsigned seed = choose_seed();
    SCOPED_TRACE(fmt::format("VIOMMU_SEED={}", seed));
    Pool pool(255);
    NetRig rig(pool, {.size = 256, .ring_skew = true, .seed = seed});
    Guest guest(rig, seed);
    {
        Carrier carrier(*rig.port);
        for (unsigned round = 0; round < 100; ++round) {
            exchange(guest, round);
            if (HasFatalFailure()) return;
            const virtq::Vring& v = rig.vrings[guest.random() % 2];
            const uint64_t parts[] = {v.desc, v.avail, v.used};
            const uint64_t iova =
                parts[guest.random() % 3] / kPage * kPage + guest.random() % 2 * kPage;
            if (rig.space.host_at(iova) == nullptr) continue;
            const size_t old = rig.page_of(iova), fresh = rig.take_page();
            guest.check_poison(fresh);
            rig.unmap_page(iova);
            std::memcpy(rig.space.host(fresh), rig.space.host(old), kPage);
            std::memset(rig.space.host(old), int(kPoison), kPage);
            guest.poisoned.push_back(old);
            if (guest.random() % 2) std::this_thread::sleep_for(std::chrono::milliseconds(1));
            rig.map_page(iova, fresh);
        }
    }
    guest.recycle(0);
    EXPECT_EQ(rig.from().packets.was(), 100u * kSlots);
    EXPECT_EQ(rig.to().packets.was(), 100u * kSlots);
    EXPECT_EQ(rig.from().drop_fault.was() + rig.to().drop_fault.was(), 0u);
}

}  // namespace
}  // namespace viommu::net::test
