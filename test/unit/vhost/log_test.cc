// SPDX-License-Identifier: BSD-3-Clause
#include <sys/mman.h>

#include "fixture.hh"

namespace viommu::vhost::test {
namespace {

constexpr uint64_t kLogAll = uint64_t(1) << VHOST_F_LOG_ALL;
constexpr uint64_t kFeatures = kVersion1 | kProtocolFeaturesBit;
constexpr uint64_t kPage = 4096;

/// A VMM's bitmap.
class Bitmap {
  public:
    explicit Bitmap(uint64_t bytes, uint64_t offset = 0)
        : file_(make_memory(offset + bytes)), bytes_(bytes), offset_(offset) {}
    int fd() const { return file_; }
    auto message() const {
        return bytes_of(vhost_user_log{.mmap_size = bytes_, .mmap_offset = offset_});
    }
    /// Pages whose bit is set; clears them.
    std::vector<uint64_t> take() {
        std::vector<uint8_t> bits(bytes_);
        EXPECT_EQ(ssize_t(bytes_), pread(file_, bits.data(), bytes_, off_t(offset_)));
        std::vector<uint64_t> pages;
        for (uint64_t i = 0; i < bytes_ * 8; ++i)
            if (bits[i / 8] & 1 << i % 8) pages.push_back(i);
        std::ranges::fill(bits, uint8_t{0});
        EXPECT_EQ(ssize_t(bytes_), pwrite(file_, bits.data(), bytes_, off_t(offset_)));
        return pages;
    }

  private:
    Fd file_;
    uint64_t bytes_, offset_;
};

class Log : public FeatureTest<kLogAll> {
  protected:
    using Pages = std::vector<uint64_t>;

    /// As rust-vmm does: waits for the 16 bytes that it sent.
    static bool set_log_base(Frontend& f, const Bitmap& log) {
        const int fd = log.fd();
        if (!f.send(VHOST_USER_SET_LOG_BASE, log.message(), std::span(&fd, 1),
                    kVhostUserVersion | kVhostUserNeedReply))
            return false;
        const auto reply = f.receive();
        return reply && reply->request == VHOST_USER_SET_LOG_BASE && reply->fds == 0 &&
               reply->flags == (kVhostUserVersion | kVhostUserReply) &&
               reply->payload == log.message();
    }
    void wrote(uint64_t gpa, size_t bytes) {
        const auto at = recorder.memory()->at({gpa}, bytes);
        ASSERT_EQ(bytes, at.size());
        recorder.dirty_log()->wrote(at);
    }
    static inline const Region kMemory[] = {
        {.gpa = 0, .bytes = 0x10'0000, .uva = 0x7f00'0000'0000},
        {.gpa = 0x1000'0000, .bytes = 0x4000, .uva = 0x5000}};
};

TEST_F(Log, offered_with_the_feature_only) {
    Frontend f(path);
    EXPECT_TRUE(f.query(VHOST_USER_GET_FEATURES) & kLogAll);
    EXPECT_TRUE(f.query(VHOST_USER_GET_PROTOCOL_FEATURES) >> VHOST_USER_PROTOCOL_F_LOG_SHMFD & 1);
}

/// Cloud Hypervisor: base, features, then addresses with the flag.
TEST_F(Log, on_when_there_are_features_log_and_memory) {
    Frontend f(path);
    ASSERT_TRUE(f.set_features(kFeatures));
    ASSERT_TRUE(f.set_mem_table(kMemory));
    Bitmap log(0x2001);
    recorder.take();
    ASSERT_TRUE(set_log_base(f, log));
    EXPECT_EQ(Events{}, recorder.take());
    ASSERT_TRUE(f.set_features(kFeatures | kLogAll));
    EXPECT_TRUE(recorder.happened("log on"));
    wrote(0x3fff, 2);
    wrote(0x1000'0000, 0x4000);
    EXPECT_EQ((Pages{3, 4, 0x10000, 0x10001, 0x10002, 0x10003}), log.take());
    ASSERT_TRUE(f.set_features(kFeatures));
    EXPECT_TRUE(recorder.happened("log off"));
    EXPECT_EQ(nullptr, recorder.dirty_log());
}

TEST_F(Log, off_without_a_log_even_if_the_bit_is_acknowledged) {
    Frontend f(path);
    ASSERT_TRUE(f.set_features(kFeatures | kLogAll));  // a guest can cause it
    ASSERT_TRUE(f.set_mem_table(kMemory));
    EXPECT_FALSE(recorder.happened("log on"));
}

TEST_F(Log, next_base_replaces_the_log_while_queues_are_stopped) {
    Frontend f(path);
    ASSERT_TRUE(f.set_mem_table(kMemory));
    ASSERT_TRUE(f.set_num(0, 4) && f.set_addr(0, 0x5000, 0x5000, 0x5000) && f.set_kick(0, -1));
    ASSERT_TRUE(f.set_enable(0, true));
    Bitmap first(0x100), second(0x100, 4096);
    ASSERT_TRUE(f.set_features(kFeatures | kLogAll));
    recorder.take();
    ASSERT_TRUE(set_log_base(f, first));
    const Events events = recorder.take();
    ASSERT_EQ(3u, events.size());
    EXPECT_EQ("stop 0 reconfigured", events[0]);
    EXPECT_EQ("log on", events[1]);
    EXPECT_EQ(0u, events[2].find("start 0"));
    wrote(0, 1);
    ASSERT_TRUE(set_log_base(f, second));
    wrote(0x5000, 1);
    EXPECT_EQ(Pages{0}, first.take());
    EXPECT_EQ(Pages{5}, second.take());
}

TEST_F(Log, follows_the_memory) {
    Frontend f(path);
    Bitmap log(0x2000);
    ASSERT_TRUE(f.set_features(kFeatures | kLogAll));
    ASSERT_TRUE(set_log_base(f, log));
    EXPECT_FALSE(recorder.happened("log on"));
    ASSERT_TRUE(f.add_region({.gpa = 0x8000, .bytes = 0x4000, .uva = 0x10000}));
    EXPECT_TRUE(recorder.happened("log on"));
    wrote(0x9000, 1);
    EXPECT_EQ(Pages{9}, log.take());
}

TEST_F(Log, page_beyond_the_bitmap_is_counted) {
    Frontend f(path);
    Bitmap log(1);
    ASSERT_TRUE(f.set_features(kFeatures | kLogAll));
    ASSERT_TRUE(f.set_mem_table(kMemory));
    ASSERT_TRUE(set_log_base(f, log));
    wrote(7 * kPage, 2 * kPage);
    EXPECT_EQ(Pages{7}, log.take());
    EXPECT_EQ(1u, recorder.dirty_log()->missed());
}

TEST_F(Log, off_when_a_new_session_starts) {
    Frontend f(path);
    Bitmap log(0x2000);
    ASSERT_TRUE(f.set_features(kFeatures | kLogAll));
    ASSERT_TRUE(f.set_mem_table(kMemory));
    ASSERT_TRUE(set_log_base(f, log));
    recorder.take();
    ASSERT_TRUE(f.ack(VHOST_USER_SET_OWNER));
    EXPECT_EQ(Events{"log off"}, recorder.take());
    ASSERT_TRUE(f.set_mem_table(kMemory));
    EXPECT_FALSE(recorder.happened("log on"));
}

TEST_F(Log, off_when_the_connection_ends) {
    Frontend f(path);
    Bitmap log(0x100);
    ASSERT_TRUE(f.set_features(kFeatures | kLogAll));
    ASSERT_TRUE(f.set_mem_table(kMemory));
    ASSERT_TRUE(set_log_base(f, log));
    recorder.take();
    f.disconnect();
    ASSERT_TRUE(eventually([&] { return recorder.happened("disconnected"); }));
    EXPECT_EQ((Events{"log off", "disconnected"}), recorder.take());
}

/// Neither frontend knows an answer that means failure, and a log that nobody writes costs pages.
TEST_F(Log, that_cannot_be_mapped_ends_the_connection) {
    const Bitmap good(0x1000);
    for (const auto& payload :
         {bytes_of(vhost_user_log{.mmap_size = 0, .mmap_offset = 0}),
          bytes_of(vhost_user_log{.mmap_size = 0x1001, .mmap_offset = 0}),
          bytes_of(vhost_user_log{.mmap_size = 1, .mmap_offset = 0x1000}),
          bytes_of(vhost_user_log{.mmap_size = 2, .mmap_offset = ~uint64_t(0)})}) {
        Frontend f(path);
        const int fd = good.fd();
        ASSERT_TRUE(f.send(VHOST_USER_SET_LOG_BASE, payload, std::span(&fd, 1),
                           kVhostUserVersion | kVhostUserNeedReply));
        EXPECT_FALSE(f.receive());
        EXPECT_TRUE(f.is_closed());
    }
    Frontend f(path);
    ASSERT_TRUE(f.send(VHOST_USER_SET_LOG_BASE, good.message(), {},
                       kVhostUserVersion | kVhostUserNeedReply));
    EXPECT_FALSE(f.receive()) << "without a file";
    EXPECT_TRUE(f.is_closed());
}

TEST_F(Log, fd_is_accepted) {
    Frontend f(path);
    const Fd event = make_eventfd();
    const int fd = event;
    EXPECT_TRUE(f.ack(VHOST_USER_SET_LOG_FD, {}, std::span(&fd, 1)));
}

}  // namespace
}  // namespace viommu::vhost::test
