# SPDX-License-Identifier: Apache-2.0
"""All cases of a state through the programs and through the model, and where the two differ."""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, TypeAlias

import attrs

import mizarnet as mz
from mizarnet import Verdict
from mizarnet._model import layouts
from mizarnet._model.enumerations import Limit, Program
from mizarnet._model.stats import NOT_SUMMED
from mizarnet.errors import BpfError
from tests.fuzz.cases import PER_STATE, cases_of
from tests.fuzz.states import state_of
from tests.model import Model
from tests.model.case import Case, Outcome, ProgramName
from tests.support.twin import Twin, counted_length

WORDS = layouts.TRAFFIC.size // 8


@attrs.frozen
class Disagreement:
    """A case that came out differently.

    Attributes:
        program: Which.
        index: Of the case in the run.
        expected: The model's verdict.
        seen: The program's verdict; None if the kernel did not take the frame.
        fields: Of the outcome, in which the two differ.
    """

    program: ProgramName
    index: int
    expected: Verdict
    seen: Verdict | None
    fields: tuple[str, ...]


@attrs.define
class Result:
    """What a state's cases came to.

    Attributes:
        verdicts: How often the model came to each verdict of each program.
        disagreements: Cases, in their order.
        refusals: Cases that the kernel did not take.
        accounts: Counters of the kernel that are not what the cases add up to.
    """

    verdicts: Counter[tuple[ProgramName, Verdict]] = attrs.Factory(Counter)
    disagreements: list[Disagreement] = attrs.Factory(list)
    refusals: list[Disagreement] = attrs.Factory(list)
    accounts: list[str] = attrs.Factory(list)

    def add(self, other: Result) -> None:
        """Take in another state's."""
        self.verdicts.update(other.verdicts)
        self.disagreements += other.disagreements
        self.refusals += other.refusals
        self.accounts += other.accounts


def differing(expected: Outcome, seen: Outcome) -> tuple[str, ...]:
    """Names of the fields in which two outcomes differ."""
    names = (field.name for field in attrs.fields(Outcome))
    return tuple(name for name in names if getattr(expected, name) != getattr(seen, name))


def compare_state(twin: Twin, seed: int, number: int, counts: dict[ProgramName, int]) -> Result:
    """Run so many cases of each program before a state."""
    state = state_of(seed, number)
    model = Model(state)
    twin.fill(state)
    result, account = Result(), Account()
    for program, count in counts.items():
        cases = islice(cases_of(program, seed, number, state), count)
        for index, case in enumerate(cases, number * PER_STATE):
            _compare(twin, model, case, index, result, account)
    result.verdicts.update(account.verdicts())
    if not (result.disagreements or result.refusals):  # they would make a difference
        result.accounts += (f"state {number}: {error}" for error in account.errors(twin))
    return result


def _compare(twin: Twin, model: Model, case: Case, index: int, result: Result, account: Account) -> None:
    try:
        expected = model.judge(case)
        seen = twin.run(case)
    except BpfError:
        result.refusals.append(Disagreement(case.program, index, expected.verdict, None, ()))
        return
    except BaseException as error:
        error.add_note(f"at case {index} of the {case.program}")
        raise
    account.add(case, expected)
    if seen != expected:
        fields = differing(expected, seen)
        result.disagreements.append(Disagreement(case.program, index, expected.verdict, seen.verdict, fields))


class Account:
    """What the kernel's counters should say."""

    def __init__(self) -> None:
        self._verdicts: Counts = defaultdict(_nothing)
        self._traffic: Counts = defaultdict(_nothing)
        self._reasons: Counts = defaultdict(_nothing)

    def add(self, case: Case, outcome: Outcome) -> None:
        """Count a frame."""
        counted = self._verdicts[case.program, outcome.verdict]
        counted[0] += 1
        counted[1] += counted_length(case, outcome.verdict)
        sent, received, undelivered = outcome.sent, outcome.received, outcome.undelivered
        if sent:
            _count(self._traffic[sent.number, "dropped" if sent.dropped else "sent"], sent.bytes)
        if sent and sent.dropped:
            _count(self._reasons[sent.number, outcome.verdict], sent.bytes)
        if received:
            _count(self._traffic[received.number, "received"], received.bytes)
        if undelivered:
            _count(self._traffic[undelivered.number, "undelivered"], undelivered.bytes)
            _count(self._reasons[undelivered.number, outcome.verdict], undelivered.bytes)

    def verdicts(self) -> dict[tuple[ProgramName, Verdict], int]:
        """How often each was counted."""
        return {(program, verdict): packets for (program, verdict), (packets, _) in self._verdicts.items()}

    def errors(self, twin: Twin) -> Iterator[str]:
        """Counters that say something else."""
        verdicts, traffic = twin.counters()
        yield from _differences(self._verdicts, dict(_read_verdicts(verdicts)))
        yield from _differences(self._traffic, dict(_read_traffic(traffic)))
        yield from _differences(self._reasons, dict(_read_reasons(twin.reasons())))


Counts: TypeAlias = "defaultdict[tuple[Any, ...], list[int]]"
"""Packets and bytes."""


def _nothing() -> list[int]:
    return [0, 0]


def _count(counter: list[int], length: int) -> None:
    counter[0] += 1
    counter[1] += length


def _differences(expected: Counts, seen: Mapping[Any, list[int]]) -> Iterator[str]:
    for key in sorted(expected.keys() | seen.keys(), key=str):
        wanted, got = expected.get(key, [0, 0]), seen.get(key, [0, 0])
        if wanted != got:
            yield f"{' '.join(map(str, key))}: {got[0]} packets of {got[1]} bytes, and not {wanted[0]} of {wanted[1]}"


def _read_verdicts(words: array[int]) -> Iterator[tuple[tuple[object, ...], list[int]]]:
    names: tuple[ProgramName, ...] = ("agent", "guard", "switch", "shortcut")
    for at, counter in _counters(words):
        program, verdict = divmod(at, Limit.VERDICTS)
        yield (names[Program(program)], Verdict(verdict)), counter


def _read_traffic(words: array[int]) -> Iterator[tuple[tuple[object, ...], list[int]]]:
    for number in range(len(words) // WORDS):
        for kind, counter in _counters(words[number * WORDS + NOT_SUMMED : (number + 1) * WORDS]):
            yield (number, ("sent", "received", "dropped", "undelivered")[kind]), counter


def _read_reasons(
    reasons: Mapping[int, Mapping[Verdict, mz.Counter]],
) -> Iterator[tuple[tuple[object, ...], list[int]]]:
    for number, counted in reasons.items():
        yield from (((number, reason), [*attrs.astuple(counter)]) for reason, counter in counted.items())


def _counters(words: array[int]) -> Iterator[tuple[int, list[int]]]:
    """Those that counted something."""
    pairs = enumerate(zip(words[::2], words[1::2], strict=True))
    return ((at, list(pair)) for at, pair in pairs if any(pair))
