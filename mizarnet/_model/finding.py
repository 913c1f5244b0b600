# SPDX-License-Identifier: Apache-2.0
"""What is not as it should be: the answer to "is it whole?", of which none is the good case."""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

import attrs


class FindingKind(enum.Enum):
    """What kind of thing is wrong."""

    UNFINISHED = "unfinished"
    """It was begun, and is not whole."""
    ENDING = "ending"
    """Its end has begun."""
    MOVED = "moved"
    """A tunnel lives in another network namespace than the one that its agent was made for."""
    PROGRAM_MISSING = "program missing"
    """No program of ours stands on a place of the tunnel's hooks."""
    PROGRAM_OUTDATED = "program outdated"
    """A program is of another build than this package."""
    LIFELINE_MISSING = "lifeline missing"
    """The map by which a switch knows that its tunnel lives is empty."""
    TUNNEL_DOWN = "tunnel down"
    """The tunnel's device is down, or gone."""
    DEVICE_GONE = "device gone"
    """The device of an endpoint is not where its record says."""
    DEVICE_DOWN = "device down"
    """The device of an endpoint is down."""
    MTU_DIFFERS = "MTU differs"
    """The MTU of an endpoint's device is another one than it was made with."""
    ADDRESS_LOST = "address lost"
    """The device of an endpoint lacks one of its addresses."""
    ROUTE_LOST = "route lost"
    """The namespace of an endpoint lacks a route through its device."""
    ENTRY_DIFFERS = "entry differs"
    """A table has no such entry for an endpoint, or another one."""


class Subject(NamedTuple):
    """The thing that a finding is about, such as ``Subject("endpoint", "web")``."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


@attrs.frozen
class Finding:
    """One thing that is not as it should be.

    Attributes:
        kind: What kind of thing.
        object: What it is about.
        wanted: What there should be.
        found: What there is.
        message: The same as a sentence without its subject, with no full stop.
    """

    kind: FindingKind
    object: Subject
    wanted: Any
    found: Any
    message: str


def of_kind(findings: Iterable[Finding], kinds: Collection[FindingKind]) -> list[Finding]:
    """Those of some kinds."""
    return [finding for finding in findings if finding.kind in kinds]


def messages(findings: Iterable[Finding]) -> str:
    """All of them in one sentence."""
    return "; ".join(finding.message for finding in findings)
