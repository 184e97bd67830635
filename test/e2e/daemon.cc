// SPDX-License-Identifier: BSD-3-Clause
#include "daemon.hh"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <thread>
#include <utility>

namespace viommu::e2e {

namespace {

using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

/// Sanitizer builds on a loaded machine with two cores.
constexpr auto kStartTime = 60s;
constexpr auto kStopTime = 30s;

std::string read_file(const std::filesystem::path& path) {
    std::ostringstream text;
    text << std::ifstream(path).rdbuf();
    return text.str();
}

/// f() until it is true, or time is up.
template <class F>
bool wait_for(std::chrono::seconds limit, F&& f) {
    const auto end = Clock::now() + limit;
    while (!f()) {
        if (Clock::now() > end) return false;
        std::this_thread::sleep_for(5ms);
    }
    return true;
}

}  // namespace

Result<Daemon> Daemon::start(std::string config) {
    const char* program = std::getenv("VIOMMU_DAEMON");
    if (program == nullptr) return fail("VIOMMU_DAEMON must name the daemon");
    std::string name = (std::filesystem::temp_directory_path() / "viommu-e2e.XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) return fail("mkdtemp {}: {}", name, strerror(errno));
    const std::filesystem::path directory(name);
    for (size_t at; (at = config.find("@DIR@")) != std::string::npos;)
        config.replace(at, 5, name);
    const std::string file = directory / "config.toml";
    std::ofstream(file) << config;

    const pid_t pid = fork();
    if (pid == 0) {
        const int log = open((directory / "log").c_str(), O_CREAT | O_WRONLY | O_APPEND, 0600);
        dup2(log, 1);
        dup2(log, 2);
        execl(program, program, "--config", file.c_str(), nullptr);
        _exit(127);
    }
    Daemon daemon(directory, pid);
    const bool ready = wait_for(kStartTime, [&] {
        return !daemon.running() ||
               daemon.log().find("dpdk-viommu: ready\n") != std::string::npos;
    });
    if (!ready || !daemon.running())
        return fail("{} did not start; it said:\n{}", program, daemon.log());
    return daemon;
}

Daemon::Daemon(Daemon&& other) noexcept
    : directory_(std::exchange(other.directory_, {})), pid_(std::exchange(other.pid_, -1)) {}

Daemon::~Daemon() {
    if (pid_ > 0) {
        kill(pid_, SIGKILL);
        waitpid(pid_, nullptr, 0);
    }
    std::error_code ignored;
    if (!directory_.empty()) std::filesystem::remove_all(directory_, ignored);
}

bool Daemon::running() {
    if (pid_ <= 0) return false;
    if (waitpid(pid_, nullptr, WNOHANG) != pid_) return true;
    pid_ = -1;
    return false;
}

std::string Daemon::log() const { return read_file(directory_ / "log"); }

Result<std::map<std::string, uint64_t>> Daemon::counters() {
    const size_t before = log().size();
    if (!running()) return fail("the daemon has died; it said:\n{}", log());
    kill(pid_, SIGUSR1);
    // The report is complete when it has stopped growing.
    std::string text;
    const bool complete = wait_for(10s, [&] {
        const std::string now = log().substr(before);
        const bool same = !now.empty() && now == text;
        text = now;
        if (!same) std::this_thread::sleep_for(50ms);
        return same;
    });
    if (!complete) return fail("no counters came after SIGUSR1");
    std::map<std::string, uint64_t> counters;
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) {
        std::istringstream words(line);
        std::string key;
        uint64_t value;
        if (words >> key >> value && key.find('.') != std::string::npos) counters[key] = value;
    }
    return counters;
}

Result<void> Daemon::stop() {
    if (!running()) return fail("the daemon has died; it said:\n{}", log());
    kill(pid_, SIGTERM);
    int status = 0;
    const bool ended =
        wait_for(kStopTime, [&] { return waitpid(pid_, &status, WNOHANG) == pid_; });
    if (!ended) return fail("the daemon does not end; it said:\n{}", log());
    pid_ = -1;
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        return fail("the daemon ended with status {:#x}; it said:\n{}", status, log());
    return {};
}

}  // namespace viommu::e2e
