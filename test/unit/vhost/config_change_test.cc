// SPDX-License-Identifier: BSD-3-Clause
/// Telling the frontend that configuration space has changed.
#include <sys/socket.h>

#include "fixture.hh"

namespace viommu::vhost::test {
namespace {

/// Our end is read by the test, the other one goes to the device.
struct Channel {
    Channel() {
        int ends[2];
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) abort();
        ours = Fd(ends[0]);
        theirs = Fd(ends[1]);
    }
    bool give_to(Frontend& f) {
        const int fd = theirs;
        const bool taken = f.ack(VHOST_USER_SET_BACKEND_REQ_FD, {}, std::span(&fd, 1));
        theirs = Fd();
        return taken;
    }
    /// All bytes that wait.
    std::vector<std::byte> read() {
        std::vector<std::byte> bytes(1 << 20);
        const ssize_t n = recv(ours, bytes.data(), bytes.size(), MSG_DONTWAIT);
        bytes.resize(n < 0 ? 0 : size_t(n));
        return bytes;
    }
    Fd ours, theirs;
};

class ConfigChange : public SocketTest {
  protected:
    static bool negotiate(Frontend& f, unsigned more) {
        return f.ack(VHOST_USER_SET_PROTOCOL_FEATURES,
                     bytes_of(uint64_t(1) << VHOST_USER_PROTOCOL_F_REPLY_ACK |
                              uint64_t(1) << VHOST_USER_PROTOCOL_F_BACKEND_REQ | more));
    }
    static constexpr unsigned kConfig = 1u << VHOST_USER_PROTOCOL_F_CONFIG;
};

TEST_F(ConfigChange, frontend_with_a_channel_gets_one_message_without_payload) {
    Frontend f(path);
    Channel channel;
    ASSERT_TRUE(negotiate(f, kConfig));
    ASSERT_TRUE(channel.give_to(f));
    EXPECT_TRUE(socket.hears_changes());
    EXPECT_TRUE(socket.config_changed());
    // request 2, version 1 and no wish for a reply, no payload
    const vhost_user_header expected{.request = 2, .flags = 1, .size = 0};
    EXPECT_EQ(bytes_of(expected), channel.read());
    EXPECT_TRUE(f.get_config(0, 8)) << "the connection goes on";
}

TEST_F(ConfigChange, frontend_without_channel_or_config_is_told_nothing) {
    EXPECT_FALSE(socket.config_changed()) << "nobody is connected";
    Frontend f(path);
    Channel channel;
    ASSERT_TRUE(negotiate(f, 0));
    EXPECT_FALSE(socket.config_changed()) << "no channel";
    ASSERT_TRUE(channel.give_to(f));
    EXPECT_FALSE(socket.hears_changes());
    EXPECT_FALSE(socket.config_changed()) << "it would not know the message";
    EXPECT_TRUE(channel.read().empty());
}

TEST_F(ConfigChange, channel_that_nobody_reads_holds_up_nobody) {
    Frontend f(path);
    Channel channel;
    ASSERT_TRUE(negotiate(f, kConfig));
    ASSERT_TRUE(channel.give_to(f));
    for (int i = 0; i < 20000; ++i) ASSERT_TRUE(socket.config_changed());
    const auto waiting = channel.read();
    EXPECT_LT(waiting.size(), 20000 * sizeof(vhost_user_header)) << "it has never been full";
    EXPECT_EQ(0u, waiting.size() % sizeof(vhost_user_header)) << "half a message";
    EXPECT_TRUE(f.get_config(0, 8));
}

TEST_F(ConfigChange, channel_that_is_closed_is_forgotten) {
    Frontend f(path);
    Channel channel;
    ASSERT_TRUE(negotiate(f, kConfig));
    ASSERT_TRUE(channel.give_to(f));
    channel.ours = Fd();
    EXPECT_FALSE(socket.config_changed());
    EXPECT_FALSE(socket.hears_changes());
}

TEST_F(ConfigChange, channel_of_one_frontend_is_not_used_for_the_next) {
    Channel channel;
    {
        Frontend f(path);
        ASSERT_TRUE(negotiate(f, kConfig));
        ASSERT_TRUE(channel.give_to(f));
    }
    ASSERT_TRUE(eventually([&] { return recorder.happened("disconnected"); }));
    Frontend next(path);
    ASSERT_TRUE(next.get_config(0, 8));
    EXPECT_FALSE(socket.config_changed());
    std::byte byte;
    EXPECT_EQ(0, recv(channel.ours, &byte, 1, 0)) << "our end of it is still open";
}

TEST_F(ConfigChange, channel_that_is_none_is_refused) {
    Frontend f(path);
    const Fd eventfd = make_eventfd();
    const int fds[] = {eventfd, f.fd()};
    EXPECT_FALSE(f.ack(VHOST_USER_SET_BACKEND_REQ_FD, {}, std::span(fds, 1))) << "no socket";
    EXPECT_FALSE(f.ack(VHOST_USER_SET_BACKEND_REQ_FD, {}, std::span(fds + 1, 1)))
        << "its own connection, whose end we would never see";
    EXPECT_FALSE(f.ack(VHOST_USER_SET_BACKEND_REQ_FD)) << "none at all";
    EXPECT_TRUE(f.get_config(0, 8));
}

}  // namespace
}  // namespace viommu::vhost::test
