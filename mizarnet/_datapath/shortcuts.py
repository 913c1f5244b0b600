# SPDX-License-Identifier: Apache-2.0
"""The shortcut on the way in: a program at the head of the underlay's tcx ingress. It outlives its tunnel.

``meta`` says whether there shall be one, and that is written before anything is done. So a process that dies leaves
what :func:`look` sees. From there to what is wanted :func:`settle` is the one step, also after the underlay changed.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from typing import ClassVar

import attrs

from mizarnet._datapath.host import Host
from mizarnet._datapath.loader import SHORTCUT, load_onto
from mizarnet._datapath.maps import Maps
from mizarnet._datapath.survey import recognise
from mizarnet._datapath.underlay_program import UnderlayProgram, tell_device
from mizarnet._kernel.bpf import Direction, Program, TcxHook, has_tcx, uses_tcx, with_program
from mizarnet._kernel.netlink import Link, dump_links, get_link, has_incoming_policies
from mizarnet._model.codec import FIRST
from mizarnet._model.log import log
from mizarnet._model.specs import Shortcut
from mizarnet.errors import MizarnetError, NotFoundError, StaleHandleError

# Attempts, each of which fails if another process changes the hook between reading it and the attachment.
_ATTEMPTS = 16


@attrs.frozen
class StandingShortcut(UnderlayProgram):
    """A shortcut's program on a device of a host."""

    KIND: ClassVar[str] = "shortcut"

    def remove(self) -> None:
        """Detach the program; one that is gone is no error."""
        with_program(self.standing.program_id, self._detach)

    def replace(self, program: Program, *, expected: Program) -> None:
        """Replace the program by another; raises ``StaleHandleError`` if ``expected`` is not there any more."""
        hook = TcxHook(self.link.ifindex, Direction.INGRESS)
        self.host.run(hook.replace, program, expected=expected)
        log.info("shortcut on %s: program %d in place of %d", self.link.name, program.id, expected.id)

    def _detach(self, program: Program) -> None:
        self.host.run(TcxHook(self.link.ifindex, Direction.INGRESS).detach, program)
        log.info("shortcut detached from %s", self.link.name)


@attrs.frozen
class Situation:
    """What shall stand, and what does.

    Attributes:
        wish: What ``meta`` says.
        underlay: Device of the underlay; None: it is gone.
        obstacle: Why there can be no shortcut, as a sentence without a full stop; empty: nothing stands against it.
        standing: Shortcuts of the data path, on any device that was looked at.
    """

    wish: Shortcut
    underlay: Link | None
    obstacle: str
    standing: tuple[StandingShortcut, ...]

    @property
    def stands(self) -> bool:
        """Whether there is one on the underlay, wanted or not: packets take it."""
        return any(self.underlay and each.link.ifindex == self.underlay.ifindex for each in self.standing)

    @property
    def place(self) -> Link | None:
        """Device that a shortcut shall stand on; None: there shall be none."""
        return None if self.wish is Shortcut.OFF or self.obstacle else self.underlay

    @property
    def right(self) -> StandingShortcut | None:
        """The one that shall stand."""
        place = self.place
        return next((each for each in self.standing if place and each.link.ifindex == place.ifindex), None)

    @property
    def wrong(self) -> list[StandingShortcut]:
        """Those that shall not."""
        return [each for each in self.standing if each is not self.right]

    @property
    def missing(self) -> Link | None:
        """Device that lacks the one that shall stand on it."""
        return None if self.right else self.place

    @property
    def settled(self) -> bool:
        """Whether all is as it shall be."""
        return not self.wrong and not self.missing and not (self.right and self.right.is_lost())


def find(host: Host, *, links: Iterable[Link] | None = None) -> list[StandingShortcut]:
    """The shortcuts on a host's devices, whether their tunnels exist or not.

    Args:
        host: Host whose devices are searched.
        links: Devices to search; None: all of the host's.

    Raises:
        PrivilegeError: ``CAP_SYS_ADMIN`` is missing.
    """
    if not uses_tcx():
        return []
    # On a tunnel it is the guard that stands there.
    devices = [each for each in (dump_links(host) if links is None else links) if not each.external]
    found: list[StandingShortcut] = []
    for link, program_ids in zip(devices, host.run(_on_ingress, devices), strict=True):
        for program_id in program_ids:
            standing = recognise(program_id)
            if standing is not None:
                found.append(StandingShortcut(host, link, standing))
    return found


def _on_ingress(devices: Iterable[Link]) -> list[tuple[int, ...]]:
    return [_programs(each.ifindex) for each in devices]


def _programs(ifindex: int) -> tuple[int, ...]:
    with suppress(NotFoundError):  # the device went meanwhile
        return TcxHook(ifindex, Direction.INGRESS).query().program_ids
    return ()


def own(host: Host, meta_id: int, *, links: Iterable[Link] | None = None) -> list[StandingShortcut]:
    """The shortcuts of the data path with that ``meta``; arguments and errors as for :func:`find`."""
    return [each for each in find(host, links=links) if each.standing.meta_id == meta_id]


def clear(host: Host, meta_id: int) -> None:
    """Detach the shortcuts of the data path with that ``meta``."""
    for each in own(host, meta_id):
        each.remove()


def look(host: Host, maps: Maps, *, near: bool = False) -> Situation:
    """What shall stand, and what does.

    Args:
        host: Host of the data path.
        maps: Maps of the data path.
        near: Whether to look on the underlay alone, and not on every device of the host.
    """
    meta = maps.read_meta()
    underlay = get_link(host, ifindex=meta.underlay_ifindex) or get_link(host, meta.underlay)
    obstacle = "" if meta.shortcut is Shortcut.OFF else _obstacle(host, underlay)
    links = ([underlay] if underlay else []) if near else None
    return Situation(meta.shortcut, underlay, obstacle, tuple(own(host, maps.meta.id, links=links)))


def _obstacle(host: Host, underlay: Link | None) -> str:
    tcx = has_tcx()
    if not tcx:
        return tcx.reason
    if underlay is None:
        return "the underlay is gone"
    if not underlay.is_ethernet:
        return f"{underlay.name} is no Ethernet device"
    if has_incoming_policies(host):
        return "the host has IPsec policies for what comes in, which the shortcut would go past"
    return ""


def settle(host: Host, maps: Maps) -> None:
    """Attach what is missing and detach what must not stand; the caller holds the host alone.

    Raises:
        VerifierError: The kernel's verifier rejected the program.
        StaleHandleError: Another process kept changing the hook.
    """
    seen = look(host, maps)
    if seen.missing is not None:
        _attach(host, maps, seen.missing)
    elif seen.right is not None:
        seen.right.settle_in()
    for each in seen.wrong:
        each.remove()


def change(host: Host, maps: Maps, wish: Shortcut) -> bool:
    """Write whether there shall be a shortcut, and settle it; whether that was said otherwise before.

    Raises as :func:`settle` does; nothing is changed then.
    """
    meta = maps.read_meta()
    maps.meta.update(FIRST, attrs.evolve(meta, shortcut=wish).pack())
    try:
        settle(host, maps)
    except BaseException:
        maps.meta.update(FIRST, attrs.evolve(maps.read_meta(), shortcut=meta.shortcut).pack())
        with suppress(MizarnetError):  # what is left of the call a check finds
            settle(host, maps)
        raise
    return meta.shortcut is not wish


def _attach(host: Host, maps: Maps, device: Link) -> None:
    with load_onto(maps, [SHORTCUT]) as loaded:
        tell_device(host, loaded, SHORTCUT, device.ifindex)
        for _ in range(_ATTEMPTS):
            with suppress(StaleHandleError):
                host.run(partial(_to_the_head, loaded.programs[SHORTCUT], device.ifindex))
                log.info("shortcut attached to %s", device.name)
                return
    raise StaleHandleError(f"another process kept changing the tcx hook of {device.name}")


def _to_the_head(program: Program, ifindex: int) -> None:
    hook = TcxHook(ifindex, Direction.INGRESS)
    hook.attach(program, revision=hook.query().revision)
