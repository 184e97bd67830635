// SPDX-License-Identifier: BSD-3-Clause
#include "daemon_process.hh"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <thread>
#include <utility>

namespace viommu::guest {
namespace {

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
    const auto end = std::chrono::steady_clock::now() + limit;
    while (!f()) {
        if (std::chrono::steady_clock::now() > end) return false;
        std::this_thread::sleep_for(2ms);
    }
    return true;
}

/// The child's part of start(). `cpus`: empty or not.
[[noreturn]] void become(const char* program, const char* config, const char* log_file,
                         const cpu_set_t* cpus, pid_t parent) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(127);
    if (cpus != nullptr) sched_setaffinity(0, sizeof *cpus, cpus);
    const int log = open(log_file, O_CREAT | O_WRONLY | O_APPEND, 0600);
    dup2(log, 1);
    dup2(log, 2);
    execl(program, program, "--config", config, nullptr);
    _exit(127);
}

}  // namespace

Result<std::string> DaemonProcess::find(const std::string& path) {
    std::error_code error;
    if (!path.empty()) {
        if (std::filesystem::exists(path, error)) return path;
        return fail("--daemon {}: there is no such file", path);
    }
    const auto here = std::filesystem::read_symlink("/proc/self/exe", error).parent_path();
    for (const auto& candidate : {here / "../viommu/dpdk-viommu", here / "dpdk-viommu"})
        if (std::filesystem::exists(candidate, error))
            return std::filesystem::canonical(candidate, error).string();
    return fail("the daemon dpdk-viommu is not beside {}: name it with --daemon", here.string());
}

Result<DaemonProcess> DaemonProcess::start(const std::string& program, std::string config,
                                           const std::vector<unsigned>& cpus) {
    std::string name = (std::filesystem::temp_directory_path() / "viommu.XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) return fail("mkdtemp {}: {}", name, strerror(errno));
    DaemonProcess daemon(name, -1);
    for (size_t at; (at = config.find("@DIR@")) != std::string::npos;) config.replace(at, 5, name);
    const std::string file = daemon.path("config.toml"), log_file = daemon.path("log");
    std::ofstream(file) << config;
    cpu_set_t set;
    CPU_ZERO(&set);
    for (const unsigned cpu : cpus) CPU_SET(cpu, &set);

    const pid_t parent = getpid(), pid = fork();
    if (pid < 0) return fail("fork: {}", strerror(errno));
    if (pid == 0)
        become(program.c_str(), file.c_str(), log_file.c_str(), cpus.empty() ? nullptr : &set,
               parent);
    daemon.pid_ = pid;
    const bool ready = wait_for(kStartTime, [&] {
        return !daemon.running() || daemon.log().find("dpdk-viommu: ready\n") != std::string::npos;
    });
    if (!ready || !daemon.running())
        return fail("{} did not start; it said:\n{}", program, daemon.log());
    return daemon;
}

DaemonProcess::DaemonProcess(DaemonProcess&& other) noexcept
    : folder_(std::exchange(other.folder_, {})), pid_(std::exchange(other.pid_, -1)) {}

DaemonProcess::~DaemonProcess() {
    if (pid_ > 0) {
        kill(pid_, SIGKILL);
        waitpid(pid_, nullptr, 0);
    }
    std::error_code ignored;
    if (!folder_.empty()) std::filesystem::remove_all(folder_, ignored);
}

bool DaemonProcess::running() {
    if (pid_ <= 0) return false;
    if (waitpid(pid_, nullptr, WNOHANG) != pid_) return true;
    pid_ = -1;
    return false;
}

std::string DaemonProcess::log() const { return read_file(folder_ / "log"); }

Result<std::map<std::string, uint64_t>> DaemonProcess::counters() {
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

Result<void> DaemonProcess::stop() {
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

pid_t DaemonProcess::poller() const {
    std::error_code error;
    // "lcore-worker-1", since DPDK 23.03 "dpdk-worker1".
    for (const auto& task :
         std::filesystem::directory_iterator("/proc/" + std::to_string(pid_) + "/task", error))
        if (read_file(task.path() / "comm").find("worker") != std::string::npos)
            return pid_t(std::atoi(task.path().filename().c_str()));
    return 0;
}

void DaemonProcess::pause() const {
    if (kill(pid_, SIGSTOP) != 0) return;
    siginfo_t info;
    waitid(P_PID, id_t(pid_), &info, WSTOPPED | WNOWAIT);
}

void DaemonProcess::resume() const { kill(pid_, SIGCONT); }

}  // namespace viommu::guest
