#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Compile one file as a release, with any compiler, with the include paths of another.

  compile.py BUILD COMPILER SOURCE LIKE OUTPUT DEPFILE

BUILD/compile_commands.json says how LIKE, a file name, is compiled there; warnings, optimization
and sanitizers of that build are left out.
"""
import json
import shlex
import subprocess
import sys
from pathlib import Path

build, compiler, source, like, output, depfile = sys.argv[1:]
command = next(c["command"] for c in json.loads((Path(build) / "compile_commands.json").read_text())
               if c["file"].endswith(like))
keep = ("-I", "-D", "-isystem", "-std", "-m", "-include")
args = []
words = shlex.split(command)
for i, word in enumerate(words):
    if word.startswith(keep) and not word.startswith("-MD"):
        args.append(word)
        if word in ("-include", "-isystem", "-I"):
            args.append(words[i + 1])
args += ["-O3", "-fPIE", "-MD", "-MF", depfile, "-MT", output, "-c", source, "-o", output]
sys.exit(subprocess.call([compiler, *args], cwd=build))
