# SPDX-License-Identifier: Apache-2.0
"""Cases that are kept, each with the one outcome that is right: the files under ``tests/fixtures``.

A line of a ``.jsonl`` file is a fixture: ``name``, ``why`` (one sentence), ``state`` (whole, or its name in
``states.json``), ``case`` and ``outcome``.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path

import attrs

from tests.model.case import Case, Outcome
from tests.model.state import State
from tests.model.text import (
    case_from_json,
    case_to_json,
    outcome_from_json,
    outcome_to_json,
    state_from_json,
    state_to_json,
)

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"
FOUND = FIXTURES / "found.jsonl"
"""Where a fuzz run keeps what it finds."""


@attrs.frozen
class Fixture:
    """A kept case."""

    name: str
    why: str
    state: State
    case: Case
    outcome: Outcome


def files() -> list[Path]:
    """Those that hold fixtures."""
    return sorted(FIXTURES.glob("*.jsonl"))


def load(file: Path) -> list[Fixture]:
    """All fixtures of a file."""
    return [from_line(line) for line in file.read_text().splitlines()]


def load_all() -> dict[str, Fixture]:
    """All fixtures, by ``file:name``."""
    found = [(f"{file.stem}:{fixture.name}", fixture) for file in files() for fixture in load(file)]
    if len(dict(found)) < len(found):
        raise ValueError("two fixtures of one file have the same name")
    return dict(found)


@functools.cache
def named_states() -> dict[str, State]:
    """The states that fixtures refer to by name."""
    data = json.loads((FIXTURES / "states.json").read_text())
    return {name: state_from_json(state) for name, state in data.items()}


def by_state(*programs: str) -> dict[str, dict[str, Fixture]]:
    """The fixtures of these programs by ``file:name``, below the name of their state."""
    found: dict[str, dict[str, Fixture]] = {}
    names = {id(state): name for name, state in named_states().items()}
    for name, fixture in load_all().items():
        if fixture.case.program in programs:
            found.setdefault(names[id(fixture.state)], {})[name] = fixture
    return found


def from_line(line: str) -> Fixture:
    """The reverse of `to_line`."""
    data = json.loads(line)
    state = (
        named_states()[data["state"]] if isinstance(data["state"], str) else state_from_json(data["state"])
    )
    case, outcome = case_from_json(data["case"]), outcome_from_json(data["outcome"])
    return Fixture(data["name"], data["why"], state, case, outcome)


def to_line(fixture: Fixture) -> str:
    """A line of a file, without its end."""
    names = [name for name, state in named_states().items() if state == fixture.state]
    state = names[0] if names else state_to_json(fixture.state)
    data = {"name": fixture.name, "why": fixture.why, "state": state}
    return json.dumps(
        data | {"case": case_to_json(fixture.case), "outcome": outcome_to_json(fixture.outcome)}
    )


def keep(fixture: Fixture, file: Path = FOUND) -> None:
    """Put a fixture at the end of a file."""
    with file.open("a") as lines:
        lines.write(to_line(fixture) + "\n")
