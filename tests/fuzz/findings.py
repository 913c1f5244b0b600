# SPDX-License-Identifier: Apache-2.0
"""What is made of the disagreements of a run: one of each kind, as small as possible, printed and kept."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.fuzz.cases import case_of
from tests.fuzz.compare import Disagreement, differing
from tests.fuzz.minimise import Minimiser
from tests.fuzz.workers import Plan, Twins
from tests.model.case import Case, Outcome
from tests.model.state import State
from tests.model.text import case_to_json, outcome_to_json, state_to_json
from tests.support.fixtures import Fixture, keep

MOST = 12
"""Kinds that are made small."""


def one_of_each(found: Iterable[Disagreement]) -> list[Disagreement]:
    """The first of each kind: the same verdicts, the same fields."""
    kinds: dict[object, Disagreement] = {}
    for one in found:
        kinds.setdefault((one.program, one.expected, one.seen, one.fields), one)
    return list(kinds.values())[:MOST]


def keep_findings(plan: Plan, found: list[Disagreement], file: Path) -> Iterator[str]:
    """Make them small, keep them in a file, and describe them."""
    with Twins() as twins:
        for one in one_of_each(found):
            minimiser = Minimiser(twins)
            state, case = minimiser.reduced(*case_of(one.program, plan.seed, one.index))
            expected, seen = minimiser.both(state, case)
            if expected == seen:
                yield f"\n--- {one.program} case {one.index} comes out the same now"
                continue
            keep(_fixture(plan, one, state, case, expected, seen), file)
            yield from describe(state, case, expected, seen)


def _fixture(
    plan: Plan, one: Disagreement, state: State, case: Case, expected: Outcome, seen: Outcome
) -> Fixture:
    why = f"The model says {expected.verdict.name}, the program said {seen.verdict.name}"
    why += f", with another {', '.join(differing(expected, seen))}."
    return Fixture(f"seed {plan.seed} {one.program} {one.index}", why, state, case, expected)


def describe(state: State, case: Case, expected: Outcome, seen: Outcome) -> Iterator[str]:
    """For people: tables, frame, and both outcomes where they differ."""
    yield f"\n--- {case.program}: {expected.verdict.name} expected, {seen.verdict.name} seen"
    for name, table in state_to_json(state).items():
        yield f"{name}: {json.dumps(table)}"
    rest = {name: value for name, value in case_to_json(case).items() if name not in ("program", "frame")}
    yield f"case: {json.dumps(rest)}"
    yield from _dump(case.frame)
    ours, theirs = outcome_to_json(expected), outcome_to_json(seen)
    for name in differing(expected, seen):
        if name == "frame" and expected.frame is not None and seen.frame is not None:
            yield from ("frame expected:", *_dump(expected.frame), "frame seen:", *_dump(seen.frame))
        else:
            yield f"{name} expected: {ours.get(name)}"
            yield f"{name} seen:     {theirs.get(name)}"


def _dump(frame: bytes) -> Iterator[str]:
    for at in range(0, len(frame), 16):
        yield f"  {at:04x}  {frame[at : at + 16].hex(' ')}"
