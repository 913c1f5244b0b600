# SPDX-License-Identifier: Apache-2.0
"""The CPU time of one verb in a fresh process, with its parts: ``python -m tests.bench.cold_start [ROUNDS]``, as root.

A row has the least and the median in milliseconds. A command that makes one call, as a container engine's plugin is,
pays all of it each time.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile

import mizarnet as mz

CODE = """
import json, sys, time
times = [0.0]
def done(): times.append(time.process_time())
done()
import attrs, ipaddress, socket; done()
from mizarnet import Endpoint, TransitAgent; done()
agent = TransitAgent.open("tunnel0", netns=sys.argv[1]); done()
endpoint = Endpoint.create(agent, vni=7, ip="10.0.0.9/24", netns=sys.argv[2]); done()
endpoint.delete(); done()
print(json.dumps([(after - before) * 1e3 for before, after in zip(times, times[1:])]))
"""
PARTS = (
    "interpreter",
    "attrs, ipaddress, socket",
    "the library",
    "TransitAgent.open()",
    "Endpoint.create()",
    "delete()",
)


def compiled_in(directory: str) -> dict[str, str]:
    """The environment of a process that finds its modules compiled, as those of an installed package are."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPYCACHEPREFIX": directory}


def main(rounds: int) -> int:
    """Measure and print."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    found: list[list[float]] = []
    with mz.Lab(name="cold", hosts=1) as lab, tempfile.TemporaryDirectory() as directory:
        command = (sys.executable, "-c", CODE, lab.hosts[0].netns, lab.container("c0"))
        for _ in range(1 + rounds):  # the first one compiles
            done = subprocess.run(
                command, stdout=subprocess.PIPE, check=True, env=compiled_in(directory), timeout=60
            )
            found.append(json.loads(done.stdout))
    taken = dict(zip(PARTS, zip(*found[1:], strict=True), strict=True))
    for part, values in taken.items():
        print(f"{part:28} {min(values):7.1f} {statistics.median(values):7.1f}")
    created = [sum(each[:-1]) for each in found[1:]]
    print(f"{'up to the created endpoint':28} {min(created):7.1f} {statistics.median(created):7.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 20))
