// SPDX-License-Identifier: BSD-3-Clause
/// Both ends in one process.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <fstream>

#include "seqpacket.hh"
#include "served.hh"

namespace viommu::share {
namespace {

/// A client by hand: what it got, and what it likes to send.
struct RawClient {
    explicit RawClient(const std::string& path) : socket(std::move(*connect_to(path, 5s))) {
        EXPECT_TRUE(eventually([&] {
            packet =
                receive_packet(socket.get(), std::as_writable_bytes(std::span(&hello, 1)), &fds);
            return packet.error != EAGAIN;
        }));
    }
    int send(const FaultMessage& m, size_t bytes = sizeof(FaultMessage)) {
        std::vector<std::byte> data(std::max(bytes, sizeof m));
        std::memcpy(data.data(), &m, sizeof m);
        return send_packet(socket.get(), std::span(data).first(bytes));
    }
    bool closed() {
        return eventually([&] {
            std::byte b;
            return receive_packet(socket.get(), {&b, 1}).error != EAGAIN;
        });
    }

    Fd socket;
    Hello hello;
    Packet packet;
    std::vector<Fd> fds;
};

const FaultMessage kFault{.endpoint = kEndpoint, .address = 0x1000, .reason = 2, .access = 1};

TEST(Share, client_translates_what_the_writer_maps) {
    Served s;
    ASSERT_EQ(s.map(1, 0x40000000), Status::kOk);
    auto client = Client::connect(s.directory.socket());
    ASSERT_TRUE(client) << client.error().message;
    EXPECT_EQ(client->guest(), "vm0");
    EXPECT_TRUE(client->connected());
    auto reader = client->reader(kEndpoint);
    ASSERT_TRUE(reader) << reader.error().message;
    reader->enter();
    const auto t = reader->translate({0x1008}, 8, Access::kWrite);
    ASSERT_TRUE(t);
    EXPECT_EQ(t.gpa(), Gpa{0x40000008});
    EXPECT_EQ(reader->translate({0x2000}, 8, Access::kRead).fault(), xlate::FaultReason::kMapping);
    ASSERT_EQ(s.unmap(1), Status::kOk);
    const auto token = s.table->start_grace();
    EXPECT_FALSE(s.table->grace_over(token));
    reader->leave();
    EXPECT_TRUE(s.table->grace_over(token));
    reader->enter();
    EXPECT_FALSE(reader->translate({0x1008}, 8, Access::kRead));
    reader->leave();
    EXPECT_EQ(s.server->processes(), 1u);
    EXPECT_EQ(s.server->readers(), 1u);
}

TEST(Share, socket_is_for_this_user_only) {
    Served s;
    struct stat file;
    ASSERT_EQ(stat(s.directory.socket().c_str(), &file), 0);
    EXPECT_EQ(file.st_mode & 0777, 0600u);
}

TEST(Share, client_cannot_write_the_arena_in_any_way) {
    Served s;
    RawClient client(s.directory.socket());
    ASSERT_EQ(client.fds.size(), 2u);
    const int arena = client.fds[0].get();
    EXPECT_EQ(fcntl(arena, F_GETFL) & O_ACCMODE, O_RDONLY);
    EXPECT_EQ(mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED, arena, 0), MAP_FAILED);
    EXPECT_EQ(errno, EACCES);
    void* at = mmap(nullptr, kPage, PROT_READ, MAP_SHARED, arena, 0);
    ASSERT_NE(at, MAP_FAILED);
    EXPECT_EQ(mprotect(at, kPage, PROT_READ | PROT_WRITE), -1);
    EXPECT_EQ(errno, EACCES);
    munmap(at, kPage);
    EXPECT_EQ(ftruncate(arena, 0), -1);
    EXPECT_EQ(pwrite(arena, "x", 1, 0), -1);
    // Opened again for writing, which nothing prevents: the seal does.
    const Fd again(open(fmt::format("/proc/self/fd/{}", arena).c_str(), O_RDWR));
    ASSERT_TRUE(again) << strerror(errno);
    EXPECT_EQ(mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED, again.get(), 0), MAP_FAILED);
    EXPECT_EQ(errno, EPERM);
    EXPECT_EQ(pwrite(again.get(), "x", 1, 0), -1);
    EXPECT_EQ(ftruncate(again.get(), 0), -1);
    EXPECT_EQ(ftruncate(client.fds[1].get(), 0), -1);
}

TEST(Share, fault_reaches_the_writer) {
    Served s;
    auto client = std::move(*Client::connect(s.directory.socket()));
    auto reader = std::move(*client.reader(kEndpoint));
    reader.report({0x1234}, Access::kWrite, xlate::FaultReason::kMapping);
    xlate::Fault fault;
    ASSERT_TRUE(eventually([&] { return s.faults.pop(fault); }));
    EXPECT_EQ(fault.address, Iova{0x1234});
    EXPECT_EQ(fault.endpoint, kEndpoint);
    EXPECT_EQ(fault.access, Access::kWrite);
    EXPECT_EQ(fault.reason, xlate::FaultReason::kMapping);
    EXPECT_TRUE(eventually([&] { return s.server->stats().faults.was() == 1; }));
    EXPECT_EQ(reader.lost_faults(), 0u);
}

TEST(Share, faults_beyond_the_rate_are_lost_and_counted_on_both_sides) {
    Served s({.faults_per_second = 10});
    auto client = std::move(*Client::connect(s.directory.socket()));
    auto reader = std::move(*client.reader(kEndpoint));
    for (int i = 0; i < 100; ++i) reader.report({0}, Access::kRead, xlate::FaultReason::kMapping);
    EXPECT_GE(reader.lost_faults(), 80u);
    EXPECT_EQ(client.lost_faults(), reader.lost_faults());
    const uint64_t lost = reader.lost_faults();
    ASSERT_TRUE(eventually([&] {  // told with the next that is sent
        reader.report({0}, Access::kRead, xlate::FaultReason::kMapping);
        return s.server->stats().faults_unsent.was() >= lost;
    }));
    EXPECT_LE(s.server->stats().faults.was(), 30u);
}

TEST(Share, faults_that_the_queue_does_not_take_are_counted) {
    Served s;
    while (s.faults.push({{0}, kEndpoint, xlate::FaultReason::kMapping, Access::kRead}))
        ;
    RawClient client(s.directory.socket());
    ASSERT_EQ(client.send(kFault), 0);
    EXPECT_TRUE(eventually([&] { return s.server->stats().faults_lost.was() == 1; }));
}

TEST(Share, nonsense_ends_the_connection_and_is_counted) {
    Served s;
    const auto refused = [&](auto change, size_t bytes = sizeof(FaultMessage)) {
        RawClient client(s.directory.socket());
        ASSERT_EQ(client.send(kFault), 0);
        FaultMessage m = kFault;
        change(m);
        ASSERT_EQ(client.send(m, bytes), 0);
        EXPECT_TRUE(client.closed());
    };
    refused([](FaultMessage& m) { m.type = 2; });
    refused([](FaultMessage& m) { m.endpoint = 9; });
    refused([](FaultMessage& m) { m.reason = 3; });
    refused([](FaultMessage& m) { m.access = 0; });
    refused([](FaultMessage& m) { m.access = 4; });
    refused([](FaultMessage& m) { m.access = 9; });
    refused([](FaultMessage& m) { m.reserved[2] = 1; });
    refused([](FaultMessage&) {}, 31);
    refused([](FaultMessage&) {}, 33);
    refused([](FaultMessage&) {}, 60000);
    EXPECT_EQ(s.server->stats().nonsense.was(), 10u);
    EXPECT_EQ(s.server->stats().faults.was(), 10u);
    EXPECT_NE(s.log().find("60000 bytes that are no fault report"), std::string::npos) << s.log();
    EXPECT_EQ(s.server->processes(), 0u);
}

TEST(Share, client_that_goes_in_a_section_holds_up_nothing) {
    Served s({.stall_bound = 60s});
    std::optional<Client> client(std::move(*Client::connect(s.directory.socket())));
    {
        auto reader = std::move(*client->reader(kEndpoint));
        reader.enter();
        const auto token = s.table->start_grace();
        EXPECT_FALSE(s.table->grace_over(token));
    }
    client.reset();
    EXPECT_TRUE(s.wait_for_readers(20s));
    EXPECT_TRUE(eventually([&] { return s.server->processes() == 0; }));
    EXPECT_EQ(s.server->stats().left.was(), 1u);
}

TEST(Share, process_that_is_one_too_many_is_told_so) {
    Served s;
    std::vector<Client> clients;
    for (unsigned i = 0; i < 64; ++i) {
        auto client = Client::connect(s.directory.socket());
        ASSERT_TRUE(client) << client.error().message;
        clients.push_back(std::move(*client));
    }
    const auto more = Client::connect(s.directory.socket());
    ASSERT_FALSE(more);
    EXPECT_NE(more.error().message.find("refused: process"), std::string::npos)
        << more.error().message;
    EXPECT_NE(more.error().message.find("all 64 places"), std::string::npos);
    EXPECT_EQ(s.server->stats().refused.was(), 1u);
    clients.pop_back();
    EXPECT_TRUE(eventually([&] { return s.server->processes() == 63; }));
    EXPECT_TRUE(Client::connect(s.directory.socket()));
}

TEST(Share, reader_that_is_one_too_many_is_told_so) {
    Served s;
    auto client = std::move(*Client::connect(s.directory.socket()));
    {
        std::vector<xlate::Reader> readers;
        for (unsigned i = 0; i < 64; ++i) readers.push_back(std::move(*client.reader(kEndpoint)));
        const auto more = client.reader(kEndpoint);
        ASSERT_FALSE(more);
        EXPECT_NE(more.error().message.find("all 64 readers"), std::string::npos);
        EXPECT_EQ(s.server->readers(), 64u);
        for (auto& reader : readers) reader.enter();
        EXPECT_FALSE(s.table->grace_over(s.table->start_grace()));
        for (auto& reader : readers) reader.leave();
        EXPECT_TRUE(s.table->grace_over(s.table->start_grace()));
    }
    EXPECT_EQ(s.server->readers(), 0u);
    EXPECT_FALSE(client.reader(99));  // no such endpoint: the slot goes back
    EXPECT_EQ(s.server->readers(), 0u);
}

TEST(Share, readers_go_on_without_the_daemon_and_can_tell) {
    Served s;
    ASSERT_EQ(s.map(1, 0x40000000), Status::kOk);
    auto client = std::move(*Client::connect(s.directory.socket()));
    auto reader = std::move(*client.reader(kEndpoint));
    EXPECT_TRUE(client.connected());
    s.stop();
    EXPECT_FALSE(client.connected());
    reader.enter();
    EXPECT_TRUE(reader.translate({0x1000}, 8, Access::kRead));
    reader.leave();
    reader.report({0}, Access::kRead, xlate::FaultReason::kMapping);
    EXPECT_EQ(reader.lost_faults(), 1u);
}

TEST(Share, stalled_client_that_cannot_be_killed_is_taken_offline_with_a_loud_word) {
    Served s({.stall_bound = 50ms});  // a client of the server's own process is not killed
    auto client = std::move(*Client::connect(s.directory.socket()));
    auto reader = std::move(*client.reader(kEndpoint));
    reader.enter();
    const auto waited = s.wait_for_readers();
    ASSERT_TRUE(waited);
    EXPECT_GE(*waited, 50ms);
    EXPECT_EQ(s.server->stats().disconnected.was(), 1u);
    EXPECT_FALSE(client.connected());
    EXPECT_NE(s.log().find("MAY OUTLIVE ITS UNMAP"), std::string::npos) << s.log();
    reader.leave();
}

TEST(Share, client_that_waits_in_sections_only_while_nobody_asks_is_left_alone) {
    Served s({.stall_bound = 20ms});
    auto client = std::move(*Client::connect(s.directory.socket()));
    auto reader = std::move(*client.reader(kEndpoint));
    reader.enter();
    std::this_thread::sleep_for(200ms);
    EXPECT_TRUE(client.connected());
    reader.leave();
}

TEST(Share, client_that_left_while_the_writer_did_not_look_is_left_alone) {
    Served s({.stall_bound = 20ms});
    auto client = std::move(*Client::connect(s.directory.socket()));
    auto reader = std::move(*client.reader(kEndpoint));
    reader.enter();
    const auto token = s.table->start_grace();
    EXPECT_FALSE(s.table->grace_over(token));
    reader.leave();
    reader.enter();
    std::this_thread::sleep_for(200ms);
    EXPECT_TRUE(client.connected());
    reader.leave();
    EXPECT_TRUE(s.table->grace_over(token));
}

TEST(Share, child_of_a_client_can_go_without_harm) {
    Served s;
    std::optional<Client> client(std::move(*Client::connect(s.directory.socket())));
    std::optional<xlate::Reader> reader(std::move(*client->reader(kEndpoint)));
    reader->enter();
    const pid_t pid = fork();
    if (pid == 0) {
        reader.reset();
        client.reset();
        _exit(0);
    }
    int status = -1;
    ASSERT_EQ(waitpid(pid, &status, 0), pid);
    EXPECT_EQ(status, 0);
    EXPECT_FALSE(s.table->grace_over(s.table->start_grace()));  // still waited for
    EXPECT_EQ(s.server->readers(), 1u);
    reader->leave();
}

TEST(Share, place_of_a_dead_server_is_taken_and_of_a_living_one_is_not) {
    Served s;
    const auto second = Server::listen({.path = s.directory.socket()}, *s.table, s.faults, {});
    ASSERT_FALSE(second);
    EXPECT_NE(second.error().message.find("another process seems to serve it"), std::string::npos);
    const Directory other;
    { const Fd dead(std::move(*listen_at(other.socket(), 1))); }
    EXPECT_TRUE(Server::listen({.path = other.socket()}, *s.table, s.faults, {}));
    std::ofstream(other.socket()) << "not a socket";
    EXPECT_FALSE(Server::listen({.path = other.socket()}, *s.table, s.faults, {}));
}

/// What the client says of a server that sends this.
std::string answer_to(std::span<const std::byte> hello, std::span<const int> fds = {}) {
    const Directory directory;
    const Fd listener = std::move(*listen_at(directory.socket(), 1));
    std::thread server([&] {
        Fd peer;
        EXPECT_TRUE(eventually([&] {
            peer.reset(accept(listener.get(), nullptr, nullptr));
            return bool(peer);
        }));
        if (!hello.empty()) {
            EXPECT_EQ(send_packet(peer.get(), hello, fds), 0);
        }
    });
    const auto client = Client::connect(directory.socket(), 5s);
    server.join();
    return client ? "connected" : client.error().message;
}
std::string answer_to(const Hello& hello, std::span<const int> fds = {}) {
    return answer_to(std::as_bytes(std::span(&hello, 1)), fds);
}
#define EXPECT_SAYS(message, text) \
    EXPECT_NE(std::string(message).find(text), std::string::npos) << (message)

TEST(Hello, of_another_version_is_refused_with_both_numbers) {
    EXPECT_SAYS(answer_to(Hello{.version = 7}), "speaks version 7 and this program version 1");
    // Of which nothing is known but its beginning.
    const Hello newer{.version = 8};
    EXPECT_SAYS(answer_to(std::as_bytes(std::span(&newer, 1)).first(20)), "speaks version 8");
}

TEST(Hello, that_is_none_is_refused) {
    EXPECT_SAYS(answer_to(Hello{.magic = 1}), "is not dpdk-viommu");
    EXPECT_SAYS(answer_to(std::as_bytes(std::span("hello"))), "is not dpdk-viommu");
    EXPECT_SAYS(answer_to(std::span<const std::byte>()), "closed the connection");
    EXPECT_SAYS(answer_to(Hello{}), "sent 0 descriptors");
    EXPECT_SAYS(answer_to(Hello{.refused = 1}), "the daemon refused");
    const Hello good;
    EXPECT_SAYS(answer_to(std::as_bytes(std::span(&good, 1)).first(100)), "has 100 bytes");
    const Fd null(open("/dev/null", O_RDWR));
    const int fds[] = {null.get(), null.get()};
    EXPECT_SAYS(answer_to(good, fds), "not an arena");
    auto table = std::move(*table::Table::create({}));
    const int no_page[] = {table->arena().fd(), null.get()};
    EXPECT_SAYS(answer_to(good, no_page), "no reader's page");
}

TEST(Hello, that_does_not_come_is_not_waited_for) {
    const Directory directory;
    const Fd listener = std::move(*listen_at(directory.socket(), 1));
    const auto client = Client::connect(directory.socket(), 50ms);
    ASSERT_FALSE(client);
    EXPECT_SAYS(client.error().message, "did not answer in 50 ms");
    EXPECT_SAYS(Client::connect("/nonexistent/socket", 10ms).error().message,
                "is dpdk-viommu running");
}

}  // namespace
}  // namespace viommu::share
