# SPDX-License-Identifier: Apache-2.0
"""Prints how long each program takes for a packet, in an older build and in this tree's, in nanoseconds.

``python -m tests.bench.two_builds REVISION``, as root. Programs and packets are those of ``instructions.py``, so the
dry run's own work is in both columns. The kernel runs a packet many times in one call (``BPF_PROG_TEST_RUN``). Calls of
the two builds take turns on one CPU, and the least of each is free of interrupts and of other work.
"""

from __future__ import annotations

import argparse
import os
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from mizarnet._datapath import loader
from mizarnet._datapath.dry_run import CAPACITY, DryRun
from mizarnet._datapath.dry_run.facts import ASKED, FACTS, KEY
from mizarnet._datapath.self_test.frames import Canned, frames
from mizarnet._datapath.self_test.host import HOSTS, Host
from mizarnet._kernel.bpf import Program
from tests.support.twin_object import ROOT, build

TURNS, REPEAT = 60, 2000
SHORTEST = 64  # a test run takes no shorter frame; what is cut off is told as a fact
CPU = 0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("revision")
    parser.add_argument("--only", default="", help="packets with this in their name", metavar="TEXT")
    options = parser.parse_args()
    os.sched_setaffinity(0, {CPU})
    with tempfile.TemporaryDirectory() as directory:
        there = Path(directory)
        old = _sources(options.revision, there)
        objects = [
            build(each, there / name, route_identity=True)
            for name, each in (("before", old), ("now", ROOT / "csrc"))
        ]
        print(f"{'before':>6} {'now':>6}")
        for host in HOSTS:
            for name, before, now in _times(host, objects, options.only):
                print(f"{before:6} {now:6} {100 * (now - before) / before:+6.1f} %  {name}", flush=True)


def _sources(revision: str, into: Path) -> Path:
    """Those of the programs in a revision."""
    archive = ("git", "-C", ROOT, "archive", revision, "csrc")
    packed = subprocess.run(archive, check=True, capture_output=True).stdout
    subprocess.run(("tar", "-x", "-C", into), input=packed, check=True)
    return into / "csrc"


def _times(host: Host, objects: list[Path], only: str) -> Iterator[tuple[str, int, int]]:
    """Name of a packet, and nanoseconds for it in each build."""
    with ExitStack() as stack:
        runs = []
        for path in objects:
            loaded = loader.load(host.config.pack(), CAPACITY, path=path, layouts=(KEY, FACTS, ASKED))
            run = stack.enter_context(DryRun(loaded))
            host.fill(run.maps)
            runs.append((run, loaded.programs))
        for canned in frames(host):
            name = f"{canned.program.name.lower()}: {canned.name} ({host.name})"
            if only not in name:
                continue
            programs: list[Program] = []
            for run, loaded_programs in runs:
                run.set_devices(tunnel=canned.has_tunnel, moved=canned.moved)
                run.run(canned.program, canned.frame, canned.context, canned.facts)  # leaves the facts
                programs.append(loaded_programs[f"mzn_{canned.program.name.lower()}"])
            before, now = _least(programs, canned)
            yield name, before, now


def _least(programs: list[Program], canned: Canned) -> list[int]:
    context = b"" if programs[0].name == "mzn_switch" else struct.pack("=8xI", canned.context.mark)
    frame = canned.frame.ljust(SHORTEST, b"\0")
    turns = [
        [each.test_run(frame, repeat=REPEAT, context=context).duration_ns for each in programs]
        for _ in range(TURNS)
    ]
    return [min(times) for times in zip(*turns, strict=True)]


if __name__ == "__main__":
    main()
