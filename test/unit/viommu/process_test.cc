// SPDX-License-Identifier: BSD-3-Clause
// The daemon as a process: what it prints, which signals it takes, how it ends.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

extern char** environ;

namespace {

namespace fs = std::filesystem;
using std::chrono::seconds;
using std::chrono::steady_clock;

/// A directory that is empty at first and gone at the end.
class Directory {
  public:
    Directory() {
        std::string name = (fs::temp_directory_path() / "viommu-test-XXXXXX").string();
        path_ = mkdtemp(name.data());
    }
    ~Directory() { fs::remove_all(path_); }
    std::string operator/(const std::string& name) const { return (path_ / name).string(); }
    std::string write(const std::string& name, const std::string& text) const {
        std::ofstream(path_ / name) << text;
        return *this / name;
    }

  private:
    fs::path path_;
};

/// dpdk-viommu with standard output and error in one pipe.
class Daemon {
  public:
    explicit Daemon(std::vector<std::string> arguments) {
        int ends[2];
        if (pipe2(ends, O_CLOEXEC) != 0) abort();
        output_ = ends[0];
        posix_spawn_file_actions_t actions;
        posix_spawn_file_actions_init(&actions);
        posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
        posix_spawn_file_actions_adddup2(&actions, ends[1], STDERR_FILENO);
        arguments.insert(arguments.begin(), DPDK_VIOMMU);
        std::vector<char*> argv;
        for (auto& a : arguments) argv.push_back(a.data());
        argv.push_back(nullptr);
        EXPECT_EQ(posix_spawn(&pid_, DPDK_VIOMMU, &actions, nullptr, argv.data(), environ), 0);
        posix_spawn_file_actions_destroy(&actions);
        close(ends[1]);
    }
    ~Daemon() {
        if (pid_ > 0) {
            kill(pid_, SIGKILL);
            waitpid(pid_, nullptr, 0);
        }
        close(output_);
    }

    void signal(int number) { kill(pid_, number); }

    /// Read until `text` has been printed `times` times, or for too long, or to the end.
    bool prints(const std::string& text, unsigned times = 1) {
        const auto deadline = steady_clock::now() + seconds(30);
        while (count(text) < times) {
            pollfd fd{output_, POLLIN, 0};
            if (steady_clock::now() > deadline || ::poll(&fd, 1, 1000) < 0) return false;
            char piece[4096];
            if (fd.revents == 0) continue;
            const ssize_t n = read(output_, piece, sizeof piece);
            if (n <= 0) return count(text) >= times;
            printed_.append(piece, size_t(n));
        }
        return true;
    }
    const std::string& printed() const { return printed_; }

    /// Read to the end; the exit status, or -1 when it was killed.
    int ends() {
        prints("\1");  // never printed
        int status = 0;
        waitpid(pid_, &status, 0);
        pid_ = -1;
        return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    }

  private:
    unsigned count(const std::string& text) const {
        unsigned n = 0;
        for (size_t at = 0; (at = printed_.find(text, at)) != std::string::npos; at++) n++;
        return n;
    }

    pid_t pid_ = -1;
    int output_ = -1;
    std::string printed_;
};

std::string one_guest(const Directory& directory) {
    return "eal = [\"--no-huge\", \"--no-shconf\", \"--no-pci\", \"-m\", \"64\", "
           "\"--lcores\", \"0@0,1@0\"]\n"
           "[[guest]]\nname = \"vm0\"\nsocket = \"" +
           directory / "own/iommu.sock" + "\"\n[[guest.net]]\nname = \"net0\"\nsocket = \"" +
           directory / "own/net0.sock" + "\"\nendpoint = \"00:04.0\"\n";
}

TEST(Process, serves_until_it_is_told_to_end) {
    const Directory directory;
    Daemon daemon({"--config", directory.write("vm.toml", one_guest(directory))});
    ASSERT_TRUE(daemon.prints("\ndpdk-viommu: ready\n")) << daemon.printed();
    struct stat status;
    for (const char* name : {"own/iommu.sock", "own/net0.sock"}) {
        ASSERT_EQ(stat((directory / name).c_str(), &status), 0) << name;
        EXPECT_TRUE(S_ISSOCK(status.st_mode));
        EXPECT_EQ(status.st_mode & 0777, 0600u) << name;
    }
    ASSERT_EQ(stat((directory / "own").c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777, 0700u);

    daemon.signal(SIGUSR1);
    EXPECT_TRUE(daemon.prints("\nguest.vm0.requests.map 0\n")) << daemon.printed();
    EXPECT_TRUE(daemon.prints("\nlcore.1.sleeps ")) << daemon.printed();
    daemon.signal(SIGTERM);
    EXPECT_TRUE(daemon.prints("\nnet.vm0/net0.from_guest.packets 0\n", 2)) << daemon.printed();
    EXPECT_EQ(daemon.ends(), 0) << daemon.printed();
    EXPECT_FALSE(fs::exists(directory / "own/iommu.sock"));
    EXPECT_FALSE(fs::exists(directory / "own/net0.sock"));
}

TEST(Process, socket_of_another_daemon_is_refused_with_status_1) {
    const Directory directory;
    const auto config = directory.write("vm.toml", one_guest(directory));
    Daemon first({"--config", config});
    ASSERT_TRUE(first.prints("dpdk-viommu: ready\n")) << first.printed();
    Daemon second({"--config", config});
    EXPECT_EQ(second.ends(), 1);
    EXPECT_NE(second.printed().find("own/iommu.sock"), std::string::npos) << second.printed();
    first.signal(SIGINT);
    EXPECT_EQ(first.ends(), 0) << first.printed();
}

TEST(Process, wrong_configuration_ends_with_status_2_and_every_problem) {
    const Directory directory;
    Daemon daemon({"--config", directory.write("vm.toml", "pool = 1\nguests = 2\n"), "--check"});
    EXPECT_EQ(daemon.ends(), 2);
    EXPECT_NE(daemon.printed().find("did you mean 'poll'?"), std::string::npos);
    EXPECT_NE(daemon.printed().find("did you mean 'guest'?"), std::string::npos);
}

TEST(Process, lcore_that_eal_has_not_ends_with_status_2_and_those_it_has) {
    const Directory directory;
    Daemon daemon({"--config", directory.write("vm.toml", one_guest(directory)), "--eal",
                   "--no-huge", "--no-shconf", "--no-pci", "-m", "64", "--lcores", "0@0,7@0"});
    EXPECT_EQ(daemon.ends(), 2);
    EXPECT_NE(daemon.printed().find("vm.toml:2: guest.vm0.lcore = 1: is no lcore of the EAL's"),
              std::string::npos)
        << daemon.printed();
    EXPECT_NE(daemon.printed().find("worker lcores are: 7"), std::string::npos);
}

TEST(Process, eal_that_does_not_start_ends_with_status_1_and_the_arguments) {
    const Directory directory;
    Daemon daemon({"--config", directory.write("vm.toml", one_guest(directory)), "--eal",
                   "--no-such-option"});
    EXPECT_EQ(daemon.ends(), 1);
    EXPECT_NE(daemon.printed().find("the EAL does not start with --no-such-option"),
              std::string::npos)
        << daemon.printed();
}

TEST(Process, viot_writes_the_table_to_a_file_or_standard_output) {
    const Directory directory;
    const std::string file = directory / "viot.body";
    Daemon to_file(
        {"viot", "--iommu", "00:03.0", "--endpoint", "00:04.0", "--body", "--output", file});
    EXPECT_EQ(to_file.ends(), 0) << to_file.printed();
    EXPECT_EQ(fs::file_size(file), 52u);
    Daemon to_pipe({"viot", "--iommu", "00:03.0", "--endpoint", "00:04.0"});
    EXPECT_EQ(to_pipe.ends(), 0);
    EXPECT_EQ(to_pipe.printed().size(), 88u);
    EXPECT_TRUE(to_pipe.printed().starts_with("VIOT"));
}

TEST(Process, viot_that_cannot_be_written_ends_with_status_1_and_why) {
    Daemon daemon(
        {"viot", "--iommu", "00:03.0", "--endpoint", "00:04.0", "--output", "/nonexistent/viot"});
    EXPECT_EQ(daemon.ends(), 1);
    EXPECT_NE(daemon.printed().find("/nonexistent/viot: cannot create: No such file"),
              std::string::npos)
        << daemon.printed();
}

}  // namespace
