// SPDX-License-Identifier: BSD-3-Clause
/// VMMs that break off, and guests that lie, beside a guest that must not notice.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <random>

#include "daemon.hh"
#include "viommu_guest.hh"

namespace viommu::e2e {
namespace {

using namespace guest;

constexpr const char* kTwoGuests = R"(
poll = "adaptive"
[[guest]]
name = "good"
socket = "@DIR@/good.sock"
lcore = 1
  [[guest.endpoint]]
  id = "0000:00:04.0"
[[guest]]
name = "bad"
socket = "@DIR@/bad.sock"
lcore = 1
  [[guest.net]]
  name = "net0"
  socket = "@DIR@/bad-net.sock"
  endpoint = "0000:00:04.0"
  lcore = 1
)";
constexpr EndpointId kEndpoint = 0x20;
constexpr uint64_t kPage = 4096;

struct Hostile : testing::Test {
    void SetUp() override {
        ASSERT_TRUE(daemon) << daemon.error().message;
        auto started = start("good.sock", *good_memory);
        ASSERT_TRUE(started) << started.error().message;
        good = std::move(*started);
        ASSERT_EQ(good->attach(1, kEndpoint), Status::kOk);
    }
    void TearDown() override {
        still_good();
        const auto stopped = daemon->stop();
        EXPECT_TRUE(stopped) << stopped.error().message;
    }
    Result<std::unique_ptr<IommuDriver>> start(const std::string& socket, Memory& memory) {
        IommuOptions o;
        o.frontend.socket = daemon->path(socket);
        return IommuDriver::start(memory, o);
    }
    /// The good guest gets answers, and in time.
    void still_good() {
        const auto begin = std::chrono::steady_clock::now();
        EXPECT_EQ(good->map(1, {{kPage}, {2 * kPage - 1}}, Gpa{0}), Status::kOk);
        EXPECT_EQ(good->unmap(1, {{kPage}, {2 * kPage - 1}}), Status::kOk);
        EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(4));
        ASSERT_TRUE(daemon->running()) << daemon->log();
    }
    /// A well-behaved guest on the bad socket: what came before has cost nothing.
    void bad_socket_serves_again() {
        auto memory = std::move(*Memory::create(uint64_t{1} << 20));
        auto driver = start("bad.sock", *memory);
        ASSERT_TRUE(driver) << driver.error().message;
        EXPECT_EQ((*driver)->attach(1, kEndpoint), Status::kOk);
    }
    Channel raw(const std::string& socket = "bad.sock") {
        auto channel = Channel::connect(daemon->path(socket), Milliseconds(5000));
        EXPECT_TRUE(channel) << channel.error().message;
        return std::move(*channel);
    }
    static std::vector<std::byte> message(uint32_t request, uint32_t flags, uint32_t size,
                                          size_t bytes) {
        wire::vhost_user_header h{request, flags, size};
        std::vector<std::byte> out(sizeof h + bytes, std::byte{0x41});
        std::memcpy(out.data(), &h, sizeof h);
        return out;
    }

    Result<Daemon> daemon = Daemon::start(kTwoGuests);
    std::unique_ptr<Memory> good_memory = std::move(*Memory::create(uint64_t{16} << 20));
    std::unique_ptr<IommuDriver> good;
};

TEST_F(Hostile, message_cut_anywhere_costs_its_connection_only) {
    const auto whole = message(wire::VHOST_USER_SET_MEM_TABLE, 1, 40, 40);
    for (size_t n = 1; n < whole.size(); n += 7) {
        auto channel = raw();
        ASSERT_TRUE(channel.send({whole.data(), n}));
        channel.close();
    }
    bad_socket_serves_again();
}

TEST_F(Hostile, message_that_never_ends_delays_others_at_most_a_second) {
    auto channel = raw();
    ASSERT_TRUE(channel.send(message(wire::VHOST_USER_SET_MEM_TABLE, 1, 40, 3)));
    std::byte b[1];
    wire::virtio_iommu_config c;
    EXPECT_TRUE(good->frontend().read_config(0, std::as_writable_bytes(std::span(&c, 1))));
    still_good();
    EXPECT_FALSE(channel.receive(b)) << "the daemon has given it up";
    bad_socket_serves_again();
}

TEST_F(Hostile, nonsense_messages_cost_their_connection_only) {
    std::mt19937 rng(7);
    for (int i = 0; i < 200; ++i) {
        auto channel = raw(i % 3 == 0 ? "bad-net.sock" : "bad.sock");
        for (int k = 0; k < 4; ++k) {
            const uint32_t size = rng() % 64;
            auto m = message(rng() % 48, 1 | (rng() % 2) << 3, rng() % 8 ? size : uint32_t(rng()),
                             size);
            for (size_t b = 12; b < m.size(); ++b) m[b] = std::byte(rng());
            if (!channel.send(m)) break;
        }
    }
    bad_socket_serves_again();
}

TEST_F(Hostile, memory_table_without_descriptors_costs_its_connection_only) {
    auto channel = raw();
    auto m = message(wire::VHOST_USER_SET_MEM_TABLE, 1, 40, 40);
    const uint32_t regions = 1;
    std::memcpy(m.data() + 12, &regions, 4);
    ASSERT_TRUE(channel.send(m));
    std::byte b[1];
    EXPECT_FALSE(channel.receive(b));
    bad_socket_serves_again();
}

TEST_F(Hostile, frontend_that_vanishes_with_requests_in_flight) {
    for (int round = 0; round < 10; ++round) {
        auto memory = std::move(*Memory::create(uint64_t{1} << 20));
        auto bad = start("bad.sock", *memory);
        ASSERT_TRUE(bad) << bad.error().message;
        ASSERT_EQ((*bad)->attach(1, kEndpoint), Status::kOk);
        // Put requests into the ring, kick, and go without waiting.
        const auto at = memory->allocate(1);
        ASSERT_TRUE(at);
        const auto r = Request::map(1, {{0}, {kPage - 1}}, Gpa{0}, Access::kRead);
        std::memcpy(memory->at(*at), r.out.data(), r.out_bytes);
        const guest::Segment out{BusAddress{at->value}, r.out_bytes};
        const guest::Segment in{BusAddress{at->value + 128}, 4};
        auto& queue = (*bad)->request_queue();
        while (queue.add({&out, 1}, {&in, 1}, 0)) {
        }
        queue.kick();
        (*bad)->frontend().disconnect();
    }
    bad_socket_serves_again();
}

TEST_F(Hostile, descriptors_that_lie_are_survived) {
    auto memory = std::move(*Memory::create(uint64_t{1} << 20));
    auto bad = start("bad.sock", *memory);
    ASSERT_TRUE(bad) << bad.error().message;
    std::mt19937 rng(3);
    for (int i = 0; i < 300; ++i) {
        std::vector<guest::Segment> segments[2];
        for (auto& list : segments)
            for (unsigned n = rng() % 4; n > 0; --n)
                list.push_back({BusAddress{rng() % 2 ? rng() % (1u << 20) : uint64_t{rng()} << 32},
                                uint32_t(rng() % 3 ? rng() % 100 : rng())});
        if (segments[0].empty() && segments[1].empty()) continue;
        const auto c = (*bad)->submit_segments(segments[0], segments[1]);
        ASSERT_TRUE(c) << c.error().message;
    }
    EXPECT_EQ((*bad)->attach(1, kEndpoint), Status::kOk);
}

TEST_F(Hostile, ring_full_of_noise_stops_that_queue_only) {
    std::mt19937 rng(5);
    for (int round = 0; round < 20; ++round) {
        auto memory = std::move(*Memory::create(uint64_t{1} << 20));
        auto bad = start("bad.sock", *memory);
        ASSERT_TRUE(bad) << bad.error().message;
        const DmaBlock& ring = (*bad)->request_queue().ring();
        std::vector<std::byte> noise(ring.bytes);
        for (auto& b : noise) b = std::byte(rng());
        ring.write(0, noise);
        (*bad)->request_queue().kick();
        still_good();
    }
    bad_socket_serves_again();
}

}  // namespace
}  // namespace viommu::e2e
