# SPDX-License-Identifier: Apache-2.0
"""Runs the tests inside the emulated kernels, side by side, and says what became of them.

``python tests/vm/suite.py`` runs a selection of the tests marked ``vm``: on every kernel the demands and the tests of
``tests/bpf``, and half of the others, a different one on each kernel and every day. ``--full`` runs all that need root.
The interpreter that runs this also runs the tests in the guests, which see the same files. The whole output of each
kernel is kept in ``build/vm-<kernel>.log``, the kernel's own messages in ``build/vm-<kernel>-kernel.log``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

from kernels import METAPACKAGES, SetupError, kernel

ROOT = Path(__file__).resolve().parent.parent.parent
BUILD = ROOT / "build"
TESTS = ("tests/bpf", "tests/netns")

TAIL_LINES = 60


@dataclass(frozen=True)
class Extent:
    """Which tests are run, by their markers, and what they get.

    `seconds` is the time for all, `test_seconds` for one. A process in emulation takes fifteen times as long as on
    this machine: attacks have fewer `frames` (tests/support/flood.py).
    """

    markers: str
    seconds: int
    test_seconds: int
    frames: int


# What is not the tunnel's own work needs one encapsulation: the one that the kernel of this machine may lack.
SELECTION = Extent("vm and not twin and (demand or not vxlan)", seconds=1900, test_seconds=120, frames=3_000)
FULL = Extent("", seconds=3 * 3600, test_seconds=600, frames=10_000)


@dataclass(frozen=True)
class Processors:
    """What the emulated machines have: processors that run, and how many there may ever be.

    Per-CPU maps have a value for each of the latter, whether it runs or not.
    """

    online: int
    possible: int


@dataclass(frozen=True)
class Result:
    """What became of the tests on one kernel.

    `failures` has the name and the first line of each test that did not pass; `status` is the exit status of the
    run, `seconds` its length on this machine's clock. Counts are zero when the tests did not come to their end.
    """

    series: str
    release: str
    status: int
    seconds: float
    passed: int
    skipped: int
    failures: Sequence[tuple[str, str]]

    @property
    def summary(self) -> str:
        """One line for people."""
        counts = f"{self.passed} passed, {len(self.failures)} failed, {self.skipped} skipped"
        word = "ok" if self.status == 0 else f"FAILED (exit status {self.status})"
        return f"Linux {self.release}: {counts} in {self.seconds:.0f} s: {word}"


def prepare() -> None:
    """Compile on this machine what the guests, which cannot write here, would compile at each run."""
    everything = ("-m", "pytest", "-p", "no:cacheprovider", "-q", "--collect-only", *TESTS)
    subprocess.run([sys.executable, *everything], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)


def turn(series: str) -> str:
    """Which half of the tests that change with the day a kernel takes: two kernels never the same."""
    return f"{(int(time.time()) // 86400 + [*METAPACKAGES].index(series)) % 2 + 1}/2"


def run(series: str, extent: Extent, processors: Processors, part: str) -> Result:
    """Run the tests, or a part of them, on the kernel of a series."""
    release = kernel(series).release
    out = BUILD / f"vm-{series}"
    report = out / "junit.xml"
    report.unlink(missing_ok=True)
    started = time.monotonic()
    with log(series).open("wb") as output:
        command = _command(series, out, extent, processors, part)
        done = subprocess.run(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False
        )
    seconds = time.monotonic() - started
    cases = list(ElementTree.parse(report).iter("testcase")) if report.exists() else []
    failures = [found for case in cases for found in _failures(case)]
    skipped = sum(case.find("skipped") is not None for case in cases)
    return Result(
        series=series,
        release=release,
        status=done.returncode,
        seconds=seconds,
        passed=len(cases) - len(failures) - skipped,
        skipped=skipped,
        failures=failures,
    )


def log(series: str) -> Path:
    """Where the output of the run on a series is kept."""
    return BUILD / f"vm-{series}.log"


def _command(series: str, out: Path, extent: Extent, processors: Processors, part: str) -> list[str]:
    machine = [
        *(sys.executable, "tests/vm/run.py", "--kernel", series),
        *("--cpus", str(processors.online), "--possible-cpus", str(processors.possible)),
        *("--memory", "2G", "--timeout", str(extent.seconds)),
        *("--out", str(out), "--log", str(BUILD / f"vm-{series}-kernel.log")),
        *("--env", f"MIZARNET_TEST_FRAMES={extent.frames}"),
        *("--env", f"MIZARNET_TEST_SECONDS={extent.test_seconds}"),
        *("--env", f"MIZARNET_TEST_PART={part}"),
        *("--env", f"MIZARNET_TEST_TURN={'1/1' if extent is FULL else turn(series)}"),
    ]
    pytest = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--junitxml=/mnt/out/junit.xml", "-v"]
    return [*machine, "--", *pytest, "-m", extent.markers, *TESTS]


def _failures(case: ElementTree.Element) -> Iterator[tuple[str, str]]:
    found = case.find("failure")
    if found is None:
        found = case.find("error")
    if found is not None:
        name = f"{case.get('classname', '').replace('.', '/')}::{case.get('name')}"
        first, *_ = (found.get("message") or "no message").splitlines() or [""]
        yield name, first


def explain(result: Result) -> Iterator[str]:
    """What a person needs to see of a run that failed."""
    lines = log(result.series).read_text(errors="replace").splitlines()
    yield f"--- {log(result.series).relative_to(ROOT)}, last lines"
    yield from lines[-TAIL_LINES:]
    yield f"--- failed on Linux {result.release}"
    yield from (f"{name}: {message}" for name, message in result.failures)
    if not result.failures:
        yield "the tests did not come to their end"


def main(arguments: Sequence[str]) -> int:
    """Run all kernels side by side; zero if everything passed on each."""
    parser = argparse.ArgumentParser(description="Run the tests inside the emulated kernels.")
    parser.add_argument("--full", action="store_true", help="every test, not a selection of those marked vm")
    parser.add_argument("--part", default="1/1", metavar="N/M", help="only the N-th of M parts")
    parser.add_argument("--kernel", action="append", choices=METAPACKAGES, metavar="SERIES")
    # In emulation a second processor makes serial tests no faster, and the other kernel needs one too.
    parser.add_argument("--cpus", type=int, default=1, metavar="N", help="processors of each machine")
    parser.add_argument("--possible-cpus", type=int, metavar="N", help="how many it may ever have")
    options = parser.parse_args(arguments)
    processors = Processors(options.cpus, options.possible_cpus or options.cpus)
    extent = FULL if options.full else SELECTION
    BUILD.mkdir(exist_ok=True)
    series: list[str] = options.kernel or list(METAPACKAGES)
    try:
        for name in series:
            print(f"Linux {kernel(name).release}: output in {log(name).relative_to(ROOT)}", flush=True)
    except SetupError as error:
        print(f"vm: {error}", file=sys.stderr)
        return 1
    prepare()
    each = partial(run, extent=extent, processors=processors, part=options.part)
    with ThreadPoolExecutor(len(series)) as pool:
        results = list(pool.map(each, series))
    for result in results:
        if result.status:
            print("\n".join(explain(result)))
    print("\n".join(result.summary for result in results))
    return int(any(result.status for result in results))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
