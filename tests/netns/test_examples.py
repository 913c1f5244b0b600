# SPDX-License-Identifier: Apache-2.0
"""Every example runs, shows what it promises, stays short, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.outside import need_nftables

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
NOT_EXPLAINED = " ? "  # a verdict without a remark
BOOTS_A_MACHINE, DEMO, LEADS_OUT = "vm.py", "two_hosts.py", "gateway.py"
LONGEST = 40
SECONDS = 100
SEEN = {
    "two_hosts.py": (
        "Encapsulation: ",
        "ok  VNI 7: 12 of 12 pairs answered",
        "ok  VNI 8: 20 of 20 pairs answered",
        "ok  blue1 asks 10.0.0.3 for its name: 'blue3'",
        "ok  green1 asks 10.0.0.3 for its name: 'green3'",
        "3 of 3 lost, drop reason no_destination +3",
        "all as expected",
    ),
    "gateway.py": (
        "ok  red11 reaches the outside",
        "ok  blue12 reaches the outside",
        "ok  port 8007 leads to red12",
        "ok  port 8008 leads to blue12",
        "ok  red11 sends 100 frames of VNI 8 to a host, 0 arrive",
        "ok  blue12 stays in",
        "all as expected",
    ),
    "switched_fabric.py": (
        "ok  the way is h1 -> h2",
        "ok  the way is h1 -> h3 -> h2",
        "ok  the way is h1 -> h4 -> h5 -> h6",
        "ok  outer TTL 64, 8, 7",
        "ok  inner TTL 63 at d",
        "all as expected",
    ),
    "orchestrator.py": (
        "orchestrator-h3: 68 changes",
        "orchestrator-h3: 0 changes",
        "changes, then 0; a container of the first host reaches one of the third",
    ),
    "event_stream.py": ("ok  web asks for 10.0.0.99: neighbour_unknown", "all as expected"),
    "vm.py": (
        "ok  the VM pings near",
        "ok  near pings the VM",
        "ok  the VM reads a page of far",
        "ok  far reads a page of the VM",
        "bytes on average, with an MTU of 1450",
        "all as expected",
    ),
}


def _start(path: Path) -> subprocess.Popen[str]:
    # A shell starts what runs in the background deaf to SIGINT, tests too, and Python leaves that as it is.
    return subprocess.Popen(
        ["env", "--default-signal=INT", sys.executable, str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
    )


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=[pytest.mark.vm] * (path.name == DEMO)) for path in EXAMPLES],
    ids=lambda path: path.name,
)
def test_example(path: Path) -> None:
    if path.name == BOOTS_A_MACHINE and Path("/run/vm").exists():
        pytest.skip("an emulated machine in an emulated machine would take minutes")
    if path.name == LEADS_OUT:
        need_nftables()
    process = _start(path)
    try:
        output, errors = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
    assert (process.returncode, errors) == (0, ""), output + errors
    assert [line for line in SEEN[path.name] if line not in output] == [], output
    assert NOT_EXPLAINED not in output


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example_is_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LONGEST


def _interrupt(number: signal.Signals) -> tuple[int, str]:
    """The exit status of a demonstration that got a signal in its middle, and what it said of it."""
    process = _start(ROOT / "examples" / "two_hosts.py")
    try:
        assert process.stdout is not None
        while not process.stdout.readline().startswith("Ping"):
            assert process.poll() is None
        process.send_signal(number)
        _, errors = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
    return process.returncode, errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_interrupted_demonstration_leaves_nothing(number: signal.Signals) -> None:
    status, errors = _interrupt(number)
    assert status not in (0, -signal.SIGKILL)
    assert [name for name in os.listdir("/run/netns") if name.startswith("demo-")] == [], errors
