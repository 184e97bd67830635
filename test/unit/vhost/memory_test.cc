// SPDX-License-Identifier: BSD-3-Clause
#include "fixture.hh"
#include "log_capture.hh"

namespace viommu::vhost::test {
namespace {

using Memory = SocketTest;

constexpr uint64_t kPage = 4096;
constexpr uint64_t kUvas = 0x7f00'0000'0000;

Region region(uint64_t gpa, uint64_t pages = 1) {
    return {.gpa = gpa, .bytes = pages * kPage, .uva = kUvas + gpa};
}
std::vector<Region> regions(size_t n) {
    std::vector<Region> out;
    for (size_t i = 0; i < n; ++i) out.push_back(region(i * 0x100000));
    return out;
}

TEST_F(Memory, region_added_before_any_table_is_all_the_memory_there_is) {
    Frontend f(path);
    ASSERT_TRUE(f.set_features(kVersion1 | kProtocolFeaturesBit));
    recorder.take();
    ASSERT_TRUE(f.add_region(region(0x100000)));
    EXPECT_EQ(Events{"memory 0x100000+0x1000@0x7f0000100000"}, recorder.take());
    set_up(f, 0);
    ASSERT_TRUE(f.set_enable(0, true));
    EXPECT_TRUE(recorder.happened(started(0)));
}

TEST_F(Memory, region_added_and_removed_while_queues_run_changes_the_table) {
    Frontend f(path);
    start(f);
    recorder.advance = 3;
    ASSERT_TRUE(f.add_region(region(0x40'0000'0000)));
    EXPECT_EQ((Events{"stop 0 reconfigured", "stop 1 reconfigured",
                      string(kMemoryEvent) + " 0x4000000000+0x1000@0x7f4000000000", started(0, 3),
                      started(1, 3)}),
              recorder.take());
    ASSERT_TRUE(f.remove_region(region(0x40'0000'0000)));
    EXPECT_EQ((Events{"stop 0 reconfigured", "stop 1 reconfigured", kMemoryEvent, started(0, 6),
                      started(1, 6)}),
              recorder.take());
}

/// QEMU, device_del and device_add.
/// Under UBSan: nothing is copied from nowhere.
TEST_F(Memory, table_of_no_regions_is_taken) {
    Frontend f(path);
    EXPECT_TRUE(f.set_mem_table({}));
    EXPECT_TRUE(f.get_config(0, 8));
}

TEST_F(Memory, regions_of_the_last_session_are_forgotten_when_one_starts) {
    Frontend f(path);
    start(f);
    ASSERT_TRUE(f.add_region(region(0x40'0000'0000)));
    recorder.take();
    ASSERT_TRUE(f.ack(VHOST_USER_SET_OWNER, {}));
    EXPECT_EQ((Events{"stop 0 reconfigured", "stop 1 reconfigured"}), recorder.take());
    ASSERT_TRUE(f.add_region(region(0x40'0000'0000)));
    EXPECT_EQ((Events{"memory 0x4000000000+0x1000@0x7f4000000000", started(0), started(1)}),
              recorder.take());
}

TEST_F(Memory, region_added_is_the_file_at_its_offset) {
    Frontend f(path);
    const Fd file = make_memory(16 * kPage);
    for (const uint64_t offset : {uint64_t(0), 3 * kPage, uint64_t(0x1234)}) {
        const uint64_t mark = 0x1122334455667788 + offset;
        ASSERT_EQ(ssize_t(sizeof mark), pwrite(file, &mark, sizeof mark, off_t(offset)));
        const Region r{.gpa = 0x1000000 + (offset << 20), .bytes = 4 * kPage, .uva = kUvas + offset,
                       .offset = offset};
        ASSERT_TRUE(f.add_region(r, file)) << offset;
        uint64_t seen = 0;
        const auto at = recorder.memory()->at({r.gpa}, 8);
        ASSERT_EQ(8u, at.size());
        std::memcpy(&seen, at.data(), sizeof seen);
        EXPECT_EQ(mark, seen);
        at[7] = std::byte(0x5a);  // shared, not private
        ASSERT_EQ(ssize_t(sizeof seen), pread(file, &seen, sizeof seen, off_t(offset)));
        EXPECT_EQ(0x5au, seen >> 56);
    }
}

TEST_F(Memory, removal_of_what_is_not_there_is_refused) {
    Frontend f(path);
    start(f);
    EXPECT_FALSE(f.remove_region({.gpa = 0, .bytes = 0x10'0000, .uva = kUva + 1}));
    EXPECT_FALSE(f.remove_region({.gpa = 0, .bytes = 0xf'f000, .uva = kUva}));
    EXPECT_FALSE(f.remove_region({.gpa = 0x1000, .bytes = 0x10'0000, .uva = kUva}));
    EXPECT_EQ(Events{}, recorder.take());
    // Named by addresses and size; the offset and a file do not matter.
    const Fd file = make_memory(kPage);
    const int fd = file;
    EXPECT_TRUE(f.ack(VHOST_USER_REM_MEM_REG,
                      bytes_of(vhost_user_mem_reg{
                          .padding = 0,
                          .region = {.guest_phys_addr = 0,
                                     .memory_size = 0x10'0000,
                                     .userspace_addr = kUva,
                                     .mmap_offset = 77}}),
                      std::span(&fd, 1)));
}

/// What the library did: unmap the old table, then look at the new one.
TEST_F(Memory, bad_region_is_refused_and_nothing_stops) {
    Frontend f(path);
    start(f);
    const int before = count_fds();
    {
        const Fd file = make_memory(4 * kPage), not_memory = make_eventfd();
        const Region fresh{.gpa = 0x2'0000'0000, .bytes = 4 * kPage, .uva = kUvas};
        auto bad = fresh;
        bad.offset = 1;  // beyond the end of the file, where a touch is a SIGBUS
        EXPECT_FALSE(f.add_region(bad, file));
        bad = fresh;
        bad.bytes = 0;
        EXPECT_FALSE(f.add_region(bad, file));
        bad = fresh;
        bad.offset = ~uint64_t(0) - 100;
        EXPECT_FALSE(f.add_region(bad, file));
        bad = fresh;
        bad.gpa = 0x1000;  // overlaps
        EXPECT_FALSE(f.add_region(bad, file));
        bad = fresh;
        bad.gpa = ~uint64_t(0) - 100;  // wraps
        EXPECT_FALSE(f.add_region(bad, file));
        EXPECT_FALSE(f.add_region(fresh, not_memory));
        EXPECT_FALSE(f.ack(VHOST_USER_ADD_MEM_REG,
                           bytes_of(vhost_user_mem_reg{.padding = 0,
                                                       .region = {.guest_phys_addr = fresh.gpa,
                                                                  .memory_size = fresh.bytes,
                                                                  .userspace_addr = fresh.uva,
                                                                  .mmap_offset = 0}})));
        const auto payload = bytes_of(
            vhost_user_mem_header{.num_regions = 1, .padding = 0},
            bytes_of(vhost_user_mem_region{.guest_phys_addr = 0,
                                           .memory_size = kPage,
                                           .userspace_addr = kUva,
                                           .mmap_offset = 0}));
        const int fd = not_memory;
        EXPECT_FALSE(f.ack(VHOST_USER_SET_MEM_TABLE, payload, std::span(&fd, 1)));
        const Region overlap[] = {{.gpa = 0, .bytes = 0x2000, .uva = kUva},
                                  {.gpa = 0x1000, .bytes = 0x2000, .uva = kUva + 0x10000}};
        EXPECT_FALSE(f.set_mem_table(overlap));
        EXPECT_TRUE(f.add_region(fresh, file));
    }
    EXPECT_EQ((Events{"stop 0 reconfigured", "stop 1 reconfigured",
                      "memory 0x0+0x100000@0x7f0000000000 0x100000000+0x4000@0x5000 "
                      "0x200000000+0x4000@0x7f0000000000",
                      started(0), started(1)}),
              recorder.take());
    EXPECT_EQ(before, count_fds());  // a mapping needs no file descriptor
}

TEST_F(Memory, slots_are_as_many_as_can_be_added) {
    Frontend f(path);
    const auto slots = f.query(VHOST_USER_GET_MAX_MEM_SLOTS);
    ASSERT_EQ(32u, slots);
    const auto many = regions(slots + 1);
    for (size_t i = 0; i < slots; ++i) ASSERT_TRUE(f.add_region(many[i])) << i;
    for (size_t i = 0; i < slots; ++i) {
        EXPECT_EQ(kPage - 1, recorder.memory()->at({many[i].gpa + 1}, 2 * kPage).size()) << i;
        EXPECT_TRUE(recorder.memory()->at({many[i].gpa + kPage}, 1).empty()) << i;
    }
    const LogCapture log;
    EXPECT_FALSE(f.add_region(many[slots]));
    EXPECT_TRUE(log.has("the guest has 32 memory regions, the most that we take"));
    ASSERT_TRUE(f.remove_region(many[7]));
    EXPECT_TRUE(f.add_region(many[slots]));
}

/// An old map stays good for whoever has it.
TEST_F(Memory, map_of_a_table_that_was_replaced_stays_mapped) {
    Frontend f(path);
    ASSERT_TRUE(f.set_mem_table(kMemory));
    const auto old = recorder.memory();
    old->regions()[0].vva[0] = std::byte{42};
    ASSERT_TRUE(f.set_mem_table(regions(2)));
    EXPECT_EQ(std::byte{42}, old->regions()[0].vva[0]);
    f.disconnect();
    ASSERT_TRUE(eventually([&] { return !recorder.is_connected(); }));
    EXPECT_EQ(std::byte{42}, old->regions()[0].vva[0]);
}

TEST_F(Memory, table_of_eight_regions_is_taken) {
    Frontend f(path);
    ASSERT_TRUE(f.set_mem_table(regions(8)));
    EXPECT_EQ(8u, recorder.memory()->regions().size());
}

/// The library receives eight file descriptors and drops the rest without a word to us.
TEST_F(Memory, table_of_more_regions_than_the_library_takes_is_refused_and_told_to_the_operator) {
    const LogCapture log;
    Frontend f(path);
    start(f);
    for (const size_t n : {9u, 19u}) {
        EXPECT_FALSE(f.set_mem_table(regions(n)));
        EXPECT_TRUE(log.has(fmt::format("it has {} memory regions, and librte_vhost of DPDK", n)));
    }
    EXPECT_EQ(Events{}, recorder.take());
    EXPECT_TRUE(f.get_config(0, 8));
}

/// Longer than the library's buffer: it ends the connection before we see the message.
TEST_F(Memory, table_longer_than_the_librarys_buffer_ends_the_connection_and_says_why) {
    const LogCapture log;
    Frontend f(path);
    start(f);
    std::vector<std::byte> table = bytes_of(vhost_user_mem_header{.num_regions = 40, .padding = 0});
    table.resize(sizeof(vhost_user_mem_header) + 40 * sizeof(vhost_user_mem_region));
    ASSERT_TRUE(f.send(VHOST_USER_SET_MEM_TABLE, table));
    EXPECT_TRUE(f.is_closed());
    EXPECT_TRUE(eventually([&] { return log.has("at a memory table of 40 regions; it takes 8"); }));
}

TEST_F(Memory, connection_that_the_library_ended_is_told_from_one_that_the_frontend_ended) {
    const LogCapture log;
    {
        Frontend f(path);
        ASSERT_TRUE(f.get_config(0, 8));
    }
    ASSERT_TRUE(eventually([&] { return log.has("frontend disconnected"); }));
    EXPECT_FALSE(log.has("ended the connection"));
    Frontend f(path);
    ASSERT_FALSE(f.set_num(7, 1));  // a refusal that was answered ends nothing
    ASSERT_TRUE(f.send(VHOST_USER_SET_FEATURES, filler(2000, 1)));
    EXPECT_TRUE(f.is_closed());
    EXPECT_TRUE(eventually([&] { return log.has("ended the connection, not the frontend"); }));
    Frontend g(path);
    ASSERT_TRUE(g.send(VHOST_USER_SET_VRING_NUM, bytes_of(vhost_user_vring_state{7, 1})));
    EXPECT_TRUE(g.is_closed());
    EXPECT_TRUE(eventually([&] { return log.has("request was refused"); }));
}

}  // namespace
}  // namespace viommu::vhost::test
