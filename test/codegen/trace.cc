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
#include <iterator>
#include <map>
#include <vector>

#include "hot.hh"

extern "C" const char __executable_start;

namespace {

using namespace viommu;

constexpr unsigned kMaxSteps = 1 << 14;
/// In the order of codegen.py's REGISTERS.
constexpr int kRegisters[] = {REG_RIP, REG_RAX, REG_RBX, REG_RCX, REG_RDX, REG_RSI,
                              REG_RDI, REG_RBP, REG_RSP, REG_R8,  REG_R9,  REG_R10,
                              REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
struct Step {
    greg_t registers[std::size(kRegisters)];
};
Step steps[kMaxSteps];
volatile unsigned step_count = 0;

void on_step(int, siginfo_t*, void* context) {
    const auto* registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
    if (step_count == kMaxSteps) return;
    for (unsigned i = 0; i < std::size(kRegisters); ++i)
        steps[step_count].registers[i] = registers[kRegisters[i]];
    step_count = step_count + 1;
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

/// Translate all of `iovas` (of which a single translation takes the first).
void trace(const char* name, HotFunction* f, xlate::Reader& reader, std::vector<uint64_t> iovas,
           const std::map<uint64_t, uint64_t>& gpas = {}) {
    std::vector<xlate::Translation> out(std::max<size_t>(iovas.size(), 1),
                                        xlate::Translation::faulted(xlate::FaultReason::kUnknown));
    single_step(f, &reader, iovas.data(), out.data());
    for (size_t i = 0; i < iovas.size() && !gpas.empty(); ++i) {
        if (out[i] && out[i].gpa().value == gpas.at(iovas[i])) continue;
        std::fprintf(stderr, "%s: %#lx was not translated\n", name, iovas[i]);
        std::exit(1);
    }
    std::printf("trace %s\n", name);
    const auto start = reinterpret_cast<greg_t>(&__executable_start);
    for (unsigned i = 0; i < step_count; ++i) {
        std::printf("%llx", steps[i].registers[0] - start);
        for (unsigned r = 1; r < std::size(kRegisters); ++r)
            std::printf(" %llx", steps[i].registers[r]);
        std::printf("\n");
    }
}

struct Nobody final : table::SlotOwner {
    void give_back(unsigned) noexcept override {}
};

}  // namespace

int main() {
    struct sigaction action = {};
    action.sa_sigaction = on_step;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGTRAP, &action, nullptr);

    constexpr EndpointId kEndpoint = 8;
    auto table = std::move(*table::Table::create({}));
    if (!table->add_endpoint(kEndpoint) || table->attach(kEndpoint, 1, false) != Status::kOk)
        return 1;
    std::map<uint64_t, uint64_t> gpas;
    // Pages in one place of 512 GiB, which a Reader may remember, each in a node of its own; one in
    // another place; and pages of one lowest node. Not contiguous: a leaf for each mapping.
    std::vector<uint64_t> apart, beside;
    for (uint64_t i = 0; i < kHotBurst; ++i)
        apart.push_back(uint64_t{5} << 39 | i << 30 | i << 21 | (i + 3) << 12);
    apart.push_back(uint64_t{77} << 39);
    for (uint64_t i = 0; i < kHotBurst; ++i) beside.push_back((uint64_t{200} << 39) + (i << 12));
    for (const auto* group : {&apart, &beside})
        for (const uint64_t iova : *group) {
            const uint64_t gpa = (gpas.size() + 1) << 20;
            if (table->map(1, {{iova}, {iova + 4095}}, {gpa}, Access::kReadWrite) != Status::kOk)
                return 1;
            gpas[iova] = gpa;
        }
    const std::vector<uint64_t> some(apart.begin(), apart.begin() + kHotBurst);
    xlate::FaultQueue faults;
    auto reader = std::move(*xlate::Reader::create(*table, faults, kEndpoint));

    auto anywhere = xlate::Translation::faulted(xlate::FaultReason::kUnknown);
    trace("enter", hot_enter, reader, {});
    trace("translate_walk", hot_translate, reader, {apart.back()}, gpas);
    trace("translate_walk_again", hot_translate, reader, {beside[0]}, gpas);
    trace("translate_hit", hot_translate, reader, {beside[1]}, gpas);
    trace("burst_hit", hot_burst, reader, beside, gpas);
    hot_translate(reader, some.data(), &anywhere);
    trace("burst_walk", hot_burst, reader, some, gpas);
    trace("leave", hot_leave, reader, {});

    // As in another process, whose count is a word of its page.
    static table::ReaderPage page;
    Nobody nobody;
    const table::View view = table->arena().view();
    auto paged = std::move(*xlate::Reader::create(
        view, table::Section(view.header->reader_token, page, 0, nobody), faults, kEndpoint));
    trace("paged_enter", hot_enter, paged, {});
    trace("paged_hit", hot_translate, paged, {beside[0]}, gpas);
    trace("paged_hit", hot_translate, paged, {beside[1]}, gpas);
    trace("paged_leave", hot_leave, paged, {});

    // A word that leads to itself, for chains of any length.
    static uint64_t self = reinterpret_cast<uint64_t>(&self);
    const std::vector<uint64_t> cycle = {self};
    trace("bad_lock", bad_lock, reader, cycle);
    trace("bad_xchg", bad_xchg, reader, cycle);
    trace("bad_call", bad_call, reader, cycle);
    trace("bad_tail_call", bad_tail_call, reader, cycle);
    trace("bad_chain", bad_chain, reader, cycle);
    trace("good_chain", good_chain, reader, cycle);
    return 0;
}
