# SPDX-License-Identifier: Apache-2.0
"""mizarnet and its peers side by side: ``python -m tests.bench.suite``, as root, on a machine that does nothing else.

All peers live at once, and take turns in an order of chance, some tenths of a second each, so that whatever else the
machine does meets all of them. Everything runs in the real-time class: free-running ratios of the same pair came out
as 1.33 and 0.93 where the true ones were 1.05 and 1.01. Each round gives a ratio, and a table has their median and the
two extremes. Results are added to a file, a line each; ``--report`` writes ``docs/benchmarks.md`` and a plot of it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal

import attrs

from mizarnet._kernel.netlink import LOOPBACK_IFINDEX, Session, set_link
from tests.bench import peers, report
from tests.bench.peers import Peer
from tests.bench.timing import Timer
from tests.support.isolation import isolate

RESULTS = Path("build/benchmarks.jsonl")
PRIORITY = 10


@attrs.frozen
class Row:
    """What is measured of each peer.

    Attributes:
        name: What it is called.
        mode: What the timer does.
        way: Whether the guests are on two hosts or on one.
        mtu: MTU of the underlay, in bytes.
        cpus: CPUs of client and server.
        count: Connections of a stream; bytes of a datagram.
    """

    name: str
    mode: Literal["rr", "stream", "udp"]
    way: Literal["remote", "local"] = "remote"
    mtu: int = 1500
    cpus: tuple[int, int] = (0, 0)
    count: int = 1


ROWS = (
    Row("round trips, one CPU", "rr"),
    Row("round trips, two CPUs", "rr", cpus=(0, 1)),
    Row("stream, 1 flow, MTU 1500", "stream", cpus=(0, 1)),
    Row("stream, 4 flows, MTU 1500", "stream", cpus=(0, 1), count=4),
    Row("stream, one CPU, MTU 1500", "stream"),
    Row("UDP of 64 bytes", "udp", cpus=(0, 1), count=64),
    Row("round trips on one host, one CPU", "rr", way="local"),
    Row("stream on one host, 1 flow", "stream", way="local", cpus=(0, 1)),
    Row("stream, 1 flow, MTU 9000", "stream", mtu=9000, cpus=(0, 1)),
    Row("stream, 4 flows, MTU 9000", "stream", mtu=9000, cpus=(0, 1), count=4),
)


def measure(
    tools: Path, rows: Sequence[Row], kinds: Sequence[type[Peer]], rounds: int, seconds: float
) -> Iterator[report.Result]:
    """The results of rows with the same MTU.

    Args:
        tools: Directory with the compiled programs and the timer.
        rows: What is measured.
        kinds: Peers that have a turn.
        rounds: How often each has one.
        seconds: Length of a turn.
    """
    timer = Timer(tools / "timer", PRIORITY)
    with ExitStack() as stack:
        alive = [stack.enter_context(kind(tools / "peers.bpf.o", mtu=rows[0].mtu)) for kind in kinds]
        for _ in range(rounds):
            number = time.time_ns()
            for row in rows:
                here = [each for each in alive if getattr(each, row.way) is not None]
                for peer in random.sample(here, len(here)):
                    way = getattr(peer, row.way)
                    with _awake(row):
                        found = timer.run(row.mode, way, cpus=row.cpus, seconds=seconds, count=row.count)
                    yield report.Result(row.name, peer.name, number, found)


@contextmanager
def _awake(row: Row) -> Iterator[None]:
    """Let no CPU be idle during round trips of two: to wake a virtual one takes longer than the round trip."""
    cpus = set(row.cpus) if row.mode == "rr" and len(set(row.cpus)) > 1 else ()
    spin = (sys.executable, "-c", "while True: pass")
    with ExitStack() as stack:
        for cpu in cpus:
            spinner = subprocess.Popen(("chrt", "-i", "0", "taskset", "-c", str(cpu), *spin))
            stack.callback(spinner.wait)
            stack.callback(spinner.kill)
        yield


def main(argv: Sequence[str]) -> int:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=0.3, help="of each turn")
    parser.add_argument("--mtu", type=int, action="append", choices=(1500, 9000), help="only with this one")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file that results are added to")
    parser.add_argument("--report", action="store_true", help="write the page from the results")
    arguments = parser.parse_args(argv)
    if arguments.rounds:
        arguments.results.parent.mkdir(exist_ok=True)
        isolate()
        with Session.open() as session:
            set_link(session, LOOPBACK_IFINDEX, up=True)
        with tempfile.TemporaryDirectory() as directory, arguments.results.open("a") as kept:
            tools = Path(directory)
            peers.compile_programs(tools)
            peers.compile_tool("timer", tools)
            for mtu in arguments.mtu or (1500, 9000):
                rows = [row for row in ROWS if row.mtu == mtu]
                for result in measure(tools, rows, peers.PEERS, arguments.rounds, arguments.seconds):
                    kept.write(json.dumps(attrs.asdict(result)) + "\n")
    results = [report.Result(**json.loads(line)) for line in arguments.results.read_text().splitlines()]
    tables = report.tables([row.name for row in ROWS], [kind.name for kind in peers.PEERS], results)
    print(tables)
    if arguments.report:
        says = {kind.name: kind.says for kind in peers.PEERS}
        report.write(tables, results, says, machine=_machine(), rows=[row.name for row in ROWS])
    return 0


def _machine() -> str:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return f"Linux {os.uname().release}, {os.cpu_count()} CPUs ({model})"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
