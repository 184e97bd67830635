// SPDX-License-Identifier: BSD-3-Clause
#include "reader_process.hh"

#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <new>
#include <thread>
#include <utility>

#include "machine.hh"
#include "viommu_share.hh"
#include "workload.hh"

namespace viommu::perf {

void ReaderProcess::work(const std::string& socket, EndpointId endpoint, Iova first, uint64_t pages,
                         unsigned cpu, Shared& shared) {
    (void)pin_to(cpu);
    auto client = share::Client::connect(socket);
    auto reader = client ? client->reader(endpoint) : tl::unexpected(client.error());
    if (!reader) {
        std::fprintf(stderr, "dpdk-viommu-perf: reader: %s\n", reader.error().message.c_str());
        shared.state.store(-1, std::memory_order_release);
        _exit(1);
    }
    shared.state.store(1, std::memory_order_release);
    std::array<xlate::Lookup, kBurst> in;
    std::vector<xlate::Translation> out(kBurst,
                                        xlate::Translation::faulted(xlate::FaultReason::kUnknown));
    for (uint64_t n = 0, at = 0, faults = 0;;) {
        for (auto& lookup : in) {
            lookup = {first + at * kPage + kAccessOffset, kAccessBytes};
            at = (at + 7) % pages;
        }
        reader->enter();
        faults += reader->translate_burst(in, out, Access::kRead);
        reader->leave();
        n += kBurst;
        shared.translations.store(n, std::memory_order_relaxed);
        shared.faults.store(faults, std::memory_order_relaxed);
    }
}

Result<ReaderProcess> ReaderProcess::start(const std::string& socket, EndpointId endpoint,
                                           Iova first, uint64_t pages, unsigned cpu) {
    void* memory =
        mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return fail("reader process: {}", std::strerror(errno));
    auto* shared = new (memory) Shared;
    const pid_t parent = getpid(), pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) _exit(1);
        work(socket, endpoint, first, pages, cpu, *shared);
    }
    ReaderProcess process(pid, shared);
    if (pid < 0) return fail("reader process: fork: {}", std::strerror(errno));
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    while (shared->state.load(std::memory_order_acquire) == 0) {
        if (std::chrono::steady_clock::now() > end) return fail("the reader process is silent");
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    if (shared->state.load(std::memory_order_acquire) < 0)
        return fail("the reader process could not join {}", socket);
    return process;
}

ReaderProcess::ReaderProcess(ReaderProcess&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)), shared_(std::exchange(other.shared_, nullptr)) {}

ReaderProcess::~ReaderProcess() {
    if (pid_ > 0) {
        kill(pid_, SIGKILL);
        waitpid(pid_, nullptr, 0);
    }
    if (shared_ != nullptr) munmap(shared_, sizeof(Shared));
}

uint64_t ReaderProcess::translations() const noexcept {
    return shared_->translations.load(std::memory_order_relaxed);
}

uint64_t ReaderProcess::faults() const noexcept {
    return shared_->faults.load(std::memory_order_relaxed);
}

}  // namespace viommu::perf
