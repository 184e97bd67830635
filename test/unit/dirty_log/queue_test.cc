// SPDX-License-Identifier: BSD-3-Clause
/// What queues write, and what they say that they have written: by comparing all memory.
#include <algorithm>
#include <random>

#include "any_rig.hh"
#include "bitmap.hh"

namespace viommu::virtq::test {
namespace {

constexpr uint64_t kGpa = 0x1000'0000;
constexpr uint64_t kFirstPage = kGpa / kPage;

std::shared_ptr<const MemoryMap> map_of(std::byte* memory, size_t pages) {
    return std::make_shared<const MemoryMap>(
        *MemoryMap::create({{Gpa{kGpa}, Uva{0}, pages * kPage, memory}}));
}

class LoggedSpace {
  public:
    LoggedSpace(PageSpace& space, const DirtyLog& log) : space_(space), log_(log) {}
    std::span<std::byte> resolve(uint64_t addr, uint64_t bytes, Access need) noexcept {
        return space_.resolve(addr, bytes, need);
    }
    const DirtyLog* dirty_log() const noexcept { return &log_; }

  private:
    PageSpace& space_;
    const DirtyLog& log_;
};

using Shape = AnyRig::Shape;

class QueueLog : public testing::TestWithParam<Shape> {};

TEST_P(QueueLog, every_page_that_changes_is_marked_and_no_other_than_may) {
    std::mt19937 random(7);
    AnyRig rig(GetParam());
    const size_t pages = rig.space.snapshot().size() / kPage;
    Bitmap bitmap(kFirstPage / 8 + pages / 8 + 1);
    const auto log = bitmap.log(map_of(rig.space.host(0), pages));
    LoggedSpace space(rig.space, *log);
    const Vring vring = AnyRig::vring(rig.shape);
    Queue<LoggedSpace> queue;
    ASSERT_TRUE(queue.bind(space, vring, rig.shape.features));
    queue.start_at_used_or(vring.base);

    const auto page_of = [&](uint64_t addr) {
        return kFirstPage + size_t(rig.space.host_at(addr) - rig.space.host(0)) / kPage;
    };
    Pages ring;  // that the device may write
    const uint64_t device_part = rig.shape.packed() ? vring.desc : vring.used;
    const uint32_t bytes = rig.shape.packed() ? wire::desc_table_bytes(vring.size)
                                              : wire::used_ring_bytes(vring.size, true);
    for (uint64_t a = device_part; a < device_part + bytes; ++a) ring.insert(page_of(a));
    if (rig.shape.packed()) ring.insert(page_of(vring.used));

    unsigned changes = 0;
    for (unsigned step = 0; step < 400; ++step) {
        const uint64_t at = Rig::kDataAt + random() % (14 * kPage);
        const uint32_t room = 1 + random() % (2 * kPage);
        rig.driver->chain({{at, room, kWrite, 0}});  // when there is place
        rig.driver->publish();
        bitmap.take();
        const auto before = rig.space.snapshot();
        Pages may = ring;
        switch (random() % 4) {
            case 0:
                queue.enable_notifications(random() % 2 != 0);
                break;
            case 1:
                queue.arm();
                break;
            default:
                for (unsigned n = random() % 3 + 1; n > 0; --n) {
                    if (queue.pop(rig.chain) != Pop::kChain) break;
                    std::vector<std::byte> reply(random() % (rig.chain.writable_bytes() + 1));
                    for (auto& b : reply) b = std::byte(random());
                    const auto out = queue.scatter(reply, rig.chain.writable());
                    ASSERT_EQ(reply.size(), out.bytes);
                    const uint64_t to = rig.chain.writable()[0].addr;
                    for (uint64_t a = to; a < to + reply.size(); ++a) may.insert(page_of(a));
                    queue.push(rig.chain.taken(), uint32_t(reply.size()));
                }
                queue.complete();
        }
        const auto after = rig.space.snapshot();
        const Pages marked = bitmap.take();
        for (size_t p = 0; p < pages; ++p) {
            const bool changed =
                std::memcmp(&before[p * kPage], &after[p * kPage], kPage) != 0;
            changes += changed;
            ASSERT_TRUE(!changed || marked.contains(kFirstPage + p)) << "step " << step;
        }
        for (const uint64_t p : marked) ASSERT_TRUE(may.contains(p)) << "step " << step;
        while (rig.driver->pop()) {
        }
    }
    EXPECT_GT(changes, 100u);
    EXPECT_EQ(0u, log->missed());
}

INSTANTIATE_TEST_SUITE_P(
    All, QueueLog,
    testing::Values(Shape{.size = 8}, Shape{.size = 8, .features = kEvents},
                    Shape{.size = 256, .scattered = true, .used_skew = 4092},
                    Shape{.size = 8, .features = kPacked},
                    Shape{.size = 7, .features = kPacked | kEvents},
                    Shape{.size = 300, .features = kPacked | kEvents, .scattered = true}),
    [](const auto& info) {
        return fmt::format("{}_{}_{}", info.param.packed() ? "packed" : "split", info.param.size,
                           info.index);
    });

/// Looks at the buffer at the moment in which it is asked for the log, as a VMM could that takes
/// the bit at once.
class WatchingSpace {
  public:
    WatchingSpace(std::span<std::byte> buffer, const DirtyLog& log) : buffer_(buffer), log_(log) {}
    std::span<std::byte> resolve(uint64_t addr, uint64_t bytes, Access) noexcept {
        return buffer_.subspan(addr, std::min<uint64_t>(bytes, 100));  // in pieces
    }
    const DirtyLog* dirty_log() const noexcept {
        seen.emplace_back(buffer_.begin(), buffer_.end());
        return &log_;
    }
    mutable std::vector<std::vector<std::byte>> seen;

  private:
    std::span<std::byte> buffer_;
    const DirtyLog& log_;
};

TEST(DirtyLog, mark_comes_after_the_bytes) {
    std::vector<std::byte> buffer(250), reply(250, std::byte{0x5a});
    Bitmap bitmap(kFirstPage / 8 + 1);
    const auto log = bitmap.log(map_of(buffer.data(), 1));
    WatchingSpace space(buffer, *log);
    const Segment all{0, 250};
    EXPECT_EQ(250u, scatter(space, reply, {&all, 1}).bytes);
    ASSERT_EQ(3u, space.seen.size());
    for (size_t i = 0; i < 3; ++i) {
        const size_t written = std::min<size_t>(100 * (i + 1), 250);
        EXPECT_TRUE(std::equal(reply.begin(), reply.begin() + long(written), space.seen[i].begin()))
            << "piece " << i;
    }
    EXPECT_EQ(Pages{kFirstPage}, bitmap.take());
}

TEST(DirtyLog, range_marks_its_pages_and_no_others) {
    std::vector<std::byte> memory(4 * kPage);
    Bitmap bitmap(kFirstPage / 8 + 1);
    const auto log = bitmap.log(map_of(memory.data(), 4));
    log->wrote(&memory[kPage - 1], 1);
    EXPECT_EQ(Pages{kFirstPage}, bitmap.take());
    log->wrote(&memory[kPage - 1], 2);
    EXPECT_EQ((Pages{kFirstPage, kFirstPage + 1}), bitmap.take());
    log->wrote(&memory[kPage], 2 * kPage);
    EXPECT_EQ((Pages{kFirstPage + 1, kFirstPage + 2}), bitmap.take());
    log->wrote(std::span<const std::byte>{});
    std::byte ours{};
    log->wrote(&ours, 1);  // not guest memory
    EXPECT_EQ(Pages{}, bitmap.take());
    EXPECT_EQ(0u, log->missed());
}

}  // namespace
}  // namespace viommu::virtq::test
