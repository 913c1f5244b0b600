# SPDX-License-Identifier: Apache-2.0
"""Prints how many machine instructions agent and guard take in real traffic, the agent that reads routes included.

Run as root: ``tests/bench/instructions_in_traffic.py``. Two hosts and three endpoints are made in an emulated machine
whose clock goes on by a nanosecond for each instruction executed. One endpoint sends datagrams to a neighbour on its
host, then to one on the other host, and the kernel's own statistics (``bpf_stats_enabled``) say how long each program
ran: the mean over all packets, with some fifteen instructions of the statistics.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import mizarnet as mz
from mizarnet._kernel import bpf

ROOT = Path(__file__).resolve().parent.parent.parent
MACHINE = (
    *("tests/vm/run.py", "--kernel", "6.12", "--cpus", "1", "--count-instructions"),
    "--timeout",
    "900",
)
DATAGRAMS = 1500
SEND = f"""
import contextlib, socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
    sender.connect((sys.argv[1], 9))
    for _ in range({DATAGRAMS}):
        with contextlib.suppress(OSError):  # nobody listens there
            sender.send(bytes(100))
"""
_MOST_IDS = 500


def main() -> int:
    if sys.argv[1:] == ["--here"]:
        measure()
        return 0
    command = [
        sys.executable,
        *MACHINE,
        "--env",
        f"PYTHONPATH={ROOT}",
        "--",
        sys.executable,
        __file__,
        "--here",
    ]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def measure() -> None:
    Path("/proc/sys/kernel/bpf_stats_enabled").write_text("1")
    with mz.Lab(hosts=2, name="count") as lab:
        for number, host in ((1, 0), (2, 0), (3, 1)):
            netns = lab.container(f"web{number}")
            agent = lab.hosts[host].agent
            mz.Endpoint.create(agent, name=netns, vni=7, ip=f"10.0.0.{number}/24", netns=netns)
        lab.publish()
        for where, address in (("to this host", "10.0.0.2"), ("to another host", "10.0.0.3")):
            lab.run("web1", "ping", "-c1", "-W5", address)
            before = _statistics()
            lab.run("web1", sys.executable, "-c", SEND, address, timeout=300)
            time.sleep(1)
            for key, (runs, spent) in _statistics().items():
                runs, spent = runs - before[key][0], spent - before[key][1]
                if runs > DATAGRAMS / 2:
                    print(f"{spent / runs:8.1f}  {key[1].removeprefix('mzn_')}, {where}", flush=True)


def _statistics() -> dict[tuple[int, str], tuple[int, int]]:
    """How often each program ran, and the nanoseconds that took."""
    found: dict[tuple[int, str], tuple[int, int]] = {}
    for number in range(1, _MOST_IDS):
        program = bpf.Program.open_id(number)
        if program is None:
            continue
        if program.name.startswith("mzn_"):
            found[number, program.name] = program.run_count, program.run_time_ns
        program.close()
    return found


if __name__ == "__main__":
    sys.exit(main())
