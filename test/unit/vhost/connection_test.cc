// SPDX-License-Identifier: BSD-3-Clause
#include "fixture.hh"

namespace viommu::vhost::test {
namespace {

using Connection = SocketTest;

TEST_F(Connection, second_is_refused_while_the_first_lives) {
    Frontend first(path);
    start(first);
    const uint64_t before = socket.refused_connections();
    for (uint64_t i = 1; i <= 3; ++i) {
        Frontend second(path);
        EXPECT_TRUE(second.is_closed());
        EXPECT_EQ(before + i, socket.refused_connections());
    }
    EXPECT_EQ(Events{}, recorder.take());
    EXPECT_TRUE(first.get_config(0, 8));
}

/// A VMM that reboots its guest closes and connects at once: the event thread may see the new
/// connection before the end of the old one.
TEST_F(Connection, next_right_after_the_end_is_never_refused) {
    const uint64_t refused = socket.refused_connections();
    Frontend f(path);
    for (int i = 0; i < 50; ++i) {
        start(f);
        f.disconnect();
        f = Frontend(path);
        ASSERT_TRUE(f.get_config(0, 8)) << "connection " << i;
        ASSERT_EQ(
            (Events{"stop 0 disconnected", "stop 1 disconnected", "disconnected", "connected"}),
            recorder.take());
    }
    EXPECT_EQ(refused, socket.refused_connections());
}

TEST_F(Connection, next_starts_from_nothing) {
    {
        Frontend f(path);
        start(f);
    }
    Frontend f(path);
    ASSERT_TRUE(f.set_features(kVersion1 | kProtocolFeaturesBit));
    ASSERT_TRUE(f.set_mem_table(kMemory));
    ASSERT_TRUE(f.set_enable(0, true));
    EXPECT_FALSE(recorder.happened(started(0)));
}

TEST_F(Connection, ended_stops_queues_while_memory_is_mapped) {
    Frontend f(path);
    start(f);  // the Recorder touches memory and fds in each stop
    f.disconnect();
    ASSERT_TRUE(eventually([&] { return recorder.happened("disconnected"); }));
    EXPECT_EQ((Events{"stop 0 disconnected", "stop 1 disconnected", "disconnected"}),
              recorder.take());
}

TEST_F(Connection, destroying_the_socket_stops_queues_and_removes_the_file) {
    Device device;
    Frontend f(device.path);
    ASSERT_TRUE(f.set_features(kVersion1));
    ASSERT_TRUE(f.set_mem_table(kMemory));
    set_up(f, 0);
    device.recorder.take();
    device.socket.reset();
    EXPECT_EQ((Events{"stop 0 disconnected", "disconnected"}), device.recorder.take());
    EXPECT_TRUE(f.is_closed());
    EXPECT_FALSE(std::filesystem::exists(device.path));
    device.listen();
    Frontend again(device.path);
    EXPECT_TRUE(again.get_config(0, 8));
}

TEST_F(Connection, destroying_the_socket_while_messages_come_in_ends_cleanly) {
    for (int i = 0; i < 3; ++i) {
        Device device;
        std::atomic<bool> sending{false};
        std::thread other([&] {
            Frontend f(device.path);
            while (f.get_config(0, 8)) sending = true;
        });
        const bool sent = eventually([&] { return sending.load(); });
        device.socket.reset();
        other.join();
        EXPECT_TRUE(sent);
        EXPECT_EQ((Events{"connected", "disconnected"}), device.recorder.take());
    }
}

/// A complete start-up, cut off after each message and in the middle of each.
class CutOff : public SocketTest {
  protected:
    struct Message {
        uint32_t request;
        std::vector<std::byte> payload;
        int fds;
    };
    static std::vector<Message> script() {
        const auto state = [](uint32_t q, uint32_t n) {
            return bytes_of(vhost_user_vring_state{.index = q, .num = n});
        };
        auto table = bytes_of(vhost_user_mem_header{.num_regions = 1, .padding = 0});
        const auto region = bytes_of(vhost_user_mem_region{.guest_phys_addr = 0,
                                                           .memory_size = 0x100000,
                                                           .userspace_addr = kUva,
                                                           .mmap_offset = 0});
        table.insert(table.end(), region.begin(), region.end());
        const auto addr = bytes_of(vhost_user_vring_addr{
            .index = 0, .flags = 0, .desc = kUva, .used = kUva, .avail = kUva, .log = 0});
        auto config = bytes_of(vhost_user_config_header{.offset = 0, .size = 8, .flags = 0});
        config.resize(config.size() + 8);
        return {
            {VHOST_USER_SET_OWNER, {}, 0},
            {VHOST_USER_GET_FEATURES, {}, 0},
            {VHOST_USER_GET_CONFIG, config, 0},
            {VHOST_USER_SET_CONFIG, config, 0},
            {VHOST_USER_SET_FEATURES, bytes_of(kVersion1 | kProtocolFeaturesBit), 0},
            {VHOST_USER_SET_MEM_TABLE, table, 1},
            {VHOST_USER_SET_VRING_NUM, state(0, 256), 0},
            {VHOST_USER_SET_VRING_ADDR, addr, 0},
            {VHOST_USER_SET_VRING_BASE, state(0, 0), 0},
            {VHOST_USER_SET_VRING_KICK, bytes_of(uint64_t(0)), 1},
            {VHOST_USER_SET_VRING_CALL, bytes_of(uint64_t(0)), 1},
            {VHOST_USER_SET_VRING_ENABLE, state(0, 1), 0},
            {VHOST_USER_SET_VRING_CALL, bytes_of(uint64_t(0)), 1},
            {VHOST_USER_SET_MEM_TABLE, table, 1},
            {VHOST_USER_SET_VRING_ENABLE, state(0, 0), 0},
            {VHOST_USER_SET_VRING_ENABLE, state(0, 1), 0},
            {VHOST_USER_GET_VRING_BASE, state(0, 0), 0},
        };
    }
    static void send(Frontend& f, const Message& m) {
        const Fd memory = make_memory(0x100000), event = make_eventfd();
        const int fd = m.request == VHOST_USER_SET_MEM_TABLE ? memory : event;
        ASSERT_TRUE(f.send(m.request, m.payload, std::span(&fd, size_t(m.fds))));
    }
    /// Starts and stops are balanced, and the server lives.
    void expect_clean_end() {
        ASSERT_TRUE(eventually([&] { return recorder.happened("disconnected"); }));
        int starts = 0, stops = 0, ends = 0;
        for (const string& e : recorder.take()) {
            starts += e.starts_with("start ");
            stops += e.starts_with("stop ");
            ends += e == "disconnected";
        }
        EXPECT_EQ(starts, stops);
        EXPECT_EQ(1, ends);
        Frontend next(path);
        EXPECT_TRUE(next.get_config(0, 8));
        next.disconnect();
        ASSERT_TRUE(eventually([&] { return recorder.happened("disconnected"); }));
        recorder.take();
    }
};

TEST_F(CutOff, after_each_message_stops_queues_exactly_once) {
    const auto messages = script();
    for (size_t n = 0; n <= messages.size(); ++n) {
        Frontend f(path);
        for (size_t i = 0; i < n; ++i) send(f, messages[i]);
        f.disconnect();
        expect_clean_end();
    }
}

TEST_F(CutOff, within_each_message_stops_queues_exactly_once) {
    const auto messages = script();
    for (size_t n = 0; n < messages.size(); ++n) {
        const auto header =
            bytes_of(vhost_user_header{.request = messages[n].request,
                                       .flags = kVhostUserVersion,
                                       .size = uint32_t(messages[n].payload.size())});
        auto whole = header;
        whole.insert(whole.end(), messages[n].payload.begin(), messages[n].payload.end());
        for (const size_t bytes : {size_t(1), size_t(11), size_t(12), whole.size() - 1}) {
            if (bytes >= whole.size()) continue;
            Frontend f(path);
            for (size_t i = 0; i < n; ++i) send(f, messages[i]);
            ASSERT_TRUE(f.send_raw(std::span(whole).first(bytes)));
            f.disconnect();
            expect_clean_end();
        }
    }
}

/// The library reads messages in one thread for all sockets.
TEST_F(Connection, stopped_in_the_middle_of_a_message_does_not_stop_others) {
    Device other;
    Frontend stuck(path), works(other.path);
    ASSERT_TRUE(works.get_config(0, 8));
    ASSERT_TRUE(stuck.send(VHOST_USER_SET_FEATURES, {}, {}, kVhostUserVersion, 8));
    EXPECT_TRUE(works.get_config(0, 8));  // within receive()'s patience, though stuck stays open
    EXPECT_TRUE(stuck.is_closed());
}

TEST_F(Connection, of_another_socket_is_independent) {
    Device other;
    Frontend a(path), b(other.path);
    start(a);
    ASSERT_TRUE(b.get_config(0, 8));
    b.disconnect();
    ASSERT_TRUE(eventually([&] { return other.recorder.happened("disconnected"); }));
    EXPECT_EQ(Events{}, recorder.take());
    other.socket.reset();
    EXPECT_TRUE(a.get_config(0, 8));
}

}  // namespace
}  // namespace viommu::vhost::test
