// SPDX-License-Identifier: BSD-3-Clause
#include "process.hh"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>
#include <thread>
#include <utility>

namespace viommu::pmd {

void nap() { std::this_thread::sleep_for(std::chrono::milliseconds(2)); }

Result<Process> Process::start(std::vector<std::string> arguments, std::string log) {
    int input[2];
    if (pipe2(input, O_CLOEXEC) != 0) return fail("pipe: {}", strerror(errno));
    Fd read_end(input[0]), write_end(input[1]);
    std::vector<char*> argv;
    for (auto& a : arguments) argv.push_back(a.data());
    argv.push_back(nullptr);
    const pid_t pid = fork();
    if (pid < 0) return fail("fork: {}", strerror(errno));
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        const int out = open(log.c_str(), O_CREAT | O_WRONLY | O_TRUNC, 0600);
        dup2(read_end.get(), 0);
        dup2(out, 1);
        dup2(out, 2);
        execvp(argv[0], argv.data());
        _exit(127);
    }
    return Process(pid, std::move(write_end), std::move(log));
}

Process::Process(Process&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)),
      input_(std::move(other.input_)),
      log_(std::move(other.log_)) {}

Process::~Process() { kill(); }

std::string Process::said() const {
    std::ostringstream text;
    text << std::ifstream(log_).rdbuf();
    return text.str();
}

bool Process::running() {
    if (pid_ <= 0) return false;
    if (waitpid(pid_, &status_, WNOHANG) != pid_) return true;
    pid_ = -1;
    return false;
}

void Process::signal(int number) const {
    if (pid_ > 0) ::kill(pid_, number);
}

void Process::kill() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    waitpid(pid_, &status_, 0);
    pid_ = -1;
}

Result<void> Process::wait_for(const std::string& text, unsigned times) {
    const bool came = eventually([&] {
        unsigned found = 0;
        const std::string all = said();
        for (size_t at = 0; (at = all.find(text, at)) != std::string::npos; at += text.size())
            ++found;
        return found >= times || !running();
    });
    if (came && running()) return {};
    return fail("'{}' was not said {} times; but:\n{}", text, times, said());
}

Result<void> Process::type(const std::string& line) {
    std::string text = line;
    text += '\n';
    if (write(input_.get(), text.data(), text.size()) != ssize_t(text.size()))
        return fail("'{}' cannot be typed: {}; it said:\n{}", line, strerror(errno), said());
    return {};
}

Result<std::string> Process::ask(const std::string& line, const std::string& last) {
    const size_t before = said().size();
    if (auto ok = type(line); !ok) return tl::unexpected(ok.error());
    const bool came =
        eventually([&] { return said().find(last, before) != std::string::npos || !running(); });
    if (!came || !running()) return fail("no '{}' after '{}'; but:\n{}", last, line, said());
    return said().substr(before);
}

Result<void> Process::stop(int number) {
    if (!running()) return fail("it has died, status {:#x}; it said:\n{}", status_, said());
    ::kill(pid_, number);
    if (!eventually([&] { return !running(); })) return fail("it does not end:\n{}", said());
    if (!WIFEXITED(status_) || WEXITSTATUS(status_) != 0)
        return fail("it ended with status {:#x}:\n{}", status_, said());
    return {};
}

}  // namespace viommu::pmd
