// SPDX-License-Identifier: BSD-3-Clause
/// Three processes: the daemon, a reader that has its table, and this one, the guest.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <filesystem>
#include <future>

#include "daemon.hh"
#include "viommu_guest.hh"

namespace viommu::e2e {
namespace {

using namespace guest;
using namespace std::chrono_literals;

constexpr const char* kConfig = R"(
poll = "adaptive"
[[guest]]
name = "vm0"
socket = "@DIR@/iommu.sock"
lcore = 1
bypass = false
readers = "@DIR@/readers/readers.sock"
reader_stall_ms = @STALL@
  [[guest.endpoint]]
  id = "0000:00:04.0"
)";
constexpr EndpointId kEndpoint = 0x20;
constexpr IovaRange kPage{{0x1000}, {0x1fff}};

/// test/unit/share/reader_process.cc, with its standard input and output.
class ReaderProcess {
  public:
    ReaderProcess(const char* mode, const std::string& socket) {
        const char* program = std::getenv("VIOMMU_READER_PROCESS");
        EXPECT_NE(program, nullptr) << "VIOMMU_READER_PROCESS must name the program";
        int in[2], out[2];
        EXPECT_EQ(pipe2(in, O_CLOEXEC) | pipe2(out, O_CLOEXEC), 0);
        const Fd child_in(in[0]), child_out(out[1]);
        in_.reset(in[1]);
        out_.reset(out[0]);
        posix_spawn_file_actions_t actions;
        posix_spawn_file_actions_init(&actions);
        posix_spawn_file_actions_adddup2(&actions, child_in.get(), 0);
        posix_spawn_file_actions_adddup2(&actions, child_out.get(), 1);
        std::string args[] = {"reader-process", mode, socket, std::to_string(kEndpoint)};
        char* argv[] = {args[0].data(), args[1].data(), args[2].data(), args[3].data(), nullptr};
        if (program != nullptr) {
            EXPECT_EQ(posix_spawn(&pid_, program, &actions, nullptr, argv, environ), 0);
        }
        posix_spawn_file_actions_destroy(&actions);
    }
    ~ReaderProcess() {
        if (pid_ <= 0) return;
        kill(pid_, SIGKILL);
        waitpid(pid_, nullptr, 0);
    }
    /// Its next line; empty: none came in time.
    std::string line() {
        std::string text;
        for (char c = 0; c != '\n';) {
            pollfd p{out_.get(), POLLIN, 0};
            if (::poll(&p, 1, 60'000) != 1 || read(out_.get(), &c, 1) != 1) return {};
            if (c != '\n') text += c;
        }
        return text;
    }
    void go() { EXPECT_EQ(write(in_.get(), "\n", 1), 1); }
    /// Wait for its end. The signal that ended it, or 0.
    int ended_by() {
        int status = 0;
        EXPECT_EQ(waitpid(pid_, &status, 0), pid_);
        pid_ = -1;
        return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    }

  private:
    pid_t pid_ = -1;
    Fd in_, out_;
};

struct Readers : testing::Test {
    void SetUp() override {
#ifdef __SANITIZE_THREAD__
        // The daemon exchanges a process's page under those who look into it, by mmap(). TSan takes
        // that for a write of its own; test/stress/processes_stress.cc runs under it.
        GTEST_SKIP() << "TSan does not know that mmap() over a page is atomic to who reads it";
#endif
    }
    void start(const std::string& stall_ms) {
        std::string config = kConfig;
        config.replace(config.find("@STALL@"), 7, stall_ms);
        auto started = Daemon::start(config);
        ASSERT_TRUE(started) << started.error().message;
        daemon.emplace(std::move(*started));
        options.frontend.socket = daemon->path("iommu.sock");
        iommu = connect();
        ASSERT_EQ(iommu->attach(1, kEndpoint), Status::kOk);
        ASSERT_EQ(iommu->map(1, kPage, {0x5000}), Status::kOk);
    }
    std::unique_ptr<IommuDriver> connect() {
        auto driver = IommuDriver::start(*memory, options);
        EXPECT_TRUE(driver) << driver.error().message;
        return std::move(*driver);
    }
    void TearDown() override {
        iommu.reset();
        if (!daemon) return;
        const auto stopped = daemon->stop();
        EXPECT_TRUE(stopped) << stopped.error().message;
    }
    std::string socket() const { return daemon->path("readers/readers.sock"); }
    uint64_t counter(const std::string& name) {
        const auto all = daemon->counters();
        EXPECT_TRUE(all) << all.error().message;
        EXPECT_TRUE(all->count("guest.vm0.readers." + name)) << name;
        return all->at("guest.vm0.readers." + name);
    }

    std::optional<Daemon> daemon;
    std::unique_ptr<Memory> memory = std::move(*Memory::create(uint64_t{16} << 20));
    IommuOptions options;
    std::unique_ptr<IommuDriver> iommu;
};

TEST_F(Readers, in_another_process_sees_maps_and_unmaps_wait_for_it) {
    start("600000");
    struct stat file;
    ASSERT_EQ(stat(socket().c_str(), &file), 0);
    EXPECT_EQ(file.st_mode & 0777, 0600u);
    ReaderProcess reader("hold", socket());
    EXPECT_EQ(reader.line(), "0x5000");
    EXPECT_EQ(counter("processes"), 1u);
    EXPECT_EQ(counter("threads"), 1u);

    auto unmapped = std::async(std::launch::async, [&] { return iommu->unmap(1, kPage); });
    EXPECT_EQ(unmapped.wait_for(300ms), std::future_status::timeout);
    reader.go();
    EXPECT_EQ(reader.line(), "left");
    EXPECT_EQ(unmapped.get(), Status::kOk);
    reader.go();
    EXPECT_EQ(reader.line(), "0xffffffffffffffff");
    reader.go();
    EXPECT_EQ(reader.line(), "left");

    ASSERT_EQ(iommu->map(1, kPage, {0x7000}), Status::kOk);
    reader.go();
    EXPECT_EQ(reader.line(), "0x7000");
}

TEST_F(Readers, keep_the_table_when_the_guest_resets_or_another_one_connects) {
    start("600000");
    ReaderProcess reader("hold", socket());
    EXPECT_EQ(reader.line(), "0x5000");
    reader.go();
    EXPECT_EQ(reader.line(), "left");
    ASSERT_TRUE(iommu->reset());
    reader.go();
    EXPECT_EQ(reader.line(), "0xffffffffffffffff");
    reader.go();
    EXPECT_EQ(reader.line(), "left");
    iommu.reset();
    iommu = connect();
    ASSERT_EQ(iommu->attach(7, kEndpoint), Status::kOk);
    ASSERT_EQ(iommu->map(7, kPage, {0x9000}), Status::kOk);
    reader.go();
    EXPECT_EQ(reader.line(), "0x9000");
}

TEST_F(Readers, report_faults_to_the_guest) {
    start("600000");
    ReaderProcess reader("fault", socket());
    EXPECT_EQ(reader.line(), "reported");
    const auto event = iommu->poll_fault(Milliseconds(20'000));
    ASSERT_TRUE(event && *event);
    EXPECT_EQ((*event)->endpoint, kEndpoint);
    EXPECT_EQ((*event)->address, Iova{0xbad000});
    EXPECT_EQ((*event)->reason, wire::VIRTIO_IOMMU_FAULT_R_MAPPING);
    EXPECT_NE((*event)->flags & wire::VIRTIO_IOMMU_FAULT_F_WRITE, 0u);
    EXPECT_EQ(counter("faults"), 1u);
}

TEST_F(Readers, that_stop_inside_a_section_are_killed_and_the_guest_goes_on) {
    start("200");
    {
        ReaderProcess reader("stop", socket());
        while (counter("threads") == 0) std::this_thread::sleep_for(5ms);
        // It may not have entered yet: ask until it is held up.
        const auto begin = std::chrono::steady_clock::now();
        while (counter("killed") == 0) {
            ASSERT_EQ(iommu->unmap(1, kPage), Status::kOk);
            ASSERT_EQ(iommu->map(1, kPage, {0x5000}), Status::kOk);
            ASSERT_LT(std::chrono::steady_clock::now() - begin, 60s);
        }
        EXPECT_EQ(reader.ended_by(), SIGKILL);
    }
    EXPECT_EQ(counter("processes"), 0u);
    EXPECT_NE(daemon->log().find("held up a request of the guest for 200 ms: killed"),
              std::string::npos)
        << daemon->log();
    ReaderProcess next("hold", socket());
    EXPECT_EQ(next.line(), "0x5000");
}

TEST_F(Readers, that_hold_a_section_do_not_keep_the_daemon_from_ending) {
    start("200");
    ReaderProcess reader("hold", socket());
    EXPECT_EQ(reader.line(), "0x5000");
    // The lcore, or closing the guest's connection, waits for it until it is killed.
    auto unmapped = std::async(std::launch::async, [&] { return iommu->unmap(1, kPage); });
    std::this_thread::sleep_for(50ms);
    const auto stopped = daemon->stop();
    EXPECT_TRUE(stopped) << stopped.error().message;
    unmapped.wait();  // answered, or the connection is gone
    EXPECT_EQ(reader.ended_by(), SIGKILL);
    EXPECT_NE(daemon->log().find("guest.vm0.readers.killed 1\n"), std::string::npos);
    EXPECT_FALSE(std::filesystem::exists(socket()));
    daemon.reset();
}

}  // namespace
}  // namespace viommu::e2e
