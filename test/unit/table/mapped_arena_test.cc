// SPDX-License-Identifier: BSD-3-Clause
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <functional>

#include "viommu_table.hh"

namespace viommu::table {
namespace {

/// A file that holds a copy of an arena's header, changed.
class Forged {
  public:
    explicit Forged(
        const std::function<void(ArenaLayout&)>& change = [](ArenaLayout&) {}, bool sealed = true) {
        const auto layout = lay_out({.arena_bytes = 1 << 20});
        fd_ = memfd_create("forged", MFD_ALLOW_SEALING);
        EXPECT_EQ(ftruncate(fd_, off_t(layout->arena_bytes)), 0);
        ArenaLayout header = *layout;
        change(header);
        EXPECT_EQ(pwrite(fd_, &header, sizeof header, 0), ssize_t(sizeof header));
        if (sealed) {
            EXPECT_EQ(fcntl(fd_, F_ADD_SEALS, F_SEAL_SHRINK), 0);
        }
    }
    ~Forged() { close(fd_); }
    std::string opened() const {
        const auto arena = MappedArena::open(fd_);
        return arena ? "opened" : arena.error().message;
    }
    int fd() const { return fd_; }

  private:
    int fd_;
};

TEST(MappedArena, arena_that_is_right_shows_what_the_writer_wrote) {
    auto table = std::move(*Table::create({}));
    ASSERT_TRUE(table->add_endpoint(8));
    ASSERT_TRUE(table->add_endpoint(9));
    const auto arena = MappedArena::open(table->arena().fd());
    ASSERT_TRUE(arena) << arena.error().message;
    const View& view = arena->view();
    EXPECT_NE(view.base, table->arena().view().base);
    ASSERT_NE(view.endpoint(9), nullptr);
    EXPECT_EQ(view.endpoint(10), nullptr);
    EXPECT_EQ(view.endpoint(0), nullptr);  // an empty slot is no endpoint 0
    EXPECT_EQ(view.endpoint(9)->route.load(), route::kBlocked);
    ASSERT_EQ(table->attach(9, 1, true), Status::kOk);
    EXPECT_EQ(view.endpoint(9)->route.load(), route::kBypass);
}

TEST(MappedArena, forgery_without_a_lie_is_opened) { EXPECT_EQ(Forged().opened(), "opened"); }

TEST(MappedArena, header_that_lies_is_refused_with_what_it_says) {
    const auto says = [](const std::function<void(ArenaLayout&)>& change, std::string_view text) {
        const std::string message = Forged(change).opened();
        EXPECT_NE(message.find(text), message.npos) << message;
    };
    says([](ArenaLayout& h) { h.magic++; }, "not an arena");
    says([](ArenaLayout& h) { h.version++; }, "this program reads version");
    says([](ArenaLayout& h) { h.arena_bytes += 4096; }, "its file has 1048576");
    says([](ArenaLayout& h) { h.arena_bytes = 0; }, "its file has 1048576");
    says([](ArenaLayout& h) { std::swap(h.input_first, h.input_last); }, "reversed");
    says([](ArenaLayout& h) { h.granule_lg2 = 3; }, "granule 2^3");
    says([](ArenaLayout& h) { h.granule_lg2 = 64; }, "granule 2^64");
    says([](ArenaLayout& h) { h.max_endpoints = ~0u; }, "max_endpoints");
    says([](ArenaLayout& h) { h.max_domains = 0; }, "max_domains");
    // Each field, changed alone, is a contradiction.
    const auto damaged = "the arena's header is damaged";
    says([](ArenaLayout& h) { h.header_bytes = 64; }, damaged);
    says([](ArenaLayout& h) { h.levels++; }, damaged);
    says([](ArenaLayout& h) { h.levels = 100; }, damaged);
    says([](ArenaLayout& h) { h.endpoints_offset = 1u << 30; }, damaged);
    says([](ArenaLayout& h) { h.domains_offset += 64; }, damaged);
    says([](ArenaLayout& h) { h.regions_offset = ~uint64_t{0}; }, damaged);
    says([](ArenaLayout& h) { h.nodes_offset -= 4096; }, damaged);
    says([](ArenaLayout& h) { h.max_endpoints++; }, damaged);
    says([](ArenaLayout& h) { h.max_regions = uint64_t{1} << 32; }, damaged);
    says([](ArenaLayout& h) { h.max_nodes++; }, damaged);
    says([](ArenaLayout& h) { h.granule_lg2 = 30; }, damaged);
}

TEST(MappedArena, file_that_is_no_arena_is_refused) {
    EXPECT_NE(Forged([](ArenaLayout&) {}, false).opened().find("could shrink"), std::string::npos);
    const int small = memfd_create("small", 0);
    ASSERT_EQ(ftruncate(small, 100), 0);
    const auto arena = MappedArena::open(small);
    ASSERT_FALSE(arena);
    EXPECT_NE(arena.error().message.find("the file has 100 bytes"), std::string::npos);
    close(small);
    EXPECT_FALSE(MappedArena::open(-1));
}

/// errno of an attempt to map `fd` so that it can be written; 0 when that worked.
int writable(int fd) {
    void* at = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED) return errno;
    munmap(at, 4096);
    return 0;
}

TEST(MappedArena, nobody_but_the_writer_can_write_the_arena) {
    auto table = std::move(*Table::create({}));
    const int fd = table->arena().fd();
    // Not even with a descriptor that is open for writing.
    EXPECT_EQ(writable(fd), EPERM);
    EXPECT_EQ(pwrite(fd, "x", 1, 0), -1);
    EXPECT_EQ(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096), -1);
    const std::string self = "/proc/self/fd/" + std::to_string(fd);
    const int again = open(self.c_str(), O_RDWR);
    if (again >= 0) {
        EXPECT_EQ(writable(again), EPERM);
        close(again);
    }
    void* at = mmap(nullptr, 4096, PROT_READ, MAP_SHARED, fd, 0);
    ASSERT_NE(at, MAP_FAILED);
    EXPECT_EQ(mprotect(at, 4096, PROT_READ | PROT_WRITE), -1);
    munmap(at, 4096);
    // And the writer still can.
    EXPECT_TRUE(table->add_endpoint(8));
}

}  // namespace
}  // namespace viommu::table
