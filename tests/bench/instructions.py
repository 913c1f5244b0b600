# SPDX-License-Identifier: Apache-2.0
"""Prints how many machine instructions each program takes for a packet; run as root: ``tests/bench/instructions.py``.

The packets are the self-test's, the programs those of the dry run, which count and note a little beside. They run in an
emulated machine whose clock goes on by a nanosecond for each instruction executed, so that the kernel's duration of a
test run is a number of instructions, those of the test run itself (the last row but one) and of helpers included. The
smallest of many runs is free of interrupts. Two builds are compared by running this in both.

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
RUNS = 200
SHORTEST = 64  # a test run takes no shorter frame; what is cut off is told as a fact


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kernel", default="6.12")
    parser.add_argument("--here", action="store_true")
    options = parser.parse_args()
    if options.here:
        for name, count in counts():
            print(f"{count:6}  {name}", flush=True)
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


def counts() -> Iterator[tuple[str, int]]:
    """Name of a packet, and the instructions it takes."""
    from mizarnet import loader
    from mizarnet.abi.dry_facts import ASKED, FACTS, KEY
    from mizarnet.dry_run import CAPACITY, DryRun, object_path
    from mizarnet.self_test.frames import frames
    from mizarnet.self_test.host import HOSTS

    for host in HOSTS:
        with ExitStack() as stack:
            path = object_path(route_identity=True)
            loaded = loader.load(host.config.pack(), CAPACITY, path=path, layouts=(KEY, FACTS, ASKED))
            dry_run = stack.enter_context(DryRun(loaded))
            host.fill(dry_run.maps)
            for canned in frames(host):
                program = loaded.programs[f"mzn_{canned.program.name.lower()}"]
                dry_run.set_tunnel(there=canned.has_tunnel)
                # Leaves the facts where the runs below find them.
                wanted = dry_run.run(canned.program, canned.frame, canned.context, canned.facts)
                context = b"" if program.name == "mzn_switch" else struct.pack("=8xI", canned.context.mark)
                frame = canned.frame.ljust(SHORTEST, b"\0")
                runs = [program.test_run(frame, context=context) for _ in range(RUNS)]
                if runs[-1].verdict == wanted.action:  # else the packet needs more context than its mark
                    least = min(run.duration_ns for run in runs)
                    yield f"{program.name.removeprefix('mzn_')}: {canned.name} ({host.name})", least


if __name__ == "__main__":
    sys.exit(main())
