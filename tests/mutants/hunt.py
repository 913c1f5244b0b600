# SPDX-License-Identifier: Apache-2.0
"""Looks for one seeded bug with the fixtures and with the fuzz test, as if it were not known."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import attrs

from mizarnet.errors import MizarnetError
from tests.fuzz.cases import PER_STATE
from tests.fuzz.compare import Account, compare_state
from tests.fuzz.states import config_of
from tests.model.case import ProgramName
from tests.model.state import Config
from tests.mutants.catalogue import Bug
from tests.support.fixtures import Fixture
from tests.support.twin import Twin
from tests.support.twin_object import build

PROGRAMS: tuple[ProgramName, ...] = ("agent", "guard", "switch", "shortcut")
SHORT, LONG = 25, 1000
"""States that the fuzz test runs through for a bug: that a fixture has noticed, and that none has."""


@attrs.frozen
class Trace:
    """What noticed a bug.

    Attributes:
        bug: Which.
        fixtures: Names of those that came out differently.
        cases: Fuzz cases of each program until one came out differently; None if none of `tried` did.
        tried: Fuzz cases of each program that were run at most.
    """

    bug: Bug
    fixtures: list[str]
    cases: int | None
    tried: int

    @property
    def caught(self) -> bool:
        """Whether anything noticed it."""
        return bool(self.fixtures) or self.cases is not None


class _Objects:
    """The mutated object with different constants."""

    def __init__(self, sources: Path, stack: ExitStack) -> None:
        self._sources = sources
        self._stack = stack
        self._loaded: dict[Config, Twin] = {}

    def get(self, config: Config) -> Twin:
        if config not in self._loaded:
            into = self._sources.parent / "objects"
            built = build(self._sources, into, route_identity=config.route_identity)
            self._loaded[config] = self._stack.enter_context(Twin.load(config, built))
        return self._loaded[config]


def hunt(bug: Bug, fixtures: dict[str, Fixture], seed: int) -> Trace:
    """Build the object with the bug in it, and look for it."""
    with ExitStack() as stack:
        tree = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mizarnet-bug-")))
        objects = _Objects(bug.seed(tree), stack)
        noticed = list(_noticing(objects, fixtures))
        states = SHORT if noticed else LONG
        return Trace(bug, noticed, _first_case(objects, seed, states), states * PER_STATE)


def _noticing(objects: _Objects, fixtures: dict[str, Fixture]) -> Iterator[str]:
    for name, fixture in fixtures.items():
        try:
            twin = objects.get(fixture.state.config)
            twin.fill(fixture.state)
            account = Account()
            account.add(fixture.case, fixture.outcome)
            same = twin.run(fixture.case) == fixture.outcome and not list(account.errors(twin))
        except (AssertionError, MizarnetError):  # something that no outcome can say
            same = False
        if not same:
            yield name


def _first_case(objects: _Objects, seed: int, states: int) -> int | None:
    counts = dict.fromkeys(PROGRAMS, PER_STATE)
    for number in range(states):
        try:
            found = compare_state(objects.get(config_of(seed, number)), seed, number, counts)
        except AssertionError:
            return (number + 1) * PER_STATE
        if found.disagreements or found.accounts:
            first = min((one.index for one in found.disagreements), default=number * PER_STATE)
            return first + 1
    return None
