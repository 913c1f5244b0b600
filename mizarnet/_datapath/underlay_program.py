# SPDX-License-Identifier: Apache-2.0
"""Programs of a data path on devices of the underlay, which outlive its tunnel."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import suppress
from typing import ClassVar

import attrs

from mizarnet._datapath.host import Host
from mizarnet._datapath.loader import build_text, installed_build
from mizarnet._datapath.survey import Standing, survey
from mizarnet._kernel.netlink import Link
from mizarnet._model import codec
from mizarnet._model.finding import Finding, FindingKind, Subject
from mizarnet.errors import ExistsError, NotFoundError


@attrs.frozen
class UnderlayProgram(ABC):
    """A program of ours on a device of a host.

    Attributes:
        host: Host of the device.
        link: Device that the program is on.
        standing: The program.
    """

    KIND: ClassVar[str]
    """Kind of its findings' subject."""

    host: Host
    link: Link
    standing: Standing

    @abstractmethod
    def remove(self) -> None:
        """Detach the program, and undo what was changed for it; one that is gone is no error."""

    def outdated(self) -> list[Finding]:
        """A finding if the program is of another build than this package; else none."""
        build, wanted = build_text(self.standing.build), build_text(installed_build())
        if build == wanted:
            return []
        subject, text = Subject(self.KIND, self.link.name), f"its program is of build {build}"
        remedy = "TransitAgent.upgrade() replaces it"
        return [Finding(FindingKind.PROGRAM_OUTDATED, subject, wanted, build, text, remedy)]

    def astray(self, wanted: bytes) -> list[Finding]:
        """A finding if the program has other constants than are ``wanted``; else none."""
        if self.standing.constants == wanted:
            return []
        subject = Subject(self.KIND, self.link.name)
        there, here = codec.whereabouts(wanted), codec.whereabouts(self.standing.constants)
        text = f"its program works for {here}, and the tunnel is at {there} by now"
        return [Finding(FindingKind.CONSTANTS_DIFFER, subject, there, here, text)]

    def has_owner(self) -> bool:
        """Whether its tunnel is on this host, with programs of the same data path."""
        with suppress(NotFoundError, ExistsError):
            there = self.host.run(survey, self.standing.head.ifindex).any
            return there is not None and there.meta_id == self.standing.meta_id
        return False
