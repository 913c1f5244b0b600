# SPDX-License-Identifier: Apache-2.0
"""What the pages say of the checks: no drop reason is left out, and the tests that they name exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mizarnet import Verdict

ROOT = Path(__file__).parent.parent.parent
ISOLATION = "docs/isolation.md"
PAGES = (
    *("README.md", "docs/design.md", "docs/identity.md", ISOLATION),
    *("docs/measurements.md", "docs/packet-rules.md"),
)
NAMED = re.compile(r"\b(tests/\w[\w/]*(?:\.py)?)(?:::(\w+))?")
"""A directory or a file of tests, and perhaps one of its tests."""


def read(page: str) -> str:
    return (ROOT / page).read_text()


def missing(text: str) -> list[str]:
    return [f"{place}::{test}" for place, test in NAMED.findall(text) if not exists(ROOT / place, test)]


def exists(place: Path, test: str) -> bool:
    return place.exists() and (not test or f"def {test}(" in place.read_text())


def test_the_page_has_every_drop_reason() -> None:
    named = set(re.findall(r"^\| `([A-Z0-9_]+)` \|", read(ISOLATION), re.MULTILINE))
    assert named == {verdict.name for verdict in Verdict if verdict.dropped}


@pytest.mark.parametrize("page", PAGES)
def test_the_tests_that_a_page_names_exist(page: str) -> None:
    assert missing(read(page)) == []


def test_the_page_names_a_test_for_each_promise_and_check() -> None:
    assert len(NAMED.findall(read(ISOLATION))) > 60


def test_a_test_that_does_not_exist_is_noticed() -> None:
    here = f"tests/unit/{Path(__file__).name}"
    prefix, other = f"{here}::test_the_page", "tests/unit/test_page.py"
    known = f"{here}::test_a_test_that_does_not_exist_is_noticed"
    assert missing(f"`{known}`, `tests/netns`, `{prefix}` and `{other}`") == [prefix, f"{other}::"]
