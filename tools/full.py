# SPDX-License-Identifier: Apache-2.0
"""Runs every tier of the tests at its full depth, and keeps the result as a page.

``python tools/full.py`` continues an interrupted run: a tier that passed at this commit is not run again. The output of
each tier is kept in ``build/full/<commit>/<tier>.log``, and its result beside it. After each tier
``docs/full-results.md`` is rewritten: the last result of each, with the commit that it belongs to. What was not run in
this clone stays as the page has it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
STAMPS = ROOT / "build/full"
PAGE = ROOT / "docs/full-results.md"
PYTEST = ("-m", "pytest", "-p", "no:cacheprovider", "-q")
VM = ("tests/vm/suite.py", "--full", "--kernel")
# No test may time out because the machine has other work, too.
PATIENT = {"MIZARNET_TEST_SECONDS": "900"}


@dataclass(frozen=True)
class Tier:
    """One of the tiers: a command of this interpreter, and what it shows."""

    name: str
    shows: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict[str, str])


TIERS = (
    Tier("unit", "values, errors, codecs, model, pages", (*PYTEST, "tests/unit")),
    Tier("bpf", "binding, layouts, single frames, fixtures", (*PYTEST, "tests/bpf"), PATIENT),
    Tier("wheel", "two equal builds, on a system with nothing of ours", ("tools/wheel.py", "--smoke")),
    *(
        Tier(
            f"netns-{part}",
            "real traffic; every death, rivals for minutes, every set of attachments: one half of it",
            (*PYTEST, "tests/netns"),
            {**PATIENT, "MIZARNET_TEST_FULL": "1", "MIZARNET_TEST_PART": f"{part}/2"},
        )
        for part in (1, 2)
    ),
    Tier(
        "crash",
        "killed, interrupted, held or refused at every call of every verb: nothing lost, nothing left",
        ("-m", "tests.crash"),
    ),
    Tier(
        "fuzz",
        "five million cases of each program against the model",
        ("-m", "tests.fuzz", "--cases", "5000000"),
    ),
    Tier("mutants", "every seeded bug is noticed", ("-m", "tests.mutants")),
    Tier("sanitized", "the binding under the compiler's sanitizers", ("tools/sanitized.py",)),
    *(
        Tier(
            f"vm-{series}-{part}",
            f"inside Linux {series}, {shows}",
            (*VM, series, *cpus, "--part", f"{part}/4"),
        )
        for series, shows, cpus in (
            ("6.1", "with four CPUs", ("--cpus", "4")),
            ("6.12", "with two CPUs of eight possible ones", ("--cpus", "2", "--possible-cpus", "8")),
        )
        for part in range(1, 5)
    ),
    *(
        Tier(
            f"vm-crash-{series}",
            f"killed or refused at calls of a gateway's verbs inside Linux {series}, a part that the day chooses",
            ("tests/vm/crash.py", "--kernel", series),
        )
        for series in ("6.1", "6.12")
    ),
)


@dataclass(frozen=True)
class Stamp:
    """How a tier ended: its exit status, its last line, how long it took, the day, and the commit."""

    status: int
    says: str
    minutes: float
    day: str
    commit: str


def main() -> int:
    """Run the tiers that have not passed yet; zero if none has failed."""
    arguments = _arguments()
    commit, changed = _commit()
    directory = STAMPS / commit
    if changed:
        shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True, exist_ok=True)
    for tier in TIERS:
        if arguments.tier and tier.name not in arguments.tier:
            continue
        before = _stamp(directory, tier)
        if before is not None and before.status == 0:
            print(f"{tier.name}: passed before: {before.says}", flush=True)
        else:
            print(f"{tier.name}: output in {_log(directory, tier).relative_to(ROOT)}", flush=True)
            after = _run(directory, tier)
            print(f"{tier.name}: {'passed' if after.status == 0 else 'FAILED'}: {after.says}", flush=True)
        PAGE.write_text(_page(PAGE.read_text()))
    ended = [_stamp(directory, tier) for tier in TIERS]
    return int(any(stamp is not None and stamp.status for stamp in ended))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Run every tier of the tests at its full depth.")
    names = [tier.name for tier in TIERS]
    parser.add_argument("--tier", action="append", choices=names, help="only this one (may be given again)")
    return parser.parse_args()


def _commit() -> tuple[str, bool]:
    """The name that stamps are kept under, and whether there are uncommitted changes: then no old stamp counts."""
    commit = _output("git", "rev-parse", "--short=12", "HEAD")
    changed = bool(_output("git", "status", "--porcelain", "--", ".", f":!{PAGE.relative_to(ROOT)}"))
    return (f"{commit}-changed" if changed else commit), changed


def _output(*command: str) -> str:
    return subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def _log(directory: Path, tier: Tier) -> Path:
    return directory / f"{tier.name}.log"


def _run(directory: Path, tier: Tier) -> Stamp:
    started = time.monotonic()
    with _log(directory, tier).open("wb") as log:
        done = subprocess.run(
            [sys.executable, *tier.command],
            cwd=ROOT,
            env=os.environ | tier.environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            check=False,
        )
    lines = _log(directory, tier).read_text(errors="replace").split("\n")
    stamp = Stamp(
        commit=directory.name,
        status=done.returncode,
        says=next((line.strip(" =") for line in reversed(lines) if line.strip()), "nothing"),
        minutes=round((time.monotonic() - started) / 60, 1),
        day=f"{datetime.now(UTC):%Y-%m-%d}",
    )
    (directory / f"{tier.name}.json").write_text(json.dumps(asdict(stamp)))
    return stamp


def _stamp(directory: Path, tier: Tier) -> Stamp | None:
    file = directory / f"{tier.name}.json"
    if not file.exists():
        return None
    facts: dict[str, Any] = {"commit": directory.name}  # which older stamps do not have
    facts.update(json.loads(file.read_text()))
    return Stamp(**facts)


def _last(tier: Tier) -> Stamp | None:
    """The newest result of a tier, at whatever commit."""
    files = sorted(STAMPS.glob(f"*/{tier.name}.json"), key=lambda file: file.stat().st_mtime)
    return _stamp(files[-1].parent, tier) if files else None


def _page(before: str) -> str:
    rows = {line.split("|")[1].strip(): line for line in before.splitlines() if line.startswith("| ")}
    lines = [
        "# The tests at full depth",
        "",
        f"The last result of each tier of `make test-full`, on Linux {os.uname().release} with {os.cpu_count()} CPUs.",
        "",
        "| tier | shows | result | says | minutes | day | commit |",
        "|---|---|---|---|---|---|---|",
    ]
    for tier in TIERS:
        stamp = _last(tier)
        if stamp is None:
            not_yet = f"| {tier.name} | {tier.shows} | not run yet | | | | |"
            lines.append(rows.get(tier.name, not_yet))
            continue
        word = "passed" if stamp.status == 0 else "**failed**"
        says = stamp.says.replace("|", "/")
        lines.append(
            f"| {tier.name} | {tier.shows} | {word} | {says} | {stamp.minutes} | {stamp.day} | {stamp.commit} |"
        )
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    sys.exit(main())
