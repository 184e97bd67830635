// SPDX-License-Identifier: BSD-3-Clause
/// Stress: a real second thread writes over the rings and an indirect table while the device side
/// walks them, both formats, with and without EVENT_IDX. What the fuzz targets do between two reads
/// of their choice, this does between any two. Nothing to expect but that it ends, that chains keep
/// their promises, and that the sanitizers are silent. VIOMMU_STRESS_SECONDS makes it longer.
#include <atomic>
#include <chrono>
#include <random>
#include <thread>

#include "ring_fuzz.hh"

namespace viommu::fuzz {
namespace {

constexpr uint32_t kSize = 16;

/// Not instrumented: a guest that writes what the device reads is the point.
__attribute__((no_sanitize("thread"), no_sanitize("address"), noinline)) void scribble(
    volatile uint16_t* at, uint16_t value) {
    *at = value;
}

struct Seen {
    uint64_t chains = 0, malformed = 0, faults = 0, broken = 0, empty = 0;

    bool enough() const { return chains >= 100 && malformed >= 100 && broken >= 10; }
};

Seen race(uint64_t features, std::chrono::milliseconds duration, unsigned seed) {
    const bool packed = virtq::negotiated(features, wire::VIRTIO_F_RING_PACKED);
    const uint8_t shape[] = {31};  // scattered, at odd places
    Input in(shape, sizeof shape);
    Guest guest(in, kSize, features);
    const uint64_t parts[][2] = {
        {guest.vring.desc, wire::desc_table_bytes(kSize)},
        {guest.vring.avail, packed ? 4 : wire::avail_ring_bytes(kSize, guest.event_idx())},
        {guest.vring.used, packed ? 4 : wire::used_ring_bytes(kSize, guest.event_idx())},
        {kTableAt, 128},
    };
    for (const auto& part : std::span(parts).first(3))
        guest.space.add(part[0], part[1], guest.scattered);
    std::vector<volatile uint16_t*> words;
    for (const auto& [at, bytes] : parts)
        for (uint64_t o = 0; o < bytes; o += 2) words.push_back(guest.space.word(at + o));

    virtq::Queue<HostileSpace> queue;
    require(queue.bind(guest.space, guest.vring, features), "a good ring is refused");
    queue.start_at(packed ? 0x80008000 : 0);
    virtq::Chain chain;
    chain.reserve(kSize);

    std::atomic<bool> stop{false};
    std::thread hostile([&] {
        std::mt19937 random(seed);
        // Lengths, flags, indices, parts of addresses that are there.
        const uint16_t likely[] = {0,      1,      2,      3,      4,      5,      16,
                                   48,     0x100,  0x4000, 0x5000, 0xffff, 0x0fe8, 0x80,
                                   0x8000, 0x8080, 0x81,   0x8001, 0x84,   0x8004};
        while (!stop.load(std::memory_order_relaxed)) {
            const uint32_t r = random();
            scribble(words[r % words.size()], r >> 30 != 0
                                                  ? likely[(r >> 16) % std::size(likely)]
                                                  : uint16_t(r >> 8));
        }
    });
    Seen seen;
    std::vector<std::byte> copy(256);
    std::deque<virtq::Taken> taken;
    std::mt19937 random(seed + 1);
    const auto start = std::chrono::steady_clock::now();
    const auto over = [&] {  // also on a machine where the threads hardly meet
        const auto elapsed = std::chrono::steady_clock::now() - start;
        return elapsed > duration + std::chrono::seconds(seen.enough() ? 0 : 20);
    };
    for (unsigned round = 0; round % 64 != 0 || !over(); ++round) {
        guest.space.resolves = 0;
        const Pop pop = queue.pop(chain);
        require(guest.space.resolves <= 2 * virtq::Chain::kMinSegments, "{} look-ups",
                guest.space.resolves);
        switch (pop) {
            case Pop::kChain:
                ++seen.chains;
                check_chain(chain, kSize);
                queue.gather(chain.readable(), copy);
                queue.scatter(copy, chain.writable());
                break;
            case Pop::kMalformed: ++seen.malformed; break;
            case Pop::kFault: ++seen.faults; break;
            case Pop::kBroken: ++seen.broken; break;
            case Pop::kEmpty: ++seen.empty; break;
        }
        if (pop != Pop::kBroken && pop != Pop::kEmpty) {
            taken.push_back(chain.taken());
            if (random() % 8 == 0) {
                queue.unpop(taken.back());
                taken.pop_back();
            }
        }
        if (taken.size() >= 8 || pop == Pop::kBroken || random() % 4 == 0) {
            for (; !taken.empty(); taken.pop_front()) queue.push(taken.front(), 1);
            queue.complete();
            if (random() % 2 == 0) queue.arm();
            queue.enable_notifications(false);
        }
        if (pop == Pop::kBroken)
            queue.start_at_used_or(packed ? (random() % kSize | (random() & 0x8000)) : 0);
        if (packed && pop == Pop::kEmpty) {
            if (taken.empty() && random() % 64 == 0)
                queue.start_at(random() % (kSize + 1) | 0x8000);
            const uint32_t base = queue.next_base();
            const uint16_t available = (base & 0x8000) != 0 ? 0x80 : 0x8000;
            scribble(guest.space.word(guest.vring.desc + 16 * (base & 0x7fff) + 14),
                     uint16_t(available | random() % 8));
        }
        if (!packed && (pop == Pop::kBroken || pop == Pop::kEmpty)) {
            // Plausible again: by chance that is too rare.
            for (uint16_t i = 0; i < kSize; ++i)
                scribble(guest.space.word(guest.vring.avail + 4 + 2 * i), i);
            scribble(guest.space.word(guest.vring.avail + 2), uint16_t(queue.next_base() + 8));
        }
    }
    stop = true;
    hostile.join();
    return seen;
}

}  // namespace
}  // namespace viommu::fuzz

int main() {
    using namespace viommu::fuzz;
    using viommu::wire::VIRTIO_F_EVENT_IDX, viommu::wire::VIRTIO_F_RING_PACKED;
    const char* given = std::getenv("VIOMMU_STRESS_SECONDS");
    const auto each = std::chrono::milliseconds(1000 * (given ? std::atoi(given) : 2) / 4);
    const unsigned seed = std::random_device{}();
    for (const bool packed : {false, true}) {
        for (const bool events : {false, true}) {
            const uint64_t features = uint64_t{packed} << VIRTIO_F_RING_PACKED |
                                      uint64_t{events} << VIRTIO_F_EVENT_IDX;
            const Seen s = race(features, each, seed);
            fmt::print("{}{}, seed {}: {} chains, {} malformed, {} faults, {} broken, {} empty\n",
                       packed ? "packed" : "split", events ? " with EVENT_IDX" : "", seed, s.chains,
                       s.malformed, s.faults, s.broken, s.empty);
            std::fflush(stdout);
            require(s.enough(), "the race did not happen");
        }
    }
}
