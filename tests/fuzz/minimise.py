# SPDX-License-Identifier: Apache-2.0
"""Makes a case on which program and model disagree as small as it can be while they still do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import attrs

from mizarnet.errors import BpfError
from tests.fuzz.frames import SHORTEST
from tests.fuzz.workers import Twins
from tests.model import judge
from tests.model.case import Case, Outcome, TunnelKey
from tests.model.state import Config, State

PLAIN = {field.name: field.default for field in attrs.fields(Config) if field.default is not attrs.NOTHING}
"""Constants that say nothing; tried last, since each try loads the programs again."""
_CHUNKS = (64, 16, 4, 1)


class Minimiser:
    """Tries smaller cases."""

    def __init__(self, twins: Twins, differs: Callable[[State, Case], bool] | None = None) -> None:
        self._twins = twins
        self._differs = differs or self._disagree
        self._filled: State | None = None

    def both(self, state: State, case: Case) -> tuple[Outcome, Outcome]:
        """What the model expects, and what the program does."""
        twin = self._twins.load(state.config)
        if state is not self._filled:
            twin.fill(state)
            self._filled = state
        return judge(case, state), twin.run(case)

    def _disagree(self, state: State, case: Case) -> bool:
        try:
            expected, seen = self.both(state, case)
        except BpfError:
            return False
        return expected != seen

    def reduced(self, state: State, case: Case) -> tuple[State, Case]:
        """The smallest that was found."""
        before = None
        while before != (state, case):
            before = state, case
            state = self._smaller_state(state, case)
            case = self._smaller_case(state, case)
            case = self._shorter(state, case)
            case = self._blanker(state, case)
        return self._plainer(state, case), case

    # -- the case

    def _smaller_case(self, state: State, case: Case) -> Case:
        for field in attrs.fields(Case):
            if field.default is attrs.NOTHING or (field.name == "hop" and case.program == "switch"):
                continue  # a transit switch may always ask
            if getattr(case, field.name) != field.default:
                case = self._try_case(state, case, attrs.evolve(case, **{field.name: field.default}))
        if case.key is not None:
            flags = ({"control": False}, {"critical": False}, {"dont_fragment": False})
            for change in ({"options": b""}, *flags, {"ttl": 64}):
                key: TunnelKey = attrs.evolve(case.key, **change)
                case = self._try_case(state, case, attrs.evolve(case, key=key))
        return case

    def _shorter(self, state: State, case: Case) -> Case:
        step = len(case.frame) // 2
        while step:
            shorter = attrs.evolve(case, frame=case.frame[:-step])
            if len(shorter.frame) >= SHORTEST and self._differs(state, shorter):
                case = shorter
            else:
                step //= 2
        return case

    def _blanker(self, state: State, case: Case) -> Case:
        """Zeroes instead of bytes that do not matter."""
        for size in _CHUNKS:
            for at in range(0, len(case.frame), size):
                chunk = case.frame[at : at + size]
                if any(chunk):
                    frame = case.frame[:at] + bytes(len(chunk)) + case.frame[at + size :]
                    case = self._try_case(state, case, attrs.evolve(case, frame=frame))
        return case

    def _try_case(self, state: State, case: Case, smaller: Case) -> Case:
        return smaller if smaller != case and self._differs(state, smaller) else case

    # -- the state

    def _smaller_state(self, state: State, case: Case) -> State:
        for name in ("endpoints", "networks", "senders", "peers"):
            for key in list(getattr(state, name)):
                state = self._try_state(state, case, {name: _without(getattr(state, name), key)})
        for name, kind in (("networks", "switches"), ("senders", "gateways"), ("senders", "addresses")):
            for changed in list(_emptied(getattr(state, name), kind)):
                state = self._try_state(state, case, {name: {**getattr(state, name), **changed}})
        state = self._try_state(state, case, {"tunnel": True})
        state = self._try_state(state, case, {"moved": False})
        return self._try_state(state, case, {"generic": False})

    def _try_state(self, state: State, case: Case, change: dict[str, Any]) -> State:
        smaller = attrs.evolve(state, **change)
        return smaller if smaller != state and self._differs(smaller, case) else state

    def _plainer(self, state: State, case: Case) -> State:
        for name, value in PLAIN.items():
            config: Config = attrs.evolve(state.config, **{name: value})
            state = self._try_state(state, case, {"config": config})
        return state


def _without(table: Any, key: Any) -> Any:
    if isinstance(table, frozenset):
        return table - {key}
    return {known: entry for known, entry in table.items() if known != key}


def _emptied(table: Mapping[Any, Any], field: str) -> Iterator[dict[Any, Any]]:
    """Each entry of a table with less in one of its fields."""
    for key, entry in table.items():
        for left in ((), *((one,) for one in getattr(entry, field))):
            yield {key: attrs.evolve(entry, **{field: left})}
