// SPDX-License-Identifier: BSD-3-Clause
/// A reader process, for tests.
///
///   reader-process <mode> <socket> <endpoint> [<fd of SharedMemory> <its tally>]
///
///   translate   at full rate, checking what it finds, until it is killed
///   sometimes   the same, with pauses between sections
///   stop        stops itself (SIGSTOP) inside a section
///   spin        stays inside a section
///   nonsense    writes all over its page, for ever
///   fault       translates IOVA 0xbad000 once, reports the fault, and waits for a line on stdin
///   hold        enters a section, translates 0x1000, prints the GPA; each further line on stdin:
///               leaves, enters, translates, prints again
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string_view>

#include "protocol.hh"
#include "seqpacket.hh"
#include "shared_memory.hh"
#include "viommu_share.hh"

namespace viommu::share {
namespace {

using Tally = SharedMemory::Tally;

template <class T>
T need(Result<T> result) {
    if (result) return std::move(*result);
    std::fprintf(stderr, "reader-process: %s\n", result.error().message.c_str());
    std::exit(3);
}

void add(std::atomic<uint64_t>& count, uint64_t n) {
    count.store(count.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
}

[[noreturn]] void translate(xlate::Reader& reader, SharedMemory& memory, Tally& tally,
                            bool pauses) {
    std::mt19937 rng(std::random_device{}());
    tally.there.store(1);
    for (;;) {
        uint64_t faults = 0, violations = 0;
        struct Found {
            uint64_t slot, page;
        };
        std::array<Found, 32> found;
        size_t hits = 0;
        reader.enter();
        for (size_t i = 0; i < found.size(); ++i) {
            const uint64_t slot = rng() % kSlots;
            const auto t = reader.translate({iova_of(slot)}, 8, Access::kRead);
            if (t)
                found[hits++] = {slot, t.gpa().value / 4096};
            else
                ++faults;
        }
        // Used as late as allowed.
        for (size_t i = 0; i < hits; ++i) {
            const auto& word = memory.pages[found[i].page].word;
            violations += word.load(std::memory_order_relaxed) != found[i].slot;
        }
        reader.leave();
        add(tally.sections, 1);
        add(tally.hits, hits);
        add(tally.faults, faults);
        add(tally.violations, violations);
        if (pauses) usleep(1000);
    }
}

[[noreturn]] void write_nonsense(const char* path, Tally& tally) {
    const Fd socket = need(connect_to(path, std::chrono::seconds(5)));
    std::vector<Fd> fds;
    Hello hello;
    while (receive_packet(socket.get(), std::as_writable_bytes(std::span(&hello, 1)), &fds).error ==
           EAGAIN)
        usleep(1000);
    void* at = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fds.at(1).get(), 0);
    auto* words = static_cast<std::atomic<uint64_t>*>(at);
    std::mt19937_64 rng(1);
    tally.there.store(1);
    for (;;) {
        // Small numbers are tokens of the past.
        for (unsigned i = 0; i < 512; ++i)
            words[i].store(rng() % 2 == 0 ? rng() : rng() % 4, std::memory_order_relaxed);
    }
}

[[noreturn]] void stay(xlate::Reader& reader, Tally& tally, bool stop) {
    reader.enter();
    tally.there.store(1);
    if (stop) raise(SIGSTOP);
    for (;;) add(tally.sections, 1);
}

void print_gpa(xlate::Reader& reader) {
    const auto t = reader.translate({0x1000}, 8, Access::kRead);
    std::printf("%#lx\n", t ? t.gpa().value : ~uint64_t{0});
    std::fflush(stdout);
}

int hold(xlate::Reader& reader) {
    reader.enter();
    print_gpa(reader);
    for (char line[80]; std::fgets(line, sizeof line, stdin) != nullptr;) {
        reader.leave();
        std::printf("left\n");
        std::fflush(stdout);
        if (std::fgets(line, sizeof line, stdin) == nullptr) return 0;
        reader.enter();
        print_gpa(reader);
    }
    reader.leave();
    return 0;
}

int fault(xlate::Reader& reader) {
    reader.enter();
    const auto t = reader.translate({0xbad000}, 8, Access::kWrite);
    if (t) return 4;
    reader.report({0xbad000}, Access::kWrite, t.fault());
    reader.leave();
    std::printf("%s\n", reader.lost_faults() == 0 ? "reported" : "lost");
    std::fflush(stdout);
    char line[80];
    (void)std::fgets(line, sizeof line, stdin);
    return 0;
}

int run(std::string_view mode, const char* path, EndpointId endpoint, int fd, unsigned number) {
    const SharedMapping shared(fd);
    Tally none;
    Tally& tally = shared.memory == nullptr ? none : shared.memory->tallies[number];
    add(tally.starts, 1);
    if (mode == "nonsense") write_nonsense(path, tally);
    Client client = need(Client::connect(path, std::chrono::seconds(20)));
    xlate::Reader reader = need(client.reader(endpoint));
    if (mode == "translate") translate(reader, *shared.memory, tally, false);
    if (mode == "sometimes") translate(reader, *shared.memory, tally, true);
    if (mode == "stop") stay(reader, tally, true);
    if (mode == "spin") stay(reader, tally, false);
    if (mode == "hold") return hold(reader);
    if (mode == "fault") return fault(reader);
    return 2;
}

}  // namespace
}  // namespace viommu::share

int main(int argc, char** argv) {
    if (argc != 4 && argc != 6) return 2;
    const auto endpoint = viommu::EndpointId(std::strtoul(argv[3], nullptr, 0));
    return viommu::share::run(argv[1], argv[2], endpoint, argc == 6 ? std::atoi(argv[4]) : -1,
                              argc == 6 ? unsigned(std::atoi(argv[5])) : 0);
}
