# SPDX-License-Identifier: Apache-2.0
"""Kept cases: the programs come to the one outcome that is right. For the model see tests/unit/test_fixtures.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz.compare import Account
from tests.fuzz.workers import Twins
from tests.support.fixtures import Fixture, files, load, load_all
from tests.support.needs import need_shortcut


@pytest.fixture(scope="module")
def twins() -> Iterator[Twins]:
    """Programs loaded with the constants of every fixture."""
    with Twins() as loaded:
        for fixture in load_all().values():
            loaded.load(fixture.state.config)
        yield loaded


def is_right(fixture: Fixture, twins: Twins) -> bool:
    twin = twins.load(fixture.state.config)
    twin.fill(fixture.state)
    account = Account()
    account.add(fixture.case, fixture.outcome)
    return twin.run(fixture.case) == fixture.outcome and not list(account.errors(twin))


# A test for each file, not for each of its many lines: what surrounds a test takes longer than a frame.
@pytest.mark.vm
@pytest.mark.parametrize("file", files(), ids=lambda file: file.stem)
def test_the_programs_do_what_is_right(file: Path, twins: Twins) -> None:
    if file.stem == "shortcut":
        need_shortcut()
    wrong = [fixture.name for fixture in load(file) if not is_right(fixture, twins)]
    assert not wrong
