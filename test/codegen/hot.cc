// SPDX-License-Identifier: BSD-3-Clause
/// What a data-plane thread inlines, each in a function of its own, compiled as a release:
/// codegen.py looks at the instructions that these execute.
#include "hot.hh"

using viommu::Access;
using viommu::xlate::Reader;
using viommu::xlate::Translation;

void hot_translate(Reader& reader, const uint64_t* iova, Translation* out) {
    *out = reader.translate({*iova}, 64, Access::kRead);
}
void hot_burst(Reader& reader, const uint64_t* iovas, Translation* out) {
    viommu::xlate::Lookup in[kHotBurst];
    for (unsigned i = 0; i < kHotBurst; ++i) in[i] = {{iovas[i]}, 64};
    reader.translate_burst(in, {out, kHotBurst}, Access::kRead);
}
void hot_enter(Reader& reader, const uint64_t*, Translation*) { reader.enter(); }
void hot_leave(Reader& reader, const uint64_t*, Translation*) { reader.leave(); }

// What codegen.py must refuse, written down instruction by instruction; good_chain it must not.
asm(R"(
    .text
    .macro function name
    .globl \name
    .type \name, @function
\name:
    .endm
    .macro end name
    ret
    .size \name, . - \name
    .endm

    function bad_lock
    lock addq $0, (%rdx)
    end bad_lock

    function bad_xchg
    xor %eax, %eax
    xchg %rax, (%rdx)
    end bad_xchg

    function bad_call
    call empty_callee
    end bad_call

    function bad_tail_call
    jmp empty_callee
    .size bad_tail_call, . - bad_tail_call

    function empty_callee
    end empty_callee

    # rsi leads to a word that leads to itself.
    function bad_chain
    mov (%rsi), %rax
    mov (%rax), %rcx
    push %rcx
    pop %rdx
    lea (%rdx,%rdx), %rax
    sub %rdx, %rax
    mov (%rax), %rcx
    mov (%rcx), %rax
    cmp %rax, (%rax)
    end bad_chain

    function good_chain
    mov (%rsi), %rax
    mov (%rax), %rcx
    push %rcx
    mov (%rsp), %rax
    pop %rcx
    mov (%rax), %rcx
    mov (%rcx), %rax
    mov (%rsi), %rax
    mov %rax, (%rdx)
    end good_chain
)");
