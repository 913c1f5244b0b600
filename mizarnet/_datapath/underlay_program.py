# SPDX-License-Identifier: Apache-2.0
"""Programs of a data path on devices of the underlay, which outlive its tunnel."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import suppress
from typing import ClassVar

import attrs

from mizarnet._datapath.host import Host
from mizarnet._datapath.loader import OWN_DEVICE, build_text, installed_build
from mizarnet._datapath.survey import Standing, survey
from mizarnet._kernel.bpf import Map, Object
from mizarnet._kernel.netlink import Link
from mizarnet._model import codec
from mizarnet._model.codec import FIRST
from mizarnet._model.finding import Finding, FindingKind, Subject
from mizarnet._model.layout import u32
from mizarnet.errors import ExistsError, NotFoundError


def tell_device(host: Host, loaded: Object, program: str, ifindex: int) -> None:
    """Tell a program of the underlay which device it is to stand on, before it is attached there.

    Args:
        host: Host of the device.
        loaded: Object with the program.
        program: Name of the program.
        ifindex: Index of the device.
    """
    _write(host, loaded.maps[OWN_DEVICE[program]], ifindex)


def _write(host: Host, own_device: Map, ifindex: int) -> None:
    # The kernel looks the index up in the namespace of the thread that writes it.
    host.run(own_device.update, FIRST, u32(ifindex))


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

    def is_lost(self) -> bool:
        """Whether the program passes everything, since its device was in another namespace meanwhile."""
        own = self._open_own_device()
        if own is None:
            return False
        with own:
            return own.lookup(FIRST) != u32(self.link.ifindex)

    def settle_in(self) -> None:
        """Tell the program again which device it stands on, which is on this host."""
        own = self._open_own_device()
        if own is not None:
            with own:
                _write(self.host, own, self.link.ifindex)

    def _open_own_device(self) -> Map | None:
        return Map.open_id(self.standing.own_device_id) if self.standing.own_device_id else None

    def lost(self, tunnel: str) -> list[Finding]:
        """A finding about its tunnel's program if that passes everything; else none."""
        if not self.is_lost():
            return []
        text = f"{self.link.name} was in another namespace meanwhile, and so its program passes every packet"
        return [self._finding(FindingKind.LIFELINE_MISSING, self.link.name, "", text, tunnel)]

    @abstractmethod
    def remove(self) -> None:
        """Detach the program, and undo what was changed for it; one that is gone is no error."""

    def outdated(self, tunnel: str) -> list[Finding]:
        """A finding about its tunnel's program if that is of another build than this package; else none."""
        build, wanted = build_text(self.standing.build), build_text(installed_build())
        if build == wanted:
            return []
        text, remedy = f"its program is of build {build}", "TransitAgent.upgrade() replaces it"
        return [self._finding(FindingKind.PROGRAM_OUTDATED, wanted, build, text, tunnel, remedy)]

    def astray(self, wanted: bytes, tunnel: str) -> list[Finding]:
        """A finding about its tunnel's program if that has other constants than are ``wanted``; else none."""
        if self.standing.constants == wanted:
            return []
        there, here = codec.whereabouts(wanted), codec.whereabouts(self.standing.constants)
        text = f"its program works for {here}, and the tunnel is at {there} by now"
        return [self._finding(FindingKind.CONSTANTS_DIFFER, there, here, text, tunnel)]

    def _finding(
        self, kind: FindingKind, wanted: str, found: str, text: str, tunnel: str, remedy: str = ""
    ) -> Finding:
        subject = Subject(self.KIND, self.link.name)
        return Finding(kind, subject, wanted, found, text, remedy, tunnel, self.standing.meta_id)

    def has_owner(self) -> bool:
        """Whether its tunnel is on this host, with programs of the same data path."""
        with suppress(NotFoundError, ExistsError):
            there = self.host.run(survey, self.standing.head.ifindex).any
            return there is not None and there.head.instance == self.standing.head.instance
        return False
