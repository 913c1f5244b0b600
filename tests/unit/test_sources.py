# SPDX-License-Identifier: Apache-2.0
"""Seeded bugs find their places by function and expression, and every one of them does."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.mutants.catalogue import BUGS, CANNED, Bug, bugs
from tests.support.builds import CHANGES
from tests.support.sources import change
from tests.support.twin_object import SOURCES

SOURCE = """
enum { MOST = 6, LEAST = MOST - 1 };
int second(int a);
static int first(int a)
{
	if (second(a)) {
		return a
			+ 1;
	}
	return 0;
}
int second(int a) { return a + 1; }
"""


@pytest.mark.parametrize(
    ("where", "before", "after", "then"),
    [
        ("first", "return a + 1;", "return a;", ("return a\n\t\t\t+ 1;", "return a;")),
        ("first", "return 0", "return 1", ("return 0;", "return 1;")),
        ("second", "a+1", "a", ("{ return a + 1; }", "{ return a; }")),
        ("MOST", "6", "7", ("MOST = 6", "MOST = 7")),
        ("LEAST", "MOST - 1", "0", ("LEAST = MOST - 1", "LEAST = 0")),
    ],
)
def test_an_expression_is_found_however_it_is_laid_out(
    tmp_path: Path, where: str, before: str, after: str, then: tuple[str, str]
) -> None:
    file = tmp_path / "any.h"
    file.write_text(SOURCE)
    change(tmp_path, where, before, after)
    assert file.read_text() == SOURCE.replace(*then)


@pytest.mark.parametrize(
    ("where", "before", "times"),
    [("first", "a", 3), ("second", "return 0", 0), ("third", "a", 0), ("MOST", "1", 0)],
)
def test_what_does_not_stand_there_once_is_refused(
    tmp_path: Path, where: str, before: str, times: int
) -> None:
    (tmp_path / "any.h").write_text(SOURCE)
    with pytest.raises(ValueError, match=f"stands in {where} {times} times"):
        change(tmp_path, where, before, "0")


@pytest.mark.parametrize("bug", [*bugs(BUGS), *bugs(CANNED)], ids=lambda bug: bug.name)
def test_every_seeded_bug_has_its_place(tmp_path: Path, bug: Bug) -> None:
    bug.seed(tmp_path)


def test_the_second_build_has_its_places(tmp_path: Path) -> None:
    shutil.copytree(SOURCES, tmp_path / "csrc")
    for where, before, after in CHANGES:
        change(tmp_path, where, before, after)
