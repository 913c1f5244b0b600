# SPDX-License-Identifier: Apache-2.0
"""Prints how many machine instructions each program takes for a packet; run as root: ``tests/bench/instructions.py``.

The packets are the self-test's, the programs those of the dry run, which count and note a little beside. They run in an
emulated machine whose clock goes on by a nanosecond for each instruction executed, so that the kernel's duration of a
test run is a number of instructions, those of helpers and of the test run itself included. The smallest of many runs is
free of interrupts. Two builds are compared by running this in both.

The second column is of the shipped programs that look at no route, where they need nothing that a test run lacks.

``--kernel`` chooses the machine's kernel; ``--here`` counts on this one, where a nanosecond is a nanosecond.
"""

from __future__ import annotations

import argparse
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
RUNS = 40  # of a packet; an endpoint is told a hundred times in a second what is too long, of both families together
SHORTEST = 64  # a test run takes no shorter frame; what is cut off is told as a fact


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kernel", default="6.12")
    parser.add_argument("--here", action="store_true")
    options = parser.parse_args()
    if options.here:
        for name, dry, shipped in counts():
            print(f"{dry:6} {shipped or '-':>6}  {name}", flush=True)
        return 0
    machine = [
        sys.executable,
        "tests/vm/run.py",
        "--kernel",
        options.kernel,
        "--cpus",
        "1",
        "--count-instructions",
    ]
    command = [sys.executable, __file__, "--here"]
    return subprocess.run(
        [*machine, "--env", f"PYTHONPATH={ROOT}", "--", *command], cwd=ROOT, check=False
    ).returncode


def counts() -> Iterator[tuple[str, int, int | None]]:
    """Name of a packet, and the instructions it takes in the dry run and in the shipped programs."""
    from mizarnet._datapath import loader
    from mizarnet._datapath.dry_run import CAPACITY, DEVICE, DryRun, object_path
    from mizarnet._datapath.dry_run.facts import ASKED, FACTS, KEY
    from mizarnet._datapath.maps import Maps
    from mizarnet._datapath.self_test.frames import Canned, frames
    from mizarnet._datapath.self_test.host import HOSTS
    from mizarnet._kernel.bpf import Program
    from mizarnet._model.codec import FIRST, u32

    def least(program: Program, canned: Canned, action: int) -> int | None:
        context = b"" if program.name == "mzn_switch" else struct.pack("=8xI", canned.context.mark)
        frame = canned.frame.ljust(SHORTEST, b"\0")
        runs = [program.test_run(frame, context=context) for _ in range(RUNS)]
        return min(run.duration_ns for run in runs) if runs[-1].verdict == action else None

    for host in HOSTS:
        with ExitStack() as stack:
            config, dry_path = host.config.pack(), object_path(route_identity=True)
            dry = loader.load(config, CAPACITY, path=dry_path, layouts=(KEY, FACTS, ASKED))
            dry_run = stack.enter_context(DryRun(dry))
            shipped_path = dry_path.with_name("transit-mac-only.bpf.o")
            shipped = stack.enter_context(loader.load(config, CAPACITY, path=shipped_path))
            host.fill(dry_run.maps)
            maps = Maps.of(shipped)
            host.fill(maps)
            for canned in frames(host):
                dry_run.set_devices(tunnel=canned.has_tunnel, moved=canned.moved)
                maps.lifeline.update(FIRST, u32(DEVICE))
                # Leaves the facts where the runs below find them.
                action = dry_run.run(canned.program, canned.frame, canned.context, canned.facts).action
                name = canned.program.name.lower()
                in_dry_run, as_shipped = (
                    least(each.programs[f"mzn_{name}"], canned, action) for each in (dry, shipped)
                )
                if in_dry_run is not None:  # else the packet needs more of its context than the mark
                    shown = as_shipped if canned.has_tunnel and not canned.moved else None
                    yield f"{name}: {canned.name} ({host.name})", in_dry_run, shown


if __name__ == "__main__":
    sys.exit(main())
