// SPDX-License-Identifier: BSD-3-Clause
#include "fixture.hh"

namespace viommu::vhost::test {
namespace {

using Config = SocketTest;

std::vector<std::byte> expected(uint32_t offset, uint32_t size) {
    std::vector<std::byte> bytes(size);
    for (uint32_t i = 0; i < size; ++i) bytes[i] = Recorder::config_byte(offset + i);
    return bytes;
}

std::vector<std::byte> request(uint32_t offset, uint32_t size, uint32_t flags, size_t data_bytes) {
    const vhost_user_config_header header{.offset = offset, .size = size, .flags = flags};
    return bytes_of(header, filler(data_bytes, 0x5a));
}

TEST_F(Config, read_of_any_width_at_any_offset_has_exactly_the_bytes) {
    Frontend f(path);
    for (const uint32_t size : {1u, 2u, 4u, 8u}) {
        for (uint32_t offset = 0; offset < 64; ++offset) {
            const auto bytes = f.get_config(offset, size);
            ASSERT_TRUE(bytes) << size << " bytes at " << offset;
            EXPECT_EQ(expected(offset, size), *bytes) << size << " bytes at " << offset;
        }
        EXPECT_EQ(expected(0xff8, size), f.get_config(0xff8, size));
        EXPECT_EQ(expected(0x1000 - size, size), f.get_config(0x1000 - size, size));
    }
}

TEST_F(Config, read_of_nothing_and_of_everything_a_message_can_hold_succeeds) {
    Frontend f(path);
    EXPECT_EQ(expected(0, 0), f.get_config(0, 0));
    EXPECT_EQ(expected(0, 256), f.get_config(0, 256));
    EXPECT_EQ(expected(0xf00, 256), f.get_config(0xf00, 256));
}

TEST_F(Config, read_keeps_the_flags_and_needs_no_room_in_the_request) {
    Frontend f(path);
    ASSERT_TRUE(f.send(VHOST_USER_GET_CONFIG, request(4, 4, 1, 0)));
    const auto reply = f.receive();
    ASSERT_TRUE(reply);
    const auto header = request(4, 4, 1, 0);
    ASSERT_EQ(header.size() + 4, reply->payload.size());
    const auto data = reply->payload.begin() + ptrdiff_t(header.size());
    EXPECT_TRUE(std::equal(header.begin(), header.end(), reply->payload.begin()));
    EXPECT_EQ(expected(4, 4), std::vector(data, reply->payload.end()));
}

TEST_F(Config, read_outside_the_space_is_answered_with_an_empty_payload) {
    Frontend f(path);
    struct {
        uint32_t offset, size;
    } const cases[] = {{0xfff, 2}, {0x1001, 0}, {0xffffffff, 8}, {0, 257}, {0, 0xffffffff}};
    for (const auto& c : cases) {
        ASSERT_TRUE(f.send(VHOST_USER_GET_CONFIG, request(c.offset, c.size, 0, 8)));
        const auto reply = f.receive();
        ASSERT_TRUE(reply) << c.offset << "+" << c.size;
        EXPECT_EQ(VHOST_USER_GET_CONFIG, reply->request);
        EXPECT_EQ(0u, reply->payload.size());
    }
    EXPECT_TRUE(f.get_config(0, 8));
}

TEST_F(Config, write_reaches_the_device) {
    Frontend f(path);
    ASSERT_TRUE(f.ack(VHOST_USER_SET_CONFIG, request(36, 2, 0, 2)));
    ASSERT_TRUE(f.ack(VHOST_USER_SET_CONFIG, request(0xfff, 1, 0, 1)));
    EXPECT_EQ((Events{"connected", "config 36: 5a 5a", "config 4095: 5a"}), recorder.take());
}

TEST_F(Config, write_outside_the_space_or_cut_short_is_refused) {
    Frontend f(path);
    ASSERT_TRUE(f.get_config(0, 1));
    recorder.take();
    EXPECT_FALSE(f.ack(VHOST_USER_SET_CONFIG, request(0xfff, 2, 0, 2)));
    EXPECT_FALSE(f.ack(VHOST_USER_SET_CONFIG, request(0xffffffff, 4, 0, 4)));
    EXPECT_FALSE(f.ack(VHOST_USER_SET_CONFIG, request(0, 257, 0, 257)));
    EXPECT_FALSE(f.ack(VHOST_USER_SET_CONFIG, request(0, 4, 0, 3)));
    EXPECT_EQ(Events{}, recorder.take());
    EXPECT_TRUE(f.get_config(0, 1));
}

/// The library sends what came in back with a reply, and closes nothing.
TEST_F(Config, fds_with_the_request_are_neither_echoed_nor_kept) {
    Frontend f(path);
    ASSERT_TRUE(f.get_config(0, 1));
    const int before = count_fds();
    for (int i = 0; i < 10; ++i) {
        const Fd a = make_eventfd(), b = make_eventfd();
        const int fds[] = {a, b};
        ASSERT_TRUE(f.send(VHOST_USER_GET_CONFIG, request(0, 8, 0, 8), fds));
        const auto reply = f.receive();
        ASSERT_TRUE(reply);
        EXPECT_EQ(0, reply->fds);
        ASSERT_TRUE(f.ack(VHOST_USER_SET_CONFIG, request(0, 1, 0, 1), fds));
    }
    EXPECT_EQ(before, count_fds());
}

}  // namespace
}  // namespace viommu::vhost::test
