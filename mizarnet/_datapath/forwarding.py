# SPDX-License-Identifier: Apache-2.0
"""Forwarding of a host's device, which transit switch and gateways need: turned on, remembered and restored.

The kernel's FIB look-up answers an XDP program only where forwarding is on. Who turned it on has the changes in a note,
as bits, so that any process can undo them: a switch in the map ``switching``, a gateway in its own. The last of those
that need a device puts back what was there before: who goes earlier hands its bits on.
"""

from __future__ import annotations

import errno

import attrs

from mizarnet._datapath import gateway_notes, whole_host
from mizarnet._kernel.netlink import Session, get_link, read_sysctl, write_sysctl
from mizarnet._model.enumerations import State, SwitchFlag
from mizarnet._model.log import log
from mizarnet.errors import KernelError, UnsupportedError

FORCED_IPV6 = 1 << 16
"""Beside the bits of ``SwitchFlag``: IPv6 of one device is forwarded, whatever the host does elsewhere."""
# With forwarding on, accept_ra=1 makes the kernel ignore router advertisements, and the default route would expire.
_CHANGES = {
    SwitchFlag.SET_ACCEPT_RA: ("ipv6/conf/{}/accept_ra", "1", "2"),
    SwitchFlag.SET_FORWARDING_IPV4: ("ipv4/conf/{}/forwarding", "0", "1"),
    SwitchFlag.SET_FORWARDING_IPV6: ("ipv6/conf/{}/forwarding", "0", "1"),
    FORCED_IPV6: ("ipv6/conf/{}/force_forwarding", "0", "1"),
}
VERSIONS = {SwitchFlag.SET_FORWARDING_IPV4: 4, FORCED_IPV6: 6}
"""The IP version of which a change makes a router of a device."""


_FORCED = _CHANGES[FORCED_IPV6][0]


def is_on(session: Session, device: str, version: int) -> bool:
    """Whether ``device`` forwards packets of one IP version, 4 or 6."""
    return read_sysctl(session, f"ipv{version}/conf/{device}/forwarding") != "0"


def is_router(session: Session, device: str, version: int) -> bool:
    """Whether the kernel forwards what comes in by ``device``.

    That of IPv6 is forwarded by the whole host, or by a device that is forced to. What is set for a single device
    makes a router of it in neighbour discovery alone: ``ip6_forward()`` does not look at it.
    """
    if version == 4:
        return is_on(session, device, version)
    return whole_host.is_forwarding(session) or _forced(session, device) == _CHANGES[FORCED_IPV6][2]


def needed(session: Session, device: str, version: int) -> int:
    """Changes that make ``device`` forward packets of one IP version, as bits of ``SwitchFlag``; 0: none.

    It does so without the whole host: what a gateway turned on for that goes with the gateway.
    """
    if version == 4:
        return 0 if is_on(session, device, version) else SwitchFlag.SET_FORWARDING_IPV4
    link, whole = get_link(session, device), whole_host.noted(session)
    by_gateway = whole is not None and link is not None and link.ifindex not in whole.routers
    if is_on(session, device, version) and not by_gateway:
        return 0
    key, before, _ = _CHANGES[SwitchFlag.SET_ACCEPT_RA]
    accepts = read_sysctl(session, key.format(device)) == before
    if whole is not None and link is not None and link.ifindex in whole.advertised:
        accepts = True  # which that gateway has changed already
    return SwitchFlag.SET_FORWARDING_IPV6 | (SwitchFlag.SET_ACCEPT_RA if accepts else 0)


def needed_by_router(session: Session, device: str, version: int, *, whole: bool = False) -> int:
    """Changes that make the kernel forward what comes in by ``device``, as bits; 0: none.

    Args:
        session: Session of the host.
        device: Name of the device.
        version: IP version.
        whole: Whether IPv6 may be forwarded for the whole host.

    Raises:
        UnsupportedError: IPv6 is forwarded for the whole host or not at all, and that is its owner's to decide.
    """
    if version == 4:
        return needed(session, device, version)
    if whole_host.is_forwarding(session):
        return 0
    forced = _forced(session, device)
    if forced is not None:
        return FORCED_IPV6 if forced == _CHANGES[FORCED_IPV6][1] else 0
    if whole:
        return 0
    raise UnsupportedError(
        "this host does not forward IPv6, and this kernel cannot forward that of one device alone",
        feature="force_forwarding",
        hint="leave the IPv6 address out, or let it be forwarded for the whole host: forward_all_ipv6=True",
    )


def takes_whole_host(session: Session, device: str) -> bool:
    """Whether IPv6 that comes in by ``device`` is forwarded only once that of the whole host is."""
    return not whole_host.is_forwarding(session) and _forced(session, device) is None


def _forced(session: Session, device: str) -> str | None:
    """Whether the IPv6 of a device is forwarded by that alone, as the kernel says it; None: it knows no such thing."""
    try:
        return read_sysctl(session, _FORCED.format(device))
    except KernelError as refused:
        if refused.errno != errno.ENOENT:
            raise
        return None


def enable(session: Session, device: str, changes: int) -> None:
    """Make changes, given as bits of ``SwitchFlag``, on ``device``."""
    for flag, (key, _, after) in _CHANGES.items():
        if changes & flag:
            write_sysctl(session, key.format(device), after)
            log.info("%s set to %s", key.format(device), after)
    link = get_link(session, device) if changes & SwitchFlag.SET_FORWARDING_IPV6 else None
    if link is not None:
        whole_host.keep(session, link.ifindex, advertised=bool(changes & SwitchFlag.SET_ACCEPT_RA))


def restore(session: Session, ifindex: int, changes: int) -> None:
    """Undo changes of :func:`enable`, given as bits, unless a gateway needs them, whose note then has them.

    A device that is gone is no error.
    """
    link = get_link(session, ifindex=ifindex) if changes else None
    if link is None or _hand_on(session, ifindex, changes):
        return
    accepts = bool(changes & SwitchFlag.SET_ACCEPT_RA)
    if changes & SwitchFlag.SET_FORWARDING_IPV6 and whole_host.take_back(
        session, ifindex, advertised=accepts
    ):
        changes &= ~(SwitchFlag.SET_FORWARDING_IPV6 | SwitchFlag.SET_ACCEPT_RA)
    # Forwarding is turned off first, so that it is never on without accept_ra=2.
    for flag, (key, before, _) in reversed(_CHANGES.items()):
        if changes & flag:
            _put_back(session, key.format(link.name), before)


def _hand_on(session: Session, ifindex: int, changes: int) -> bool:
    """Whether a gateway needs a device, and has the changes in its note from now on."""
    for each in gateway_notes.read_all(session):
        if each.note.egress == ifindex and each.note.state is not State.DELETING:
            note = attrs.evolve(each.note, forwarding=each.note.forwarding | changes)
            gateway_notes.write(session, each.link.ifindex, note)
            return True
    return False


def _put_back(session: Session, key: str, value: str) -> None:
    try:
        write_sysctl(session, key, value)
        log.info("%s set back to %s", key, value)
    except KernelError as refused:
        if refused.errno != errno.ENOENT:  # a device with an MTU below 1280 has no IPv6 settings
            raise
