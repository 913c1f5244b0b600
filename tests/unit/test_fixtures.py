# SPDX-License-Identifier: Apache-2.0
"""Kept cases: the model comes to the one outcome that is right."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from mizarnet import Verdict
from tests.fuzz.coverage import NOT_IN_A_TEST_RUN, possible
from tests.model import judge
from tests.model.case import ProgramName
from tests.support.fixtures import files, from_line, load, load_all, to_line


@pytest.mark.parametrize("file", files(), ids=lambda file: file.stem)
def test_the_model_says_what_is_right(file: Path) -> None:
    wrong = [each.name for each in load(file) if judge(each.case, each.state) != each.outcome]
    assert not wrong


def test_there_are_enough_and_each_says_why() -> None:
    found = load_all()
    assert len(found) >= 400
    assert all(each.why.endswith(".") for each in found.values())
    assert {each.case.program for each in found.values()} == {"agent", "guard", "switch", "shortcut"}


def test_a_fixture_that_is_written_is_read_again() -> None:
    assert all(from_line(to_line(each)) == each for each in load_all().values())


def test_every_verdict_has_a_kept_case() -> None:
    """The fuzzer must meet what they have; so none may go with its fixtures."""
    kept = {verdict for program in get_args(ProgramName) for verdict in possible(program)}
    assert kept == {*Verdict} - NOT_IN_A_TEST_RUN
