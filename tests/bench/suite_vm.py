# SPDX-License-Identifier: Apache-2.0
"""mizarnet and its peers by instructions executed, in an emulated machine: ``python -m tests.bench.suite_vm``, as root.

The machine has Debian's kernel 6.12, which has Geneve, netkit and Open vSwitch, and one processor, whose clock goes on
by a nanosecond for each instruction. So a round trip takes as many nanoseconds as it takes instructions, whatever else
this machine does. Cache misses and mispredicted branches cost nothing there, and mitigations are off.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs

from mizarnet._kernel.netlink import LOOPBACK_IFINDEX, Session, set_link
from tests.bench import peers, report
from tests.bench.peers import Peer
from tests.bench.peers.evidence import kinds, on_the_wire, sent_during
from tests.bench.peers.ovs import PACKAGES
from tests.bench.suite import Row, measure
from tests.bench.timing import Timer
from tests.support.isolation import isolate

ROOT = Path(__file__).resolve().parent.parent.parent
BUILD = ROOT / "build" / "bench-vm"
UNPACKED = BUILD / "packages"
RESULTS = Path("/mnt/out/results.jsonl")
MACHINE = (
    *("tests/vm/run.py", "--kernel", "6.12", "--cpus", "1", "--possible-cpus", "1", "--count-instructions"),
    *("--memory", "2G", "--timeout", "1500", "--out", str(BUILD / "out"), "--log", str(BUILD / "kernel.log")),
)
_DEVICES = {peers.Netkit: {"netkit", "vxlan"}, peers.Ovs: {"openvswitch", "vxlan"}}
ROUNDS, SECONDS = 2, 0.15
ROWS = (
    Row("round trip to another host", "rr"),
    Row("round trip on one host", "rr", way="local"),
    Row("kilobyte of a stream to another host", "stream"),
)


def main(argv: Sequence[str]) -> int:
    """Measure, and write the page."""
    if argv == ["--here"]:
        _measure()
        return 0
    BUILD.mkdir(parents=True, exist_ok=True)
    peers.compile_programs(BUILD)
    peers.compile_tool("timer", BUILD)
    _fetch()
    inside = (sys.executable, "-m", "tests.bench.suite_vm", "--here")
    status = subprocess.run((sys.executable, *MACHINE, "--", *inside), cwd=ROOT, check=False).returncode
    if status:
        return status
    lines = (BUILD / "out" / RESULTS.name).read_text().splitlines()
    table = "\n".join(_table([report.Result(**json.loads(line)) for line in lines]))
    print(table)
    says = "\n".join(f"- **{kind.name}**: {kind.says}" for kind in peers.EMULATED)
    report.replace(report.EMULATED, f"{says}\n\n{table}")
    return 0


def _fetch() -> None:
    """Fetch and unpack the packages of Open vSwitch, which this machine need not have."""
    for package in PACKAGES:
        if not list(BUILD.glob(f"{package}_*.deb")):
            command = ("apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", package)
            subprocess.run(command, cwd=BUILD, check=True)
    for archive in BUILD.glob("*.deb"):
        subprocess.run(("dpkg-deb", "-x", archive, UNPACKED), check=True)


def _measure() -> None:
    """Inside the machine, where what is written to the file system ends with it."""
    shutil.copytree(UNPACKED / "usr", "/usr", symlinks=True, dirs_exist_ok=True)
    isolate()
    with Session.open() as session:
        set_link(session, LOOPBACK_IFINDEX, up=True)
    for kind in peers.EMULATED:
        _examine(kind)
    with RESULTS.open("w") as kept:
        for result in measure(BUILD, ROWS, peers.EMULATED, ROUNDS, SECONDS):
            kept.write(json.dumps(attrs.asdict(result)) + "\n")
            print(result, flush=True)


def _examine(kind: type[Peer]) -> None:
    """Raise if a peer does not carry what it says."""
    timer = Timer(BUILD / "timer")
    with kind(BUILD / "peers.bpf.o") as peer:
        inside, others = on_the_wire(peer, timer, peer.remote)
        assert (inside > 10, others > 10) == ((False, True) if kind is peers.Native else (True, False)), kind
        if peer.local is not None:
            assert sent_during(peer, timer, peer.local) == 0, kind
        assert kind not in _DEVICES or _DEVICES[kind] <= kinds(peer.hosts[0]), kind


def _table(results: Sequence[report.Result]) -> Iterator[str]:
    names = [kind.name for kind in peers.EMULATED]
    yield "| instructions for a | " + " | ".join(names) + " |"
    yield "|---" * (1 + len(names)) + "|"
    for row in ROWS:
        costs = [_cost(row, name, results) for name in names]
        cells = ["-" if cost is None else f"{cost:,.0f} ({cost / (costs[0] or cost):.2f})" for cost in costs]
        yield f"| {row.name} | " + " | ".join(cells) + " |"


def _cost(row: Row, name: str, results: Sequence[report.Result]) -> float | None:
    """Nanoseconds of a round trip, or of a thousand bytes at a rate in gigabits a second."""
    found = [each.found for each in results if (each.row, each.peer) == (row.name, name)]
    if not found:
        return None
    if row.mode == "rr":
        return statistics.median(each["p50"] * 1000 for each in found)
    return statistics.median(8000 / each["rate"] for each in found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
