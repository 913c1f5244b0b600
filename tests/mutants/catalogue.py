# SPDX-License-Identifier: Apache-2.0
"""The seeded bugs, and trees of sources with one of them in it."""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path

import attrs

from tests.support.sources import change
from tests.support.twin_object import SOURCES

BUGS, CANNED = (Path(__file__).with_name(f"{name}.toml") for name in ("bugs", "canned"))
"""What fixtures and fuzz must notice, and what the self-test must: a mistake for each of its frames."""


@attrs.frozen
class Bug:
    """One mistake: an expression that stands once in a function, and what takes its place.

    Attributes:
        rule: Of docs/packet-rules.md.
        name: What is wrong then.
        where: The function, or an enumerator.
        before: As shipped, however it is laid out.
        after: With the mistake.
    """

    rule: str
    name: str
    where: str
    before: str
    after: str

    def seed(self, tree: Path) -> Path:
        """A copy of the sources with the mistake, under ``tree``."""
        sources = tree / "csrc"
        shutil.copytree(SOURCES, sources)
        change(sources, self.where, self.before, self.after)
        return sources


def bugs(file: Path = BUGS) -> list[Bug]:
    """All of a file."""
    return [Bug(**entry) for entry in tomllib.loads(file.read_text())["bug"]]
