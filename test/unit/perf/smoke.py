#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Run `dpdk-viommu-perf SCENARIO --quick` and look whether what it wrote makes sense.

  smoke.py PROGRAM SCENARIO
"""
import json
import subprocess
import sys
import tempfile
import xml.etree.ElementTree
from pathlib import Path

program, scenario = sys.argv[1:]
with tempfile.TemporaryDirectory() as folder:
    figures, plot = Path(folder, "figures.json"), Path(folder, "plot.svg")
    run = subprocess.run([program, scenario, "--quick", "--json", figures, "--plot", plot],
                         stdout=subprocess.PIPE, text=True)
    print(run.stdout)
    assert run.returncode == 0, f"exit status {run.returncode}"
    results = json.loads(figures.read_text())
    xml.etree.ElementTree.parse(plot)

assert results["scenario"] == scenario
assert results["machine"]["cores"] > 0 and results["machine"]["commit"]
assert results["tables"], "no table"
for table in results["tables"]:
    assert table["rows"], f"{table['title']}: no row"
    for row in table["rows"]:
        value = row["value"]
        assert value["n"] > 0, row
        assert 0 < value["min"] <= value["p10"] <= value["median"], row
        assert value["median"] <= value["p90"] <= value["max"] < 1e12, row
        assert "baseline" not in row or 0 < row["ratio"] < 1e9, row
assert results["targets"], "no target"
