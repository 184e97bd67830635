// SPDX-License-Identifier: BSD-3-Clause
// Wires on real lcores: 1, 2 and 3.
#include "wire.hh"

#include <sched.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>

#include "ethdev.hh"
#include "pool.hh"

namespace viommu::app {
namespace {

using std::chrono::steady_clock;

bool eventually(const std::function<bool()>& condition) {
    const auto deadline = steady_clock::now() + std::chrono::seconds(20);
    while (!condition()) {
        if (steady_clock::now() > deadline) return false;
        sched_yield();
    }
    return true;
}

/// Where a packet came from, and which one it was of those.
struct Stamp {
    uint32_t pair, number;
};

/// Packets that lcores hand to one another. A mempool does that too, but by barriers that TSan
/// does not know.
class Depot {
  public:
    explicit Depot(rte_mempool& pool) : pool_(pool), free_(512) {
        if (rte_pktmbuf_alloc_bulk(&pool, free_.data(), unsigned(free_.size())) != 0) abort();
    }
    ~Depot() { rte_pktmbuf_free_bulk(free_.data(), unsigned(free_.size())); }
    rte_mbuf* get() {
        const std::lock_guard lock(mutex_);
        if (free_.empty()) return rte_pktmbuf_alloc(&pool_);  // what was dropped is there
        rte_mbuf* m = free_.back();
        free_.pop_back();
        rte_pktmbuf_reset(m);
        return m;
    }
    void put(rte_mbuf* m) {
        const std::lock_guard lock(mutex_);
        free_.push_back(m);
    }

  private:
    rte_mempool& pool_;
    std::mutex mutex_;
    std::vector<rte_mbuf*> free_;
};

/// An end whose pairs give `quota` packets each and whose queues check what they get: that nobody
/// else is there, and that packets of one pair come in order.
class Checker final : public PacketEnd {
  public:
    Checker(uint16_t pairs, uint32_t quota, Depot& depot)
        : quota_(quota), depot_(depot), given_(pairs), queues_(pairs) {}

    uint16_t pairs() const noexcept override { return uint16_t(given_.size()); }
    unsigned receive(uint16_t pair, std::span<rte_mbuf*> out) noexcept override {
        std::atomic<uint32_t>& given = given_[pair].n;
        unsigned n = 0;
        for (; n < out.size() && given.load() < quota_; n++) {
            rte_mbuf* m = depot_.get();
            if (m == nullptr) break;
            auto* stamp = reinterpret_cast<Stamp*>(rte_pktmbuf_append(m, 64));
            *stamp = {.pair = pair, .number = given.fetch_add(1)};
            out[n] = m;
        }
        return n;
    }
    uint16_t send_queues() const noexcept override { return pairs(); }
    /// All over the queues, so that lcores meet.
    void steer(std::span<rte_mbuf* const> packets, uint16_t,
               std::span<uint16_t> queues) const noexcept override {
        for (size_t i = 0; i < packets.size(); i++)
            queues[i] = uint16_t(stamp(packets[i]).number / 8 % pairs());
    }
    unsigned send(uint16_t index, std::span<rte_mbuf*> in) noexcept override {
        if (dead) return 0;
        Queue& queue = queues_[index];
        if (queue.taken.test_and_set()) collisions.fetch_add(1);
        for (rte_mbuf* m : in) {
            const Stamp s = stamp(m);
            if (queue.next[s.pair] > s.number) disorder.fetch_add(1);
            queue.next[s.pair] = s.number + 1;
            depot_.put(m);
        }
        arrived.fetch_add(in.size());
        queue.taken.clear();
        return unsigned(in.size());
    }

    uint32_t given(uint16_t pair) const { return given_[pair].n.load(); }
    std::atomic<uint64_t> arrived{0}, collisions{0}, disorder{0};
    std::atomic<bool> dead{false};

  private:
    static Stamp stamp(const rte_mbuf* m) { return *rte_pktmbuf_mtod(m, const Stamp*); }
    struct Given {
        std::atomic<uint32_t> n{0};
    };
    struct Queue {
        std::atomic_flag taken{};
        std::array<uint32_t, 64> next{};  ///< number that comes next, by pair
    };
    const uint32_t quota_;
    Depot& depot_;
    std::vector<Given> given_;
    std::vector<Queue> queues_;
};

class WireTest : public WithPool {
  protected:
    void SetUp() override {
        WithPool::SetUp();
        depot_.emplace(*pool_);
    }
    void TearDown() override {
        depot_.reset();
        WithPool::TearDown();
    }
    std::optional<Depot> depot_;
    Lcores lcores_{{1, 2, 3}, poll::Policy::kAdaptive};
};

TEST_F(WireTest, lcores_that_meet_lose_nothing_and_keep_the_order) {
    constexpr uint32_t kQuota = 5000;
    Checker a(4, kQuota, *depot_), b(3, kQuota, *depot_);
    Wire wire({a, {1, 2}}, {b, {2, 3}}, lcores_);
    ASSERT_TRUE(wire.a_to_b().guarded());
    wire.resume();
    ASSERT_TRUE(lcores_.launch().has_value());
    EXPECT_TRUE(eventually([&] { return b.arrived == 4 * kQuota && a.arrived == 3 * kQuota; }))
        << b.arrived << " and " << a.arrived;
    wire.pause();
    for (const Checker* end : {&a, &b}) {
        EXPECT_EQ(end->collisions, 0u);
        EXPECT_EQ(end->disorder, 0u);
    }
    uint64_t packets = 0, dropped = 0;
    for (uint16_t pair = 0; pair < 4; pair++) {
        packets += wire.a_to_b().counters(pair).packets.was();
        dropped += wire.a_to_b().counters(pair).dropped_full.was();
    }
    EXPECT_EQ(packets, 4 * kQuota);
    EXPECT_EQ(dropped, 0u);
    lcores_.stop();
}

TEST_F(WireTest, lcore_for_each_end_needs_no_guards) {
    Checker a(1, 1000, *depot_), b(1, 1000, *depot_);
    Wire wire({a, {1}}, {b, {2}}, lcores_);
    EXPECT_FALSE(wire.a_to_b().guarded());
    EXPECT_FALSE(wire.b_to_a().guarded());
    wire.resume();
    ASSERT_TRUE(lcores_.launch().has_value());
    EXPECT_TRUE(eventually([&] { return b.arrived == 1000 && a.arrived == 1000; }));
    wire.pause();
    lcores_.stop();
}

TEST_F(WireTest, nobody_is_at_an_end_while_it_is_paused) {
    Checker a(4, ~0u, *depot_), b(4, 0, *depot_);
    Wire wire({a, {1, 2, 3}}, {b, {1, 2, 3}}, lcores_);
    ASSERT_TRUE(lcores_.launch().has_value());
    for (int i = 0; i < 5; i++) {
        const uint64_t before = b.arrived;
        wire.resume();
        ASSERT_TRUE(eventually([&] { return b.arrived > before; }));
        wire.pause();
        const uint64_t paused = b.arrived;
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
        EXPECT_EQ(b.arrived, paused);
    }
    lcores_.stop();
}

/// Whether a peer takes packets or not, its sender has one burst in each round of the lcore, and
/// the neighbour the same.
TEST_F(WireTest, flood_to_a_dead_peer_leaves_a_neighbour_its_full_share) {
    Checker flood(1, ~0u, *depot_), dead(1, 0, *depot_);
    Checker source(1, ~0u, *depot_), sink(1, 0, *depot_);
    dead.dead = true;
    Wire to_the_dead({flood, {1}}, {dead, {1}}, lcores_);
    Wire live({source, {1}}, {sink, {1}}, lcores_);
    to_the_dead.resume();
    live.resume();
    ASSERT_TRUE(lcores_.launch().has_value());
    EXPECT_TRUE(eventually([&] { return sink.arrived >= 100 * Patch::kBurst; }));
    // In this order: what arrives between the two looks counts for the neighbour.
    const uint64_t flooded = to_the_dead.a_to_b().counters(0).dropped_full.was();
    const uint64_t arrived = live.a_to_b().counters(0).packets.was();
    live.pause();
    to_the_dead.pause();
    lcores_.stop();
    EXPECT_GE(arrived + 2 * Patch::kBurst, flooded) << "the neighbour had fewer bursts";
    const auto& lost = to_the_dead.a_to_b().counters(0);
    EXPECT_EQ(lost.packets.was(), 0u);
    EXPECT_EQ(lost.dropped_full.was(), flood.given(0)) << "every drop is counted";
    EXPECT_EQ(live.a_to_b().counters(0).dropped_full.was(), 0u);
}

TEST_F(WireTest, packets_loop_through_all_queues_of_a_device) {
#ifdef __SANITIZE_THREAD__
    GTEST_SKIP() << "the device's rings hand packets over by barriers that TSan does not know";
#endif
    constexpr uint32_t kQuota = 5000;
    const Peer peer{Peer::Kind::kVdev, "net_ring7", {"vm.toml", 7, "peer"}};
    const auto ethdev = Ethdev::open(peer, {.pairs = 4, .lcores = 3}, *pool_);
    ASSERT_TRUE(ethdev.has_value()) << ethdev.error().message;
    ASSERT_EQ((*ethdev)->pairs(), 4);
    Checker a(4, kQuota, *depot_);
    Wire wire({a, {1, 2, 3}}, {**ethdev, {1, 2, 3}}, lcores_);
    EXPECT_FALSE(wire.a_to_b().guarded()) << "each pair has a queue of its own";
    EXPECT_TRUE(wire.b_to_a().guarded());
    wire.resume();
    ASSERT_TRUE(lcores_.launch().has_value());
    const auto dropped = [&] {
        uint64_t n = 0;
        for (uint16_t pair = 0; pair < 4; pair++)
            n += wire.a_to_b().counters(pair).dropped_full.was();
        return n;
    };
    EXPECT_TRUE(eventually([&] { return a.arrived + dropped() == 4 * kQuota; }))
        << a.arrived << " and " << dropped();
    wire.pause();
    lcores_.stop();
    EXPECT_EQ(a.collisions, 0u);
    EXPECT_EQ(a.disorder, 0u);
    for (uint16_t queue = 0; queue < 4; queue++)
        EXPECT_GT(wire.b_to_a().counters(queue).packets.was(), 0u) << "queue " << queue;
}

}  // namespace
}  // namespace viommu::app
