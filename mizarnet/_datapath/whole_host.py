# SPDX-License-Identifier: Apache-2.0
"""IPv6 forwarding of a whole host, for gateways on kernels that cannot forward that of one device alone.

It is turned on only if a caller says so. The kernel then changes every device, and those to come, and a router takes no
more advertisements of others: so devices that live on these are told first to go on. What was changed is in the note of
one gateway, and the last one that needs it puts it back.
"""

from __future__ import annotations

import errno
from collections.abc import Callable

import attrs

from mizarnet._datapath import gateway_notes
from mizarnet._datapath.gateway_notes import LINKS, Noted, Whole
from mizarnet._kernel.netlink import (
    Session,
    advertised_links,
    dump_links,
    list_addresses,
    read_sysctl,
    write_sysctl,
)
from mizarnet._model.enumerations import State
from mizarnet._model.log import log
from mizarnet.errors import KernelError

_ALL = "ipv6/conf/all/forwarding"
_TO_COME = 0
"""Stands for the devices to come, whose settings the kernel calls ``default``."""
_ACCEPTS, _ACCEPTS_AS_ROUTER = "1", "2"


def is_forwarding(session: Session) -> bool:
    """Whether a host forwards IPv6, by whatever device it comes in."""
    return read_sysctl(session, _ALL) != "0"


def survey(session: Session) -> Whole:
    """What turning it on changes, on a host where it is off."""
    names = _names(session)
    living = advertised_links(session)
    return Whole(
        advertised=frozenset(
            each
            for each, name in names.items()
            if each in living and _read(session, name, "accept_ra") == _ACCEPTS
        ),
        routers=frozenset(
            each for each, name in names.items() if _read(session, name, "forwarding") not in ("0", None)
        ),
    )


def turn_on(session: Session, whole: Whole) -> None:
    """Turn it on, where it is off, once devices that live on advertisements go on accepting them."""
    if is_forwarding(session):
        return
    names = _names(session)
    for each in sorted(whole.advertised & names.keys()):
        _write(session, names[each], "accept_ra", _ACCEPTS_AS_ROUTER)
    write_sysctl(session, _ALL, "1")
    log.info("IPv6 forwarding turned on for the whole host")


def turn_off(session: Session, whole: Whole) -> None:
    """Put back what was changed; devices that are gone are no error."""
    write_sysctl(session, _ALL, "0")
    names = _names(session)
    for each in sorted(whole.routers & names.keys()):
        _write(session, names[each], "forwarding", "1")
    for each in sorted(whole.advertised & names.keys()):
        if _read(session, names[each], "accept_ra") == _ACCEPTS_AS_ROUTER:
            _write(session, names[each], "accept_ra", _ACCEPTS)
    log.info("IPv6 forwarding turned off for the whole host again")


def give_up(session: Session, whole: Whole) -> None:
    """Put back what was changed, unless another gateway needs it, whose note then has as much as there is room for."""
    needing = [
        each
        for each in gateway_notes.read_all(session)
        if each.note.state is not State.DELETING and _leads_ipv6(session, each)
    ]
    for kept in (whole, Whole()):
        for each in needing:
            note = attrs.evolve(each.note, whole=_joined(each.note.whole, kept))
            if note.fits:
                gateway_notes.write(session, each.link.ifindex, note)
                if kept != whole:
                    log.warning("no gateway's note has room for what devices forwarded and accepted before")
                return
    turn_off(session, whole)


def noted(session: Session) -> Whole | None:
    """What was changed, by the note of a gateway; None: nothing."""
    return next((each.note.whole for each in gateway_notes.read_all(session) if each.note.whole), None)


def keep(session: Session, ifindex: int, *, advertised: bool) -> None:
    """Let a device stay a router when the whole host is none any more: another one has noted what to put back.

    Args:
        session: Session of the host.
        ifindex: Index of the device.
        advertised: Whether that one has noted, too, that advertisements are accepted.
    """
    gone = {ifindex} if advertised else set[int]()
    _rewrite(session, lambda whole: Whole(whole.advertised - gone, whole.routers | {ifindex}))


def take_back(session: Session, ifindex: int, *, advertised: bool) -> bool:
    """Whether the whole host is a router for a gateway, which puts a device back with all others from now on.

    Arguments as for :func:`keep`, of which this is the way back.
    """
    more = {ifindex} if advertised else set[int]()
    return _rewrite(session, lambda whole: Whole(whole.advertised | more, whole.routers - {ifindex}))


def _rewrite(session: Session, change: Callable[[Whole], Whole]) -> bool:
    """Whether there is a note of what was changed, which says something else from now on."""
    found = [each for each in gateway_notes.read_all(session) if each.note.whole is not None]
    for each in found:
        if each.note.whole is not None and change(each.note.whole) != each.note.whole:
            note = attrs.evolve(each.note, whole=change(each.note.whole))
            gateway_notes.write(session, each.link.ifindex, note)
    return bool(found)


def _joined(one: Whole | None, other: Whole) -> Whole:
    return other if one is None else Whole(one.advertised | other.advertised, one.routers | other.routers)


def _leads_ipv6(session: Session, noted: Noted) -> bool:
    return any(each.interface.ip in LINKS[6] for each in list_addresses(session, ifindex=noted.link.ifindex))


def _names(session: Session) -> dict[int, str]:
    return {_TO_COME: "default", **{link.ifindex: link.name for link in dump_links(session)}}


def _read(session: Session, name: str, setting: str) -> str | None:
    """A setting of a device; None if that is gone, or has no IPv6."""
    try:
        return read_sysctl(session, f"ipv6/conf/{name}/{setting}")
    except KernelError as refused:
        if refused.errno != errno.ENOENT:
            raise
        return None


def _write(session: Session, name: str, setting: str, value: str) -> None:
    try:
        write_sysctl(session, f"ipv6/conf/{name}/{setting}", value)
    except KernelError as refused:
        if refused.errno != errno.ENOENT:
            raise
