# SPDX-License-Identifier: BSD-3-Clause
"""`devtools/perf --guest linux`: how many packets a second a real Linux guest sends and receives.

Boots the guest once for each way of giving it a NIC, and that several times, the ways taking turns
(devtools/linux-guest/pktgen does one boot and says what it measures). Results have the form of those
of dpdk-viommu-perf, with every boot's figures under "boots".
"""
import datetime
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import perf_bars

ROOT = Path(__file__).resolve().parent.parent
SIZES = [60, 1500]
POINTS = [(direction, size) for direction in ("transmit", "receive") for size in SIZES]
# Name, --path, --mode, colour. The first is what all are compared with.
WAYS = [("no IOMMU", "none", "lazy", "#8c959f"),
        ("QEMU's, lazy", "qemu", "lazy", "#e69f00"),
        ("QEMU's, strict", "qemu", "strict", "#d55e00"),
        ("ours, pt", "ours", "pt", "#56b4e9"),
        ("ours, lazy", "ours", "lazy", "#0072b2"), ("ours, strict", "ours", "strict", "#009e73")]
NO_IOMMU, PASSTHROUGH = "no IOMMU", "ours, pt"
RIVALS = [("ours, lazy", "QEMU's, lazy"), ("ours, strict", "QEMU's, strict")]
TIMES = 4          # as fast as QEMU's
OF_NO_IOMMU = 0.9  # where the guest has nothing to map; what is missing otherwise is mapping


def describe_machine(build):
    """As app/perf/machine.cc describes it."""
    info = dict(re.findall(r"^([^\t\n]+)\t*: (.*)$", Path("/proc/cpuinfo").read_text(), re.M))
    governor = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    pages = Path("/sys/kernel/mm/hugepages/hugepages-2048kB")
    comment = subprocess.run(["readelf", "-p", ".comment", build / "app/viommu/dpdk-viommu"],
                             capture_output=True, text=True, check=False).stdout
    compilers = re.findall(r"^ *\[ *\w+\] +(.+)$", comment, re.M)
    load = os.getloadavg()[0]
    commit = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty", "--abbrev=12"],
                            capture_output=True, text=True, check=False).stdout.strip()
    return {
        "cpu": f"{info.get('model name', 'unknown CPU')} (family {info.get('cpu family', '?')}, "
               f"model {info.get('model', '?')})",
        "cores": len(os.sched_getaffinity(0)), "virtual": " hypervisor" in info.get("flags", ""),
        "tsc_mhz": float(info.get("cpu MHz", 0)),
        "governor": governor.read_text().strip() if governor.exists() else "unknown",
        "load": load, "busy": load > 0.5,
        "kernel": f"{platform.system()} {platform.release()}",
        "compiler": ", ".join(compilers) or "unknown",
        "commit": commit or "unknown",
        "hugepages_free": int((pages / "free_hugepages").read_text()) if pages.exists() else 0,
        "hugepages_total": int((pages / "nr_hugepages").read_text()) if pages.exists() else 0,
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")}


def settle(limit):
    """Wait until what has been compiled, or measured, does not count as load any more."""
    end = time.monotonic() + limit
    while os.getloadavg()[0] > 0.5 and time.monotonic() < end:
        time.sleep(5)


def boot(way, build, seconds, accel, log):
    """One boot: {"transmit 60": packets per second, ...}; None: something was not as it should be."""
    name, path, mode, _ = way
    command = [ROOT / "devtools/linux-guest/pktgen", "--path", path, "--mode", mode,
               "--seconds", seconds, "--sizes", ",".join(map(str, SIZES)), "--accel", accel,
               "--build", build]
    p = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    log.write(f"=== {name}\n{p.stdout}{p.stderr}\n")
    log.flush()
    if p.returncode != 0:
        print(f"perf: {name}: failed with status {p.returncode}, see {log.name}:\n  "
              + "\n  ".join(p.stderr.strip().splitlines()[-5:]), file=sys.stderr, flush=True)
        return None
    said = {"way": name}
    for what in p.stdout.splitlines():
        words = what.split()
        if words[:1] in (["transmit"], ["receive"]):
            said[f"{words[0]} {words[1]}"] = float(words[2])
            said[f"{words[0]} {words[1]} interrupts"] = float(words[3])
        elif words[:1] in (["per-packet"], ["kernel"], ["qemu"], ["taken"]):
            said[words[0]] = " ".join(words[1:])
    if any(said.get(f"{d} {s}", 0) <= 0 for d, s in POINTS):
        print(f"perf: {name}: a point has no packets, see {log.name}", file=sys.stderr, flush=True)
        return None
    return said


def boots(a, seconds, runs, log):
    done, start = [], time.monotonic()
    for r in range(runs):
        for i in range(len(WAYS)):
            way = WAYS[(i + r) % len(WAYS)]   # what runs first is not always the same
            for _ in range(2):
                said = boot(way, a.build, seconds, a.accel, log)
                if said is not None:
                    break
            else:
                sys.exit(f"perf: '{way[0]}' failed twice in a row")
            done.append(said)
            points = "  ".join(f"{d} {s}: {said[f'{d} {s}'] / 1e3:.3g}" for d, s in POINTS)
            rest = (time.monotonic() - start) / len(done) * (runs * len(WAYS) - len(done)) / 60
            print(f"{r + 1}/{runs} {way[0]:<15} kpps: {points}   ({rest:.0f} min to go)",
                  flush=True)
    return done


def summary(values):
    values = sorted(values)
    return {"n": len(values), "median": statistics.median(values), "min": values[0],
            "max": values[-1]}


def evaluate(done):
    """{way: {point: summary in kpps}}"""
    return {name: {point: summary([b["%s %d" % point] / 1e3 for b in done if b["way"] == name])
                   for point in POINTS} for name, *_ in WAYS}


def ratio(rates, name, other, point):
    return rates[name][point]["median"] / rates[other][point]["median"]


def microseconds(rates, name, point):
    return 1e3 / rates[name][point]["median"]


def point_text(point):
    return f"{point[0]} {point[1]} B"


def targets(rates):
    out = []
    for ours, theirs in RIVALS:
        ratios = {p: ratio(rates, ours, theirs, p) for p in POINTS}
        out.append({"id": f"linux.{ours.split()[-1]}",
                    "what": f"Linux guest, pktgen, {ours.split()[-1]}: ours "
                            "against QEMU's virtio-iommu and librte_vhost's IOTLB",
                    "target": f">= {TIMES}x",
                    "measured": ", ".join(f"{point_text(p)} {r:.1f}x" for p, r in ratios.items()),
                    "met": all(r >= TIMES for r in ratios.values())})
    ratios = {p: ratio(rates, PASSTHROUGH, NO_IOMMU, p) for p in POINTS}
    out.append({"id": "linux.pt",
                "what": "Linux guest, pktgen, iommu.passthrough=1: ours against no IOMMU",
                "target": f">= {OF_NO_IOMMU}x",
                "measured": ", ".join(f"{point_text(p)} {r:.2f}x" for p, r in ratios.items()),
                "met": all(r >= OF_NO_IOMMU for r in ratios.values())})
    return out


def result_tables(rates):
    """Of the form of app/perf/results.cc; for the machine. People read those of `markdown`."""
    rows = []
    for name, *_ in WAYS:
        for point in POINTS:
            rows.append({"subject": name,
                         "parameters": {"direction": point[0], "bytes": str(point[1])},
                         "value": rates[name][point], "baseline": NO_IOMMU,
                         "ratio": ratio(rates, name, NO_IOMMU, point)})
    return [{"title": "packets of a real Linux guest", "unit": "kpps", "notes": [], "rows": rows}]


def number(value):
    return f"{value:.0f}" if value >= 99.95 else f"{value:.3g}" if value >= 1 else f"{value:.2f}"


def table(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"


def rate_table(rates):
    def cell(name, point):
        s = rates[name][point]
        return f"{number(s['median'])} ({number(s['min'])} to {number(s['max'])})"
    return table(["kpps: median (lowest to highest)", *map(point_text, POINTS)],
                 [[name, *(cell(name, p) for p in POINTS)] for name, *_ in WAYS])


def ratio_table(rates):
    rows = [[f"{name}, of no IOMMU", *(f"{ratio(rates, name, NO_IOMMU, p):.0%}" for p in POINTS)]
            for name, *_ in WAYS[1:]]
    rows += [[f"{ours}, by {theirs}", *(f"{ratio(rates, ours, theirs, p):.1f}x" for p in POINTS)]
             for ours, theirs in RIVALS]
    return table(["ratio of medians", *map(point_text, POINTS)], rows)


def time_table(rates):
    """Where a packet's time goes: the rates' reciprocals, one way less the one before."""
    def row(what, name, without=None):
        cells = []
        for p in POINTS:
            t = microseconds(rates, name, p)
            cells.append(f"{t - (microseconds(rates, without, p) if without else 0):.1f}")
        return [what, *cells]
    return table(["us for a packet", *map(point_text, POINTS)], [
        row("no IOMMU", NO_IOMMU),
        row("+ an IOMMU that maps nothing: ours, pt", PASSTHROUGH, NO_IOMMU),
        row("+ mapping, ours, lazy", "ours, lazy", PASSTHROUGH),
        row("+ mapping, ours, strict", "ours, strict", PASSTHROUGH),
        row("instead: mapping and IOTLB, QEMU's, lazy", "QEMU's, lazy", NO_IOMMU),
        row("instead: mapping and IOTLB, QEMU's, strict", "QEMU's, strict", NO_IOMMU)])


def interrupt_table(done):
    def median(name, point):
        return statistics.median(b["%s %d interrupts" % point] for b in done if b["way"] == name)
    return table(["interrupts for a packet", *map(point_text, POINTS)],
                 [[name, *(f"{median(name, p):.2f}" for p in POINTS)] for name, *_ in WAYS])


def conditions(results):
    m, r = results["machine"], results["run"]
    return (f"{m['cpu']}, {m['cores']} cores{', in a virtual machine' if m['virtual'] else ''}; "
            f"{m['kernel']}; QEMU {r['qemu']} {r['accel'].upper()}, guest Linux {r['guest']}, "
            f"{r['runs']} boots of each, {r['seconds']} s a point; load before {m['load']:.2f}"
            f"{' (**busy: not to be quoted**)' if m['busy'] else ''}; `{m['commit']}`, {m['date']}")


def markdown(results, rates):
    """The block of doc/performance.md."""
    rows = [[t["what"], t["target"], t["measured"], "yes" if t["met"] else "**no**"]
            for t in results["targets"]]
    requests = "".join(f"- {name}: {text} MAPs and UNMAPs for a packet, sent or received.\n"
                       for name, text in results["run"]["requests"].items())
    return "\n".join([
        conditions(results) + ".\n", table(["what", "target", "measured", "met"], rows),
        rate_table(rates), ratio_table(rates), time_table(rates),
        interrupt_table(results["boots"]), requests])


def picture(results, rates):
    panels = []
    for direction in ("transmit", "receive"):
        series = [(name, colour, [[rates[name][(direction, size)][k]
                                   for k in ("min", "median", "max")] for size in SIZES])
                  for name, _, _, colour in WAYS]
        panels.append((f"A Linux guest's NIC, {direction}", [f"{s} bytes" for s in SIZES], series))
    return perf_bars.draw(panels, "kpps, logarithmic; bars: medians, whiskers: lowest and highest",
                          re.sub("[`*]", "", conditions(results)).replace("; QEMU", "\nQEMU")
                          .splitlines())


def measure(a):
    """Boot, print, leave linux.{json,md,svg,log} in a.out; returns the block for the document."""
    if os.geteuid() != 0:
        sys.exit("perf: --guest linux takes root: its guests have a network namespace")
    seconds = int(a.seconds or (1 if a.quick else 3))
    runs = a.runs or (1 if a.quick else 5)
    settle(0 if a.quick else 180)
    machine = describe_machine(a.build)
    with open(a.out / "linux.log", "w") as log:
        done = boots(a, seconds, runs, log)
    rates = evaluate(done)
    requests = {b["way"]: b["per-packet"] for b in done if "per-packet" in b}
    results = {"scenario": "linux", "machine": machine,
               "run": {"accel": a.accel, "runs": runs, "seconds": seconds, "qemu": done[0]["qemu"],
                       "guest": done[0]["kernel"], "requests": requests},
               "tables": result_tables(rates), "targets": targets(rates), "boots": done}
    block = markdown(results, rates)
    (a.out / "linux.json").write_text(json.dumps(results, indent=2) + "\n")
    (a.out / "linux.md").write_text(block)
    (a.out / "linux.svg").write_text(picture(results, rates))
    print(f"\n{block}")
    if machine["busy"]:
        print("perf: the machine was busy: these figures are not to be kept")
    return block
