// SPDX-License-Identifier: BSD-3-Clause
#include <sys/socket.h>

#include <random>

#include "fixture.hh"

namespace viommu::vhost::test {
namespace {

using Hostile = SocketTest;

struct Requirement {
    uint32_t request;
    uint32_t payload_bytes;
};
constexpr Requirement kRequirements[] = {
    {VHOST_USER_SET_FEATURES, 8},          {VHOST_USER_SET_MEM_TABLE, 8 + 32},
    {VHOST_USER_SET_VRING_NUM, 8},         {VHOST_USER_SET_VRING_ADDR, 40},
    {VHOST_USER_SET_VRING_BASE, 8},        {VHOST_USER_GET_VRING_BASE, 8},
    {VHOST_USER_SET_VRING_KICK, 8},        {VHOST_USER_SET_VRING_CALL, 8},
    {VHOST_USER_SET_VRING_ERR, 8},         {VHOST_USER_SET_VRING_ENABLE, 8},
    {VHOST_USER_SET_CONFIG, 12},           {VHOST_USER_GET_CONFIG, 12},
    {VHOST_USER_SET_PROTOCOL_FEATURES, 8}, {VHOST_USER_ADD_MEM_REG, 40},
    {VHOST_USER_REM_MEM_REG, 40},
};

TEST_F(Hostile, short_message_is_refused_and_nothing_else_happens) {
    Frontend f(path);
    start(f);
    const int before = count_fds();
    for (const auto& r : kRequirements) {
        for (uint32_t bytes = 0; bytes < r.payload_bytes; ++bytes) {
            // Payload 1 reads as one region, queue 1, one byte.
            std::vector<std::byte> payload(bytes, std::byte{0});
            if (bytes > 0) payload[0] = std::byte{1};
            const Fd event = make_eventfd();
            const int fd = event;
            // (Shorter ones may lose their fds in the library, which reads a queue number anyway.)
            EXPECT_FALSE(f.ack(r.request, payload, std::span(&fd, bytes >= 4 ? bytes % 2 : 0)))
                << "request " << r.request << " of " << bytes;
            EXPECT_EQ(Events{}, recorder.take()) << "request " << r.request << " of " << bytes;
        }
    }
    EXPECT_TRUE(f.get_config(0, 8));
    EXPECT_EQ(before, count_fds());
}

TEST_F(Hostile, short_message_without_need_reply_costs_the_connection) {
    for (const auto& r : kRequirements) {
        Frontend f(path);
        ASSERT_TRUE(f.send(r.request, filler(r.payload_bytes - 1, 1)));
        EXPECT_TRUE(f.is_closed()) << "request " << r.request;
    }
}

TEST_F(Hostile, queue_that_does_not_exist_is_refused) {
    Frontend f(path);
    start(f);
    const int before = count_fds();
    const Fd event = make_eventfd();
    for (const uint32_t q : {2u, 3u, 128u, 255u}) {
        EXPECT_FALSE(f.set_num(q, 256)) << q;
        EXPECT_FALSE(f.set_base(q, 1)) << q;
        EXPECT_FALSE(f.set_addr(q, 1, 2, 3)) << q;
        EXPECT_FALSE(f.set_enable(q, true)) << q;
        EXPECT_FALSE(f.set_kick(q, event)) << q;
        EXPECT_FALSE(f.set_call(q, event)) << q;
    }
    EXPECT_EQ(Events{}, recorder.take());
    EXPECT_EQ(before + 1, count_fds());
}

TEST_F(Hostile, socket_as_eventfd_is_refused) {
    Frontend f(path);
    start(f);
    int pair[2];
    ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    const Fd one(pair[0]), other(pair[1]);
    EXPECT_FALSE(f.set_kick(0, one));
    EXPECT_FALSE(f.set_call(0, one));
    EXPECT_EQ(Events{}, recorder.take()) << "and nothing stops";
}

TEST_F(Hostile, queue_index_beyond_the_librarys_costs_the_connection) {
    for (const uint32_t q : {256u, 0x10000u, 0xffffffffu}) {
        Frontend f(path);
        start(f);
        ASSERT_TRUE(f.send(VHOST_USER_SET_VRING_NUM,
                           bytes_of(vhost_user_vring_state{.index = q, .num = 256})));
        EXPECT_TRUE(f.is_closed());
        ASSERT_TRUE(eventually([&] { return !recorder.is_connected(); }));
        EXPECT_EQ((Events{"stop 0 disconnected", "stop 1 disconnected", "disconnected"}),
                  recorder.take());
    }
}

TEST_F(Hostile, queue_size_zero_not_a_power_of_two_or_too_large_is_refused) {
    Frontend f(path);
    start(f);
    for (const uint32_t size : {0u, 3u, 255u, 32769u, 65536u, 0x80000000u, 0xffffffffu})
        EXPECT_FALSE(f.set_num(0, size)) << size;
    EXPECT_EQ(Events{}, recorder.take());
    EXPECT_TRUE(f.set_num(0, 32768));
    EXPECT_TRUE(f.set_num(0, 1));
}

TEST_F(Hostile, request_of_a_feature_not_offered_is_refused) {
    Frontend f(path);
    start(f);
    const int before = count_fds();
    constexpr uint32_t kServed[] = {1,  2,  3,  4,  5,  8,  9,  10, 11, 12,
                                    13, 14, 15, 16, 17, 18, 21, 24, 25, 36,
                                    37, 38};
    // SET_INFLIGHT_FD (32) must name queues, or the library drops the connection before we see it.
    auto payload = filler(40, 0);
    payload[16] = std::byte{1};
    for (uint32_t request = 0; request < 64; ++request) {
        if (std::ranges::find(kServed, request) != std::end(kServed)) continue;
        const Fd event = make_eventfd();
        const int fd = event;
        EXPECT_FALSE(f.ack(request, payload, std::span(&fd, 1))) << "request " << request;
    }
    EXPECT_FALSE(f.ack(0xffffffff, payload));
    EXPECT_TRUE(f.get_config(0, 8));
    EXPECT_EQ(Events{}, recorder.take());
    EXPECT_EQ(before, count_fds());
}

TEST_F(Hostile, oversized_message_costs_the_connection) {
    for (const uint32_t claimed : {1100u, 0x10000u, 0xffffffffu}) {
        Frontend f(path);
        start(f);
        ASSERT_TRUE(f.send(VHOST_USER_SET_FEATURES, std::vector(1100, std::byte{0}), {},
                           kVhostUserVersion, claimed));
        EXPECT_TRUE(f.is_closed());
        EXPECT_TRUE(eventually([&] { return !recorder.is_connected(); }));
        recorder.take();
    }
}

TEST_F(Hostile, wrong_number_of_fds_is_refused_and_leaks_none) {
    Frontend f(path);
    start(f);
    const int before = count_fds();
    {
        const Fd event = make_eventfd();
        const int two[] = {event, event};
        EXPECT_FALSE(f.ack(VHOST_USER_SET_VRING_KICK, bytes_of(uint64_t(0)), two));
        EXPECT_FALSE(f.ack(VHOST_USER_SET_VRING_CALL, bytes_of(uint64_t(0))));
        EXPECT_FALSE(f.ack(VHOST_USER_SET_VRING_NUM,
                           bytes_of(vhost_user_vring_state{.index = 0, .num = 256}), two));
    }
    EXPECT_EQ(before, count_fds());
    EXPECT_EQ(Events{}, recorder.take());  // the queue goes on with what it has
}

/// Random requests with random payloads; whatever comes, only the connection is at stake.
TEST_F(Hostile, garbage_never_does_harm) {
    std::mt19937 random(20240601);
    for (int connection = 0; connection < 60; ++connection) {
        Frontend f(path);
        if (connection % 2 == 0) start(f);
        for (int i = 0; i < 60; ++i) {
            std::vector<std::byte> payload(random() % (random() % 3 ? 48 : 400));
            const bool small = random() % 2;  // plausible numbers get further
            for (auto& b : payload) b = std::byte(small ? random() % 5 == 0 : random());
            // The library itself leaks the fds of messages whose queue number is above its limit,
            // and reads that number without looking at the size.
            for (size_t n : {1, 2, 3, 17})
                if (n < payload.size()) payload[n] = std::byte{0};
            if (payload.size() > 16) payload[16] = std::byte{1};
            const Fd a = make_eventfd(), b = make_memory(4096);
            const int fds[] = {a, b};
            const uint32_t flags = kVhostUserVersion | (random() % 3 ? kVhostUserNeedReply : 0);
            const size_t count = payload.size() < 20 ? 0 : random() % 3;
            if (!f.send(random() % 42, payload, std::span(fds).first(count), flags)) break;
        }
        f.disconnect();
        ASSERT_TRUE(eventually([&] { return recorder.happened("disconnected"); }));
        recorder.take();
    }
    Frontend f(path);
    start(f);
}

}  // namespace
}  // namespace viommu::vhost::test
