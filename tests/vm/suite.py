# SPDX-License-Identifier: Apache-2.0
"""Runs the tests inside the emulated kernels, side by side, and says what became of them.

``python tests/vm/suite.py`` runs the selection marked ``vm``; ``--full`` runs all that need root. The interpreter
that runs this also runs the tests in the guests, which see the same files. The whole output of each kernel is
kept in ``build/vm-<kernel>.log``, the kernel's own messages in ``build/vm-<kernel>-kernel.log``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

from kernels import METAPACKAGES, SetupError, kernel

ROOT = Path(__file__).resolve().parent.parent.parent
BUILD = ROOT / "build"
TESTS = ("tests/bpf", "tests/netns")

SELECTION_SECONDS = 1500
FULL_SECONDS = 3 * 3600
TAIL_LINES = 60

# A process in emulation takes fifteen times as long: attacks have fewer frames there (tests/support/flood.py).
FRAMES, FRAMES_OF_SELECTION = 10_000, 3_000


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
    for command in (everything, ("-m", "tests.support.twin_object")):
        subprocess.run([sys.executable, *command], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)


def run(series: str, *, full: bool) -> Result:
    """Run the tests on the kernel of a series."""
    release = kernel(series).release
    out = BUILD / f"vm-{series}"
    report = out / "junit.xml"
    report.unlink(missing_ok=True)
    started = time.monotonic()
    with log(series).open("wb") as output:
        command = _command(series, out, full=full)
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


def _command(series: str, out: Path, *, full: bool) -> list[str]:
    limit, frames = (FULL_SECONDS, FRAMES) if full else (SELECTION_SECONDS, FRAMES_OF_SELECTION)
    machine = [
        *(sys.executable, "tests/vm/run.py", "--kernel", series),
        # In emulation a second processor makes serial tests no faster, and the other kernel needs one too.
        *("--cpus", "1", "--memory", "2G", "--timeout", str(limit)),
        *("--out", str(out), "--log", str(BUILD / f"vm-{series}-kernel.log")),
        *("--env", f"MIZARNET_TEST_FRAMES={frames}"),
    ]
    pytest = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--junitxml=/mnt/out/junit.xml", "-v"]
    selection = [] if full else ["-m", "vm"]
    return [*machine, "--", *pytest, *selection, *TESTS]


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


def report(results: Sequence[Result]) -> str:
    """The page that keeps the last full run."""
    lines = [
        "# Tests inside emulated kernels",
        "",
        f"Written by `make test-vm-full` on {datetime.now(UTC):%Y-%m-%d}. Every test that needs root, in a machine",
        "emulated by QEMU with Debian's kernel.",
        "",
        "| kernel | passed | failed | skipped | minutes |",
        "|---|---|---|---|---|",
    ]
    for each in results:
        counts = f"{each.passed} | {len(each.failures)} | {each.skipped} | {each.seconds / 60:.0f}"
        lines.append(f"| {each.release} | {counts} |")
    failed = [f"- `{name}` on {each.release}" for each in results for name, _ in each.failures]
    return "\n".join([*lines, *(["", "Failed:", "", *failed] if failed else []), ""])


def main(arguments: Sequence[str]) -> int:
    """Run all kernels side by side; zero if everything passed on each."""
    parser = argparse.ArgumentParser(description="Run the tests inside the emulated kernels.")
    parser.add_argument("--full", action="store_true", help="every test, not only those marked vm")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write the result as Markdown")
    parser.add_argument("--kernel", action="append", choices=METAPACKAGES, metavar="SERIES")
    options = parser.parse_args(arguments)
    BUILD.mkdir(exist_ok=True)
    series: list[str] = options.kernel or list(METAPACKAGES)
    try:
        for each in series:
            print(f"Linux {kernel(each).release}: output in {log(each).relative_to(ROOT)}", flush=True)
    except SetupError as error:
        print(f"vm: {error}", file=sys.stderr)
        return 1
    prepare()
    with ThreadPoolExecutor(len(series)) as pool:
        results = list(pool.map(partial(run, full=options.full), series))
    for result in results:
        if result.status:
            print("\n".join(explain(result)))
    print("\n".join(result.summary for result in results))
    if options.report:
        options.report.write_text(report(results))
    return int(any(result.status for result in results))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
