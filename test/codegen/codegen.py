#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Look at the instructions that a reader executes: codegen.py TRACE_PROGRAM

Runs the program (trace.cc), which single-steps itself and tells the registers at each step, and
finds each instruction in objdump's listing. On the hot path there must be no locked instruction, no
exchange with memory, no call, no jump out of the function, and no chain of more than four loads of
which each needs the one before.
The functions named bad_* must be refused, good_* must not: the check checks itself in every run.
"""
import re
import subprocess
import sys

# What is traced: (where it begins, locked instructions, longest chain). A chain begins with a load
# from the Reader itself, which is in the first-level cache.
WANTED = {
    "translate_hit": ("hot_translate", 0, 4),
    "translate_walk": ("hot_translate", 0, 5),  # the Reader's, and an entry of each of four levels
    "translate_walk_again": ("hot_translate", 0, 5),
    "burst_hit": ("hot_burst", 0, 4),
    "burst_walk": ("hot_burst", 0, 5),
    "enter": ("hot_enter", 1, 4),  # Q1, the full fence
    "leave": ("hot_leave", 0, 4),
    "paged_enter": ("hot_enter", 1, 4),
    "paged_hit": ("hot_translate", 0, 4),
    "paged_leave": ("hot_leave", 0, 4),
}
# A compiler may keep these in functions of their own, of which a burst may call the other. Whatever
# they call besides are calls.
SUBJECT = re.compile(r"viommu::xlate::Reader::translate(_burst)?\(")
BAD = {
    "bad_lock": "locked",
    "bad_xchg": "exchange with memory",
    "bad_call": "call",
    "bad_tail_call": "leaves",
    "bad_chain": "dependent loads",
}

REGISTERS = "rax rbx rcx rdx rsi rdi rbp rsp r8 r9 r10 r11 r12 r13 r14 r15".split()
WIDTHS = {}
for name, low in (("ax", "al"), ("bx", "bl"), ("cx", "cl"), ("dx", "dl"), ("si", "sil"),
                  ("di", "dil"), ("bp", "bpl"), ("sp", "spl")):
    for alias in ("r" + name, "e" + name, name, low):
        WIDTHS[alias] = "r" + name
for high in "abcd":
    WIDTHS[high + "h"] = f"r{high}x"
for n in range(8, 16):
    for suffix in ("", "d", "w", "b"):
        WIDTHS[f"r{n}{suffix}"] = f"r{n}"
WORD = re.compile(r"\b[a-z][a-z0-9]*\b")
# Their first operand is not written.
ONLY_READ = {"cmp", "test", "push", "jmp", "bt", "ucomisd", "comisd", "nop", "ptest"}
# Their first operand is written without being read.
ONLY_WRITTEN = re.compile(r"(mov|lea|pop|set|vmov|pmov|lddqu|bsr|bsf|lzcnt|tzcnt|andn|bextr|sarx|"
                          r"sh[lr]x)")


def registers(text):
    found = {WIDTHS[w] for w in WORD.findall(text) if w in WIDTHS}
    return found | set(re.findall(r"\b[xyz]mm\d+\b", text))


def listing(program):
    """{address: (function, text)}"""
    out = subprocess.run(["objdump", "-d", "-C", "-M", "intel", "--no-show-raw-insn", program],
                         check=True, capture_output=True, text=True).stdout
    code, function = {}, None
    for line in out.splitlines():
        head = re.match(r"[0-9a-f]+ <(.+)>:$", line)
        if head:
            function = head[1]
            continue
        m = re.match(r"\s*([0-9a-f]+):\s+(.*?)\s*(?:#.*)?$", line)
        if m:
            code[int(m[1], 16)] = (function, re.sub(r"<.*>$", "", m[2]).strip())
    return code


def traces(program):
    run = subprocess.run([program], capture_output=True, text=True)
    if run.returncode != 0:
        sys.exit(f"{program}: status {run.returncode}: {run.stderr}")
    found, steps = {}, None
    for line in run.stdout.splitlines():
        if line.startswith("trace "):
            steps = found[line.split()[1]] = []
        else:
            place, *values = (int(word, 16) for word in line.split())
            steps.append((place, dict(zip(REGISTERS, values))))
    return found


def operands(text):
    """Instruction name and operands, prefixes dropped."""
    text = re.sub(r"^(?:lock|rep[nze]*|bnd|notrack|data16|cs|ds)\s+", "", text)
    name, _, rest = text.partition(" ")
    return name, [o.strip() for o in rest.split(",")] if rest.strip() else []


def memory(operand, values):
    """(first, last) byte that a memory operand is about; None when it is none."""
    place = re.search(r"\[(.*)\]", operand)
    if place is None:
        return None
    address = 0
    for sign, term in re.findall(r"([+-]?)([^+-]+)", place[1]):
        register, _, scale = term.partition("*")
        value = values[register] * int(scale or 1) if register in values else \
            0 if register in ("rip", "riz") else int(term, 0)
        address += -value if sign == "-" else value
    widths = (("XMM", 16), ("YMM", 32), ("QWORD", 8), ("DWORD", 4), ("WORD", 2), ("BYTE", 1))
    width = next((bytes for name, bytes in widths if name in operand), 8)
    return address % 2**64, width


def longest_chain(steps):
    """Loads on the longest chain in which each one's address comes from the one before. A load of
    what was stored in the same trace (a spill, a local array) passes on what that depended on."""
    depth, stored, longest = {}, {}, 0

    def loaded(operand, values):
        """Depth of what a memory operand holds."""
        address, width = memory(operand, values)
        place = re.search(r"\[.*\]", operand)[0]
        need = max((depth.get(r, 0) for r in registers(place)), default=0)
        recent = [stored[b] for b in range(address, address + width) if b in stored]
        return max(recent) if len(recent) == width else 1 + max([need] + recent)

    def store(operand, values, value):
        address, width = memory(operand, values)
        for b in range(address, address + width):
            stored[b] = value

    for text, values in steps:
        name, ops = operands(text)
        if name.startswith(("nop", "prefetch", "endbr", "j", "ret", "call", "leave")) or not ops:
            continue
        if name == "push":
            store("QWORD PTR [rsp-8]", values, depth.get(WIDTHS.get(ops[0]), 0))
            continue
        if name == "pop":
            depth[WIDTHS[ops[0]]] = loaded("QWORD PTR [rsp]", values)
            continue
        if name in ("xor", "sub", "pxor", "xorps") and len(ops) == 2 and ops[0] == ops[1]:
            depth.update((r, 0) for r in registers(ops[0]))
            continue
        value = 0
        for n, op in enumerate(ops):
            if n == 0 and ONLY_WRITTEN.match(name):
                continue
            if name != "lea" and memory(op, values):
                value = max(value, loaded(op, values))
            else:
                value = max([value] + [depth.get(r, 0) for r in registers(op)])
        longest = max(longest, value)
        if name in ONLY_READ:
            continue
        if memory(ops[0], values):
            store(ops[0], values, value)
        else:
            depth.update((r, value) for r in registers(ops[0]))
    return longest


def problems(code, steps, function, locked_allowed, chain_allowed):
    """What is wrong with a trace, and a summary. The harness's own steps around it are left out."""
    first = next((i for i, s in enumerate(steps) if code.get(s[0], (None,))[0] == function), None)
    if first is None:
        return [f"{function} was never reached"], ""
    wrong, texts, locked = [], [], 0
    returns = 0
    for (step, values), (following, _) in zip(steps[first:], steps[first + 1:] + [(0, None)]):
        where, text = code.get(step, ("?", "?"))
        if where != function and not SUBJECT.match(where):
            wrong.append(f"leaves for {where} after '{texts[-1][0]}'")
            break
        texts.append((text, values))
        name, ops = operands(text)
        if text.startswith("lock") or name in ("mfence", "cpuid", "syscall"):
            locked += 1
            if locked > locked_allowed:
                wrong.append(f"locked: '{text}'")
        elif name == "xchg" and any("[" in o for o in ops):
            wrong.append(f"exchange with memory: '{text}'")
        if name == "call":
            callee = code.get(following, ("?",))[0]
            if not SUBJECT.match(callee) or "::translate(" in where:
                wrong.append(f"call: '{text}' of {callee}")
                break
            returns += 1
        elif name == "ret" or text.endswith(" ret"):
            if returns == 0:
                break
            returns -= 1
    chain = longest_chain(texts)
    if chain > chain_allowed:
        wrong.append(f"{chain} dependent loads, at most {chain_allowed} are allowed")
    if locked != locked_allowed and not wrong:
        wrong.append(f"{locked} locked instructions where {locked_allowed} belong")
    return wrong, f"{len(texts)} instructions, {chain} dependent loads, {locked} locked"


def main():
    program = sys.argv[1]
    code, traced = listing(program), traces(program)
    failed = False
    for name, (function, locked, chain) in WANTED.items():
        wrong, summary = problems(code, traced[name], function, locked, chain)
        print(f"{name}: {summary}{': ' if wrong else ''}{'; '.join(wrong)}")
        if wrong:
            failed = True
            for step, _ in traced[name]:
                if step in code and code[step][0] == function:
                    print(f"    {step:x} {code[step][1]}")
    for name, reason in BAD.items():
        wrong, _ = problems(code, traced[name], name, 0, 4)
        refused = any(reason in w for w in wrong)
        print(f"{name}: {'refused' if refused else 'NOT REFUSED'}: {'; '.join(wrong)}")
        failed |= not refused
    wrong, summary = problems(code, traced["good_chain"], "good_chain", 0, 4)
    print(f"good_chain: {summary}{'; '.join(wrong)}")
    failed |= bool(wrong) or "4 dependent" not in summary
    sys.exit(failed)


main()
