# SPDX-License-Identifier: Apache-2.0
"""What a fuzz run says: a line now and then, and a table at its end."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator

from tests.fuzz.compare import Disagreement, Result
from tests.fuzz.coverage import gaps, possible
from tests.fuzz.workers import Plan

PROGRESS_SECONDS = 5
SHOWN = 20
"""Lines of one kind."""


class Progress:
    """Writes how far a run is, every few seconds."""

    def __init__(self, plan: Plan) -> None:
        self._wanted = plan.cases * len(plan.programs)
        self._started = self._written = time.monotonic()

    def __call__(self, result: Result) -> None:
        """Perhaps write a line."""
        now = time.monotonic()
        if now - self._written >= PROGRESS_SECONDS:
            self._written = now
            print(self._line(result), file=sys.stderr, flush=True)

    def _line(self, result: Result) -> str:
        done = result.verdicts.total() + len(result.refusals)
        rate = done / self.seconds
        return f"{done:,} of {self._wanted:,} cases, {rate:,.0f}/s, {len(result.disagreements)} disagreements"

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._started


def errors(plan: Plan, result: Result) -> list[str]:
    """Why the run is not a success; empty if it is."""
    found = _shortened([f"{_where(one)}: the kernel did not take the frame" for one in result.refusals])
    found += _shortened([_difference(one) for one in result.disagreements])
    found += _shortened(result.accounts)
    return [*found, *gaps(result.verdicts, dict.fromkeys(plan.programs, plan.cases))]


def _difference(one: Disagreement) -> str:
    seen = "nothing" if one.seen is None else one.seen.name
    return f"{_where(one)}: {one.expected.name} expected, {seen} seen; differing: {', '.join(one.fields)}"


def _where(one: Disagreement) -> str:
    return f"{one.program} case {one.index}"


def _shortened(lines: list[str]) -> list[str]:
    rest = len(lines) - SHOWN
    return [*lines[:SHOWN], f"and {rest} more"] if rest > 0 else lines


def table(plan: Plan, result: Result, seconds: float) -> Iterator[str]:
    """Lines: a program each, then its verdicts."""
    rate = plan.cases * len(plan.programs) / seconds
    yield f"seed {plan.seed}, {plan.jobs} jobs, {seconds:.0f} s, {rate:,.0f} cases/s"
    yield f"{'program':8} {'cases':>12} {'refused':>8} {'disagreements':>14}"
    refused = Counter(one.program for one in result.refusals)
    different = Counter(one.program for one in result.disagreements)
    for program in plan.programs:
        yield f"{program:8} {plan.cases:12,} {refused[program]:8,} {different[program]:14,}"
    for program in plan.programs:
        yield f"\nverdicts of the {program}"
        counts = {verdict: result.verdicts[program, verdict] for verdict in sorted(possible(program))}
        for verdict, count in sorted(counts.items(), key=lambda item: -item[1]):
            yield f"  {verdict.name:24} {count:12,} {100 * count / plan.cases:7.3f} %"
