// SPDX-License-Identifier: BSD-3-Clause
#include <gtest/gtest.h>
#include <sys/eventfd.h>

#include <array>

#include "reference_driver.hh"

namespace viommu::virtq::test {
namespace {

constexpr uint64_t kData = Rig::kDataAt;

TEST(SplitQueueBind, ring_that_is_not_acceptable_is_refused) {
    Rig rig({.size = 8});
    const Vring good = Rig::vring({.size = 8});
    SplitQueue<PageSpace> q;
    EXPECT_TRUE(q.bind(rig.space, good));
    const auto refused = [&](auto change) {
        Vring v = good;
        change(v);
        const bool bound = q.bind(rig.space, v);
        return !bound && !q.bound();
    };
    EXPECT_TRUE(refused([](Vring& v) { v.size = 0; }));
    EXPECT_TRUE(refused([](Vring& v) { v.size = 6; }));
    EXPECT_TRUE(refused([](Vring& v) { v.size = 65536; }));
    EXPECT_TRUE(refused([](Vring& v) { v.desc += 8; }));
    EXPECT_TRUE(refused([](Vring& v) { v.avail += 1; }));
    EXPECT_TRUE(refused([](Vring& v) { v.used += 2; }));
    EXPECT_TRUE(refused([](Vring& v) { v.desc += 16 * kPage; }));
    EXPECT_TRUE(refused([](Vring& v) { v.avail += 16 * kPage; }));
    EXPECT_TRUE(refused([](Vring& v) { v.used += 16 * kPage; }));
    EXPECT_TRUE(q.bind(rig.space, good));
}

TEST(SplitQueueBind, used_ring_must_be_readable_and_writable) {
    Rig rig({.size = 8});
    SplitQueue<PageSpace> q;
    for (const Access rights : {Access::kRead, Access::kWrite}) {
        rig.space.map(Rig::kUsedAt, 0, rights);
        EXPECT_FALSE(q.bind(rig.space, Rig::vring({.size = 8})));
    }
    rig.space.map(Rig::kUsedAt, 0, Access::kReadWrite);
    rig.space.map(Rig::kDescAt, 1, Access::kRead);
    rig.space.map(Rig::kAvailAt, 2, Access::kRead);
    EXPECT_TRUE(q.bind(rig.space, Rig::vring({.size = 8})));
}

TEST(SplitQueueBind, guest_memory_is_not_touched) {
    Rig rig({.size = 8});
    const auto before = rig.space.snapshot();
    SplitQueue<PageSpace> q;
    ASSERT_TRUE(q.bind(rig.space, Rig::vring({.size = 8})));
    q.start_at_used();
    q.unbind();
    rig.space.unmap(Rig::kUsedAt);
    EXPECT_FALSE(q.bind(rig.space, Rig::vring({.size = 8})));
    EXPECT_EQ(rig.space.snapshot(), before);
}

TEST(SplitQueueBind, bound_again_it_goes_on_where_it_was) {
    Rig rig({.size = 4});
    const std::vector<Desc> one{{kData, 1, 0, 0}};
    rig.driver.chain(one);
    const auto second = rig.driver.chain(one);
    rig.driver.publish();
    ASSERT_EQ(rig.queue.pop(rig.chain), Pop::kChain);
    rig.queue.push(rig.chain.taken(), 0);
    rig.queue.unbind();
    ASSERT_TRUE(rig.queue.bind(rig.space, Rig::vring({.size = 4})));
    ASSERT_EQ(rig.queue.pop(rig.chain), Pop::kChain);
    EXPECT_EQ(rig.chain.head(), second);
    EXPECT_TRUE(rig.queue.flush());
    EXPECT_EQ(rig.driver.used_index(), 1);
}

TEST(SplitQueueStart, used_index_says_where_to_begin) {
    Rig rig({.size = 8, .start = 65533});
    rig.queue.start_at(11);
    rig.queue.start_at_used();
    EXPECT_EQ(rig.queue.next_base(), 65533u);
    rig.driver.chain({{kData, 1, 0, 0}});
    rig.driver.publish();
    EXPECT_EQ(rig.queue.was_available(), 1u);
    EXPECT_EQ(rig.queue.pop(rig.chain), Pop::kChain);
    EXPECT_EQ(rig.queue.next_base(), 65534u);
}

TEST(SplitQueuePop, chain_of_every_length_and_split_is_copied) {
    Rig rig({.size = 8});
    for (unsigned readable = 0; readable <= 8; ++readable) {
        for (unsigned writable = 0; readable + writable <= 8; ++writable) {
            if (readable + writable == 0) continue;
            std::vector<Desc> buffers;
            for (unsigned i = 0; i < readable + writable; ++i)
                buffers.push_back({kData + 64 * i, 1 + i, i < readable ? uint16_t{0} : kWrite, 0});
            const auto head = rig.driver.chain(buffers);
            rig.driver.publish();
            ASSERT_EQ(rig.queue.pop(rig.chain), Pop::kChain);
            EXPECT_EQ(rig.chain.head(), head);
            ASSERT_EQ(rig.chain.readable().size(), readable);
            ASSERT_EQ(rig.chain.writable().size(), writable);
            for (unsigned i = 0; i < buffers.size(); ++i) {
                const Segment s =
                    i < readable ? rig.chain.readable()[i] : rig.chain.writable()[i - readable];
                EXPECT_EQ(s.addr, buffers[i].addr);
                EXPECT_EQ(s.len, buffers[i].len);
            }
            rig.queue.push(rig.chain.taken(), 100 + writable);
            EXPECT_FALSE(rig.driver.pop()) << "nothing is seen before flush()";
            EXPECT_TRUE(rig.queue.flush());
            EXPECT_FALSE(rig.queue.flush());
            const auto used = rig.driver.pop();
            ASSERT_TRUE(used);
            EXPECT_EQ(used->id, head);
            EXPECT_EQ(used->len, 100 + writable);
        }
    }
    EXPECT_EQ(rig.queue.pop(rig.chain), Pop::kEmpty);
}

/// Every size, scattered, at the worst skews, across the wrap of the 16-bit index, until every
/// entry of the ring has been used twice.
TEST(SplitQueuePop, every_size_works_across_the_index_wrap) {
    for (uint32_t size = 1; size <= 32768; size *= 2) {
        Rig rig({.size = size,
                 .start = uint16_t(65536 - size / 2 - 1),
                 .scattered = true,
                 .desc_skew = 4080,
                 .avail_skew = 4094,
                 .used_skew = 4092});
        ASSERT_TRUE(rig.is_bound) << size;
        uint32_t tag = 0;
        for (unsigned round = 0; round < 4; ++round) {
            const uint32_t burst = std::max(1u, size / 2);
            const uint32_t first = tag;
            std::vector<uint16_t> heads;
            for (uint32_t i = 0; i < burst; ++i)
                heads.push_back(rig.driver.chain({{kData, ++tag, 0, 0}}).value());
            rig.driver.publish();
            ASSERT_EQ(rig.queue.available(), burst);
            for (uint32_t i = 0; i < burst; ++i) {
                ASSERT_EQ(rig.queue.pop(rig.chain), Pop::kChain);
                ASSERT_EQ(rig.chain.head(), heads[i]);
                ASSERT_EQ(rig.chain.readable()[0].len, first + i + 1);
                rig.queue.push(rig.chain.taken(), first + i);
            }
            ASSERT_EQ(rig.queue.pop(rig.chain), Pop::kEmpty);
            rig.queue.complete();
            for (uint32_t i = 0; i < burst; ++i) {
                const auto used = rig.driver.pop();
                ASSERT_TRUE(used);
                ASSERT_EQ(used->id, heads[i]) << size;
                ASSERT_EQ(used->len, first + i);
            }
        }
    }
}

TEST(SplitQueuePop, full_ring_of_the_largest_size_is_not_broken) {
    Rig rig({.size = 32768, .start = 1});
    for (uint32_t i = 0; i < 32768; ++i) rig.driver.chain({{kData, 1, 0, 0}});
    rig.driver.publish();
    EXPECT_EQ(rig.queue.available(), 32768u);
}

TEST(SplitQueuePush, used_element_straddling_a_page_is_whole) {
    // The element of entry 0 begins 4 bytes before a page ends.
    Rig rig({.size = 2, .scattered = true, .used_skew = kPage - 8});
    ASSERT_TRUE(rig.is_bound);
    const auto head = rig.driver.chain({{kData, 1, 0, 0}});
    rig.driver.publish();
    ASSERT_EQ(rig.queue.pop(rig.chain), Pop::kChain);
    rig.queue.push(rig.chain.taken(), 0x12345678);
    rig.queue.flush();
    const auto used = rig.driver.pop();
    ASSERT_TRUE(used);
    EXPECT_EQ(used->id, head);
    EXPECT_EQ(used->len, 0x12345678u);
}

TEST(SplitQueuePop, index_is_read_once_per_burst) {
    Rig rig({.size = 8});
    rig.driver.chain({{kData, 1, 0, 0}});
    rig.driver.chain({{kData, 2, 0, 0}});
    rig.driver.publish();
    EXPECT_EQ(rig.queue.available(), 2u);
    rig.driver.publish_index(60000);  // would break the ring if it were looked at
    EXPECT_EQ(rig.queue.pop(rig.chain), Pop::kChain);
    EXPECT_EQ(rig.queue.pop(rig.chain), Pop::kChain);
    EXPECT_FALSE(rig.queue.broken());
    EXPECT_EQ(rig.queue.pop(rig.chain), Pop::kBroken);
}

TEST(SplitQueueUnpop, chains_put_back_are_taken_again) {
    Rig rig({.size = 8});
    std::vector<uint16_t> heads;
    for (uint32_t i = 1; i <= 3; ++i) heads.push_back(rig.driver.chain({{kData, i, 0, 0}}).value());
    rig.driver.publish();
    std::vector<Taken> taken;
    for (int i = 0; i < 3; ++i) {
        ASSERT_EQ(rig.queue.pop(rig.chain), Pop::kChain);
        taken.push_back(rig.chain.taken());
    }
    rig.queue.unpop(taken[2]);
    rig.queue.unpop(taken[1]);
    EXPECT_EQ(rig.queue.available(), 2u);
    EXPECT_EQ(rig.queue.next_base(), 1u);
    ASSERT_EQ(rig.queue.pop(rig.chain), Pop::kChain);
    EXPECT_EQ(rig.chain.head(), heads[1]);
    ASSERT_EQ(rig.queue.pop(rig.chain), Pop::kChain);
    EXPECT_EQ(rig.chain.head(), heads[2]);
    EXPECT_EQ(rig.queue.pop(rig.chain), Pop::kEmpty);
}

// --- indirect tables -----------------------------------------------------------------------------

constexpr uint64_t kTable = Rig::kTableAt;

void indirect(Rig& rig, uint64_t table, const std::vector<Desc>& entries, uint32_t len,
              uint16_t flags = kIndirect) {
    for (size_t i = 0; i < entries.size(); ++i) rig.space.put(table + 16 * i, entries[i]);
    rig.driver.chain({{table, len, flags, 0}});
    rig.driver.publish();
}

TEST(SplitQueueIndirect, table_at_any_byte_is_walked) {
    for (uint64_t at = kTable + kPage - 40; at <= kTable + kPage; ++at) {
        Rig rig({.size = 4, .scattered = true});
        // Linked backwards, so that entries are not read in sequence; WRITE on the descriptor that
        // refers to the table is to be ignored.
        indirect(rig, at, {{1, 1, kNext, 2}, {3, 3, kWrite, 0}, {2, 2, kNext | kWrite, 1}}, 48,
                 kIndirect | kWrite);
        ASSERT_EQ(rig.queue.pop(rig.chain), Pop::kChain);
        ASSERT_EQ(rig.chain.readable().size(), 1u);
        ASSERT_EQ(rig.chain.writable().size(), 2u);
        EXPECT_EQ(rig.chain.readable()[0].addr, 1u);
        EXPECT_EQ(rig.chain.writable()[0].addr, 2u);
        EXPECT_EQ(rig.chain.writable()[1].len, 3u);
    }
}

TEST(SplitQueueIndirect, direct_descriptors_may_come_first) {
    Rig rig({.size = 4});
    rig.space.put(kTable, Desc{2, 2, kNext, 1});
    rig.space.put(kTable + 16, Desc{3, 3, kWrite, 0});
    rig.driver.chain({{1, 1, 0, 0}, {kTable, 32, kIndirect, 0}});
    rig.driver.publish();
    ASSERT_EQ(rig.queue.pop(rig.chain), Pop::kChain);
    ASSERT_EQ(rig.chain.readable().size(), 2u);
    EXPECT_EQ(rig.chain.readable()[1].addr, 2u);
    EXPECT_EQ(rig.chain.writable_bytes(), 3u);
}

TEST(SplitQueueIndirect, table_longer_than_its_chain_is_accepted_and_not_read_further) {
    Rig rig({.size = 4});
    indirect(rig, kTable, {{1, 1, 0, 0}}, 0xfffffff0);
    EXPECT_EQ(rig.queue.pop(rig.chain), Pop::kChain);
    EXPECT_LE(rig.space.longest, kPage);
}

TEST(SplitQueueIndirect, long_table_is_found_piece_by_piece) {
    Rig rig({.size = 1024, .scattered = true});
    std::vector<Desc> entries;
    for (uint16_t i = 0; i < 1024; ++i)
        entries.push_back({uint64_t{i} + 1, 1, kNext, uint16_t(i + 1)});
    entries.back().flags = 0;
    indirect(rig, kTable + 8, entries, 1024 * 16);
    ASSERT_EQ(rig.queue.pop(rig.chain), Pop::kChain);
    ASSERT_EQ(rig.chain.readable().size(), 1024u);
    for (uint32_t i = 0; i < 1024; ++i) ASSERT_EQ(rig.chain.readable()[i].addr, i + 1);
}

/// Linux makes them when the queue is small.
TEST(SplitQueueIndirect, chain_longer_than_a_small_queue_is_accepted_up_to_1024) {
    for (const uint32_t count : {2u, 1023u, 1024u, 1025u}) {
        Rig rig({.size = 1}, 1, 20);
        std::vector<Desc> entries(count, Desc{1, 1, kNext, 0});
        for (uint32_t i = 0; i < count; ++i) entries[i].next = uint16_t(i + 1);
        entries.back().flags = 0;
        indirect(rig, kTable, entries, 16 * count);
        const Pop pop = rig.queue.pop(rig.chain);
        EXPECT_EQ(pop, count <= 1024 ? Pop::kChain : Pop::kMalformed) << count;
        EXPECT_EQ(rig.chain.descriptors(), std::min(count, 1024u));
    }
}

TEST(SplitQueueIndirect, table_that_breaks_the_spec_is_malformed) {
    struct Case {
        const char* what;
        std::vector<Desc> entries;
        uint32_t len;
        uint16_t flags = kIndirect;
    };
    const Case cases[] = {
        {"empty", {{1, 1, 0, 0}}, 0},
        {"not a multiple of 16", {{1, 1, 0, 0}}, 24},
        {"next together with indirect", {{1, 1, 0, 0}}, 16, kIndirect | kNext},
        {"indirect within indirect", {{kTable, 16, kIndirect, 0}}, 16},
        {"indirect within indirect, later", {{1, 1, kNext, 1}, {kTable, 16, kIndirect, 0}}, 32},
        {"next past the table", {{1, 1, kNext, 1}}, 16},
        {"next far past the table", {{1, 1, kNext, 65535}}, 16},
        {"loop", {{1, 1, kNext, 1}, {2, 1, kNext, 0}}, 32},
        {"loop of one, empty", {{1, 0, kNext, 0}}, 16},
        {"readable after writable", {{1, 1, kNext | kWrite, 1}, {1, 1, 0, 0}}, 32},
        {"buffer that wraps", {{~uint64_t{0}, 2, 0, 0}}, 16},
    };
    for (const Case& c : cases) {
        Rig rig({.size = 4});
        const auto head = 0;  // the reference driver's first free descriptor
        indirect(rig, kTable, c.entries, c.len, c.flags);
        EXPECT_EQ(rig.queue.pop(rig.chain), Pop::kMalformed) << c.what;
        EXPECT_EQ(rig.chain.head(), head) << c.what;
        EXPECT_EQ(rig.queue.pop(rig.chain), Pop::kEmpty) << c.what << ": the queue goes on";
    }
}

TEST(SplitQueueIndirect, table_that_wraps_is_malformed) {
    Rig rig({.size = 4});
    rig.driver.chain({{~uint64_t{0} - 15, 32, kIndirect, 0}});
    rig.driver.publish();
    EXPECT_EQ(rig.queue.pop(rig.chain), Pop::kMalformed);
}

TEST(SplitQueueIndirect, table_that_does_not_resolve_is_a_fault_with_a_head) {
    Rig rig({.size = 4});
    rig.driver.chain({{0x99990000, 16, kIndirect, 0}});
    // The second descriptor lies in a page that is not there.
    const uint64_t end = kTable + 16 * kPage;
    rig.space.put(end - 16, Desc{1, 1, kNext, 1});
    const auto second = rig.driver.chain({{end - 16, 32, kIndirect, 0}});
    rig.driver.publish();
    EXPECT_EQ(rig.queue.pop(rig.chain), Pop::kFault);
    EXPECT_EQ(rig.queue.pop(rig.chain), Pop::kFault);
    EXPECT_EQ(rig.chain.head(), second);
    EXPECT_EQ(rig.queue.pop(rig.chain), Pop::kEmpty);
}

// --- notifications -------------------------------------------------------------------------------

struct EventFd {
    EventFd() : fd(eventfd(0, EFD_NONBLOCK)) {}
    ~EventFd() { close(fd); }
    uint64_t drain() const {
        uint64_t n = 0;
        return read(fd, &n, sizeof n) == sizeof n ? n : 0;
    }
    int fd;
};

void one_buffer(Rig& rig) {
    rig.driver.chain({{kData, 1, 0, 0}});
    rig.driver.publish();
    ASSERT_EQ(rig.queue.pop(rig.chain), Pop::kChain);
    rig.queue.push(rig.chain.taken(), 0);
}

TEST(SplitQueueSignal, guest_is_signalled_when_it_wants_to_be) {
    Rig rig;
    EventFd call;
    Vring v = Rig::vring({});
    v.call_fd = call.fd;
    ASSERT_TRUE(rig.queue.bind(rig.space, v));
    rig.queue.complete();
    EXPECT_EQ(call.drain(), 0u) << "nothing was returned";
    one_buffer(rig);
    rig.queue.complete();
    EXPECT_EQ(call.drain(), 1u);
    rig.driver.want_interrupts(false);
    one_buffer(rig);
    rig.queue.complete();
    EXPECT_EQ(call.drain(), 0u);
    rig.driver.want_interrupts(true);
    one_buffer(rig);
    one_buffer(rig);
    rig.queue.complete();
    EXPECT_EQ(call.drain(), 1u) << "one signal per burst";
    EXPECT_EQ(rig.queue.stats().signals.was(), 2u);
    EXPECT_EQ(rig.queue.stats().signal_errors.was(), 0u);
}

TEST(SplitQueueSignal, call_fd_that_cannot_be_written_is_counted) {
    Rig rig;
    EventFd call;
    const uint64_t full = ~uint64_t{0} - 1;
    ASSERT_EQ(write(call.fd, &full, sizeof full), ssize_t(sizeof full));
    Vring v = Rig::vring({});
    v.call_fd = call.fd;
    ASSERT_TRUE(rig.queue.bind(rig.space, v));
    one_buffer(rig);
    rig.queue.complete();
    EXPECT_EQ(rig.queue.stats().signal_errors.was(), 1u);
}

TEST(SplitQueueArm, notifications_are_asked_for_and_work_is_not_missed) {
    Rig rig;
    rig.queue.enable_notifications(false);
    EXPECT_EQ(rig.driver.used_flags(), wire::VIRTQ_USED_F_NO_NOTIFY);
    EXPECT_TRUE(rig.queue.arm());
    EXPECT_EQ(rig.driver.used_flags(), 0);
    rig.queue.enable_notifications(false);
    rig.driver.chain({{kData, 1, 0, 0}});
    rig.driver.publish();
    EXPECT_FALSE(rig.queue.arm());
    EXPECT_EQ(rig.queue.pop(rig.chain), Pop::kChain);
    EXPECT_TRUE(rig.queue.arm());
}

}  // namespace
}  // namespace viommu::virtq::test
