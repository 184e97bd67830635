// SPDX-License-Identifier: BSD-3-Clause
/// Runs each function of hot.hh once, instruction by instruction (x86's trap flag), and prints
/// where every instruction was: "trace NAME", then an address in this file a line. codegen.py knows
/// what stands there.
///
/// Single steps and not the disassembly alone: which of a function's paths is the hot one is then
/// not guessed, but what the processor did with a walk cache that hits, or that misses.
#include <signal.h>
#include <ucontext.h>

#include <cstdio>
#include <cstdlib>

#include "hot.hh"

extern "C" const char __executable_start;

namespace {

using namespace viommu;

constexpr unsigned kMaxSteps = 4096;
greg_t steps[kMaxSteps];
volatile unsigned step_count = 0;

void on_step(int, siginfo_t*, void* context) {
    const auto* registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
    if (step_count < kMaxSteps) {
        steps[step_count] = registers[REG_RIP];
        step_count = step_count + 1;
    }
}

/// Call `f` with the trap flag set. The stack is moved off the caller's red zone first.
__attribute__((noinline)) void single_step(HotFunction* f, xlate::Reader* reader,
                                           const uint64_t* iova, xlate::Translation* out) {
    step_count = 0;
    asm volatile(
        "mov %%rsp, %%rbx\n\t"
        "sub $256, %%rsp\n\t"
        "and $-16, %%rsp\n\t"
        "pushfq\n\t"
        "orl $0x100, (%%rsp)\n\t"
        "popfq\n\t"
        "call *%%rax\n\t"
        "pushfq\n\t"
        "andl $~0x100, (%%rsp)\n\t"
        "popfq\n\t"
        "mov %%rbx, %%rsp\n\t"
        : "+D"(reader), "+S"(iova), "+d"(out), "+a"(f)
        :
        : "rbx", "rcx", "r8", "r9", "r10", "r11", "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3",
          "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13",
          "xmm14", "xmm15");
}

void trace(const char* name, HotFunction* f, xlate::Reader& reader, uint64_t iova,
           uint64_t expected_gpa) {
    auto out = xlate::Translation::faulted(xlate::FaultReason::kUnknown);
    single_step(f, &reader, &iova, &out);
    if (expected_gpa != 0 && (!out || out.gpa().value != expected_gpa)) {
        std::fprintf(stderr, "%s: %#lx was not translated to %#lx\n", name, iova, expected_gpa);
        std::exit(1);
    }
    std::printf("trace %s\n", name);
    const auto start = reinterpret_cast<greg_t>(&__executable_start);
    // From the second trap on: the first is at the call itself; the last are after the return.
    for (unsigned i = 0; i < step_count; ++i) std::printf("%llx\n", steps[i] - start);
}

}  // namespace

int main() {
    struct sigaction action = {};
    action.sa_sigaction = on_step;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGTRAP, &action, nullptr);

    constexpr EndpointId kEndpoint = 8;
    // Far apart, so that each way to a page is its own down to the root; and its neighbour.
    constexpr uint64_t kIova = uint64_t{0x123456789} << 12,
                       kElsewhere = uint64_t{0x3edcba987} << 12;
    auto table = std::move(*table::Table::create({}));
    if (!table->add_endpoint(kEndpoint) || table->attach(kEndpoint, 1, false) != Status::kOk)
        return 1;
    uint64_t gpa = 0x10000;
    for (const uint64_t iova : {kIova, kIova + 4096, kElsewhere}) {
        // Not contiguous: one leaf per mapping.
        if (table->map(1, {{iova}, {iova + 4095}}, {gpa}, Access::kReadWrite) != Status::kOk)
            return 1;
        gpa += 0x10000;
    }
    xlate::FaultQueue faults;
    auto reader = std::move(*xlate::Reader::create(*table, faults, kEndpoint));

    trace("enter", hot_enter, reader, 0, 0);
    trace("translate_walk", hot_translate, reader, kElsewhere + 8, 0x30008);
    trace("translate_walk_again", hot_translate, reader, kIova + 16, 0x10010);
    trace("translate_hit", hot_translate, reader, kIova + 4096 + 24, 0x20018);
    trace("leave", hot_leave, reader, 0, 0);
    trace("bad_lock", bad_lock, reader, 0, 0);
    trace("bad_xchg", bad_xchg, reader, 0, 0);
    trace("bad_call", bad_call, reader, 0, 0);
    trace("bad_tail_call", bad_tail_call, reader, 0, 0);
    trace("bad_chain", bad_chain, reader, 0, 0);
    trace("good_chain", good_chain, reader, 0, 0);
    return 0;
}
