// SPDX-License-Identifier: BSD-3-Clause
#include <sys/socket.h>

#include "fixture.hh"

namespace viommu::vhost::test {
namespace {

using Startup = SocketTest;

constexpr uint64_t kOffered = kVersion1 | kAccessPlatform | 0xff | kProtocolFeaturesBit;

/// Cloud Hypervisor's messages, in its order (connect, probe, DRIVER_OK).
TEST_F(Startup, cloud_hypervisor_order_starts_queues_when_enabled) {
    Frontend f(path);
    ASSERT_TRUE(f.send(VHOST_USER_SET_OWNER));
    ASSERT_EQ(kOffered, f.query(VHOST_USER_GET_FEATURES));
    ASSERT_EQ(uint64_t(1 << VHOST_USER_PROTOCOL_F_MQ | 1 << VHOST_USER_PROTOCOL_F_REPLY_ACK |
                       1 << VHOST_USER_PROTOCOL_F_BACKEND_REQ | 1 << VHOST_USER_PROTOCOL_F_CONFIG |
                       1 << VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS),
              f.query(VHOST_USER_GET_PROTOCOL_FEATURES));
    ASSERT_TRUE(f.send(VHOST_USER_SET_PROTOCOL_FEATURES, bytes_of(uint64_t(0x8229))));
    ASSERT_EQ(Recorder::kQueues, f.query(VHOST_USER_GET_QUEUE_NUM));
    for (uint32_t offset = 0; offset < 40; offset += 8) ASSERT_TRUE(f.get_config(offset, 8));

    ASSERT_TRUE(f.set_features(kVersion1 | kProtocolFeaturesBit));
    ASSERT_TRUE(f.set_mem_table(kMemory));
    ASSERT_TRUE(f.set_num(0, 256) && f.set_num(1, 64));
    const Fd kick = make_eventfd(), call = make_eventfd();
    for (uint32_t q = 0; q < 2; ++q) {
        ASSERT_TRUE(f.set_addr(q, kUva + q, kUva + 0x1000, kUva + 0x2000));
        ASSERT_TRUE(f.set_base(q, 7 * q));
        if (q == 0) {  // queue 1 has no MSI-X vector
            ASSERT_TRUE(f.set_call(q, call));
        }
        ASSERT_TRUE(f.set_kick(q, kick));
    }
    EXPECT_EQ((Events{"connected", fmt::format("features {:#x}", kVersion1 | kProtocolFeaturesBit),
                      kMemoryEvent}),
              recorder.take());
    ASSERT_TRUE(f.set_enable(0, true) && f.set_enable(1, true));
    EXPECT_EQ((Events{"start 0 size 256 at 0x7f0000000000 0x7f0000001000 0x7f0000002000 base 0",
                      "start 1 size 64 at 0x7f0000000001 0x7f0000001000 0x7f0000002000 base 7 "
                      "no call"}),
              recorder.take());
    int channel[2];
    ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, channel));
    const Fd ours(channel[0]), theirs(channel[1]);
    ASSERT_TRUE(f.ack(VHOST_USER_SET_BACKEND_REQ_FD, {}, std::span(&channel[1], 1)));
    EXPECT_EQ(Events{}, recorder.take());
}

/// QEMU: CALL and ENABLE again and again, before there are rings.
TEST_F(Startup, qemu_order_starts_queues_when_enabled) {
    Frontend f(path);
    ASSERT_TRUE(f.send(VHOST_USER_SET_OWNER));
    ASSERT_EQ(kOffered, f.query(VHOST_USER_GET_FEATURES));
    const Fd kick = make_eventfd(), call = make_eventfd();
    for (int i = 0; i < 3; ++i) {
        for (uint32_t q = 0; q < 2; ++q) {
            ASSERT_TRUE(f.set_call(q, i == 1 ? -1 : int(call)));
            ASSERT_TRUE(f.set_enable(q, i == 1));
        }
    }
    ASSERT_TRUE(f.set_features(kOffered));
    ASSERT_TRUE(f.set_mem_table(kMemory));
    for (uint32_t q = 0; q < 2; ++q) {
        ASSERT_TRUE(f.set_num(q, 256));
        ASSERT_TRUE(f.set_base(q, 0));
        ASSERT_TRUE(f.set_addr(q, kUva, kUva + 0x1000, kUva + 0x2000));
        ASSERT_TRUE(f.set_kick(q, kick));
        ASSERT_TRUE(f.set_call(q, call));
    }
    recorder.take();
    ASSERT_TRUE(f.set_enable(0, true) && f.set_enable(1, true));
    EXPECT_EQ((Events{started(0), started(1)}), recorder.take());
}

TEST_F(Startup, no_protocol_features_starts_without_enable) {
    Frontend f(path);
    ASSERT_TRUE(f.set_features(kVersion1));
    ASSERT_TRUE(f.set_mem_table(kMemory));
    recorder.take();
    set_up(f, 1);
    const Events events = recorder.take();
    ASSERT_FALSE(events.empty());
    EXPECT_EQ(started(1) + " no call", events.front());  // the call fd comes after the kick
    EXPECT_EQ(started(1), events.back());
}

TEST_F(Startup, no_fds_polls_and_is_polled) {
    Frontend f(path);
    ASSERT_TRUE(f.set_features(kVersion1));
    ASSERT_TRUE(f.set_mem_table(kMemory));
    ASSERT_TRUE(f.set_num(0, 256) && f.set_addr(0, kUva, kUva + 0x1000, kUva + 0x2000));
    recorder.take();
    ASSERT_TRUE(f.set_kick(0, -1));
    EXPECT_EQ(Events{started(0) + " no kick no call"}, recorder.take());
}

TEST_F(Startup, iovas_are_delivered_as_they_are_and_hidden_from_the_library) {
    Frontend f(path);
    ASSERT_TRUE(f.query(VHOST_USER_GET_FEATURES) & kAccessPlatform);
    int channel[2];
    ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, channel));
    const Fd ours(channel[0]), theirs(channel[1]);
    ASSERT_TRUE(f.ack(VHOST_USER_SET_BACKEND_REQ_FD, {}, std::span(&channel[1], 1)));
    const uint64_t features = kVersion1 | kAccessPlatform | kProtocolFeaturesBit;
    ASSERT_TRUE(f.set_features(features));
    ASSERT_TRUE(f.set_mem_table(kMemory));
    ASSERT_TRUE(f.set_num(0, 256) && f.set_enable(0, true));
    ASSERT_TRUE(f.set_addr(0, 0xfffffffffffff000, 0x1, 0xffff'ffff'0000'0002));
    recorder.take();
    ASSERT_TRUE(f.set_kick(0, -1));
    EXPECT_EQ(Events{"start 0 size 256 at 0xfffffffffffff000 0x1 0xffffffff00000002 base 0 "
                     "no kick no call"},
              recorder.take());
    // Had it seen the bit, it would have asked for a translation of the ring.
    std::byte miss;
    EXPECT_EQ(-1, recv(ours, &miss, 1, 0)) << "a message from the library";
}

/// Whatever the order: a queue starts with the last of the six things it needs, and not before.
TEST_F(Startup, any_order_starts_the_queue_with_the_last_message) {
    const Fd kick = make_eventfd();
    using Message = bool (*)(Frontend&, int);
    const Message needed[] = {
        [](Frontend& f, int) { return f.set_features(kVersion1 | kProtocolFeaturesBit); },
        [](Frontend& f, int) { return f.set_mem_table(kMemory); },
        [](Frontend& f, int) { return f.set_num(1, 256); },
        [](Frontend& f, int) { return f.set_addr(1, kUva, kUva + 0x1000, kUva + 0x2000); },
        [](Frontend& f, int fd) { return f.set_kick(1, fd); },
        [](Frontend& f, int) { return f.set_enable(1, true); },
    };
    std::array<int, std::size(needed)> order = {0, 1, 2, 3, 4, 5};
    do {
        Frontend f(path);
        for (const int i : order) {
            const Events events = recorder.take();
            ASSERT_EQ(events.end(), std::ranges::find(events, started(1) + " no call"));
            ASSERT_TRUE(needed[i](f, kick)) << "message " << i;
        }
        ASSERT_TRUE(recorder.happened(started(1) + " no call")) << testing::PrintToString(order);
        f.disconnect();
        ASSERT_TRUE(eventually([&] { return recorder.happened("disconnected"); }));
        const Events events = recorder.take();
        ASSERT_EQ(1, std::ranges::count(events, "stop 1 disconnected"));
    } while (std::ranges::next_permutation(order).found);
}

}  // namespace
}  // namespace viommu::vhost::test
