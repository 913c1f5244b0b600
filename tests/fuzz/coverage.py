# SPDX-License-Identifier: Apache-2.0
"""Which verdicts a fuzz run must have seen: each that a kept case of the program has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from mizarnet import Verdict
from tests.model.case import ProgramName
from tests.support.fixtures import load_all

ENOUGH = 100_000
"""Cases of a program after which each of its verdicts must have come up."""

NOT_IN_A_TEST_RUN = frozenset({Verdict.UNREADABLE, Verdict.COPIED})
"""Verdicts of a kernel that has no memory left, and of a socket of the kernel's."""


def possible(program: ProgramName) -> frozenset[Verdict]:
    """What the program can come to in a test run."""
    return frozenset(each.outcome.verdict for each in load_all().values() if each.case.program == program)


def gaps(verdicts: Counter[tuple[ProgramName, Verdict]], cases: dict[ProgramName, int]) -> Iterator[str]:
    """What should have come up, or should not."""
    for program, count in cases.items():
        seen = {verdict for of, verdict in verdicts if of == program}
        wanted = possible(program)
        if count >= ENOUGH:
            yield from (f"the {program} never came to {verdict.name}" for verdict in sorted(wanted - seen))
        surprising = sorted(seen - wanted)
        yield from (f"the {program} came to {verdict.name}, which no kept case has" for verdict in surprising)
