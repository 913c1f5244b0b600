# SPDX-License-Identifier: Apache-2.0
"""Forwarding of the underlay device, which XDP needs to be told next hops: set, remembered and put back.

The kernel's FIB look-up answers a program only where forwarding is on. What was changed stands in the map
``switching``, as bits of ``SwitchFlag``, so that any process can put it back.
"""

from __future__ import annotations

import errno

from mizarnet._kernel.netlink import Session, get_link, read_sysctl, write_sysctl
from mizarnet._model.enumerations import SwitchFlag
from mizarnet.errors import KernelError

# With forwarding on, accept_ra=1 would mean no router advertisements, and the underlay's default route would go.
_CHANGES = {
    SwitchFlag.SET_ACCEPT_RA: ("ipv6/conf/{}/accept_ra", "1", "2"),
    SwitchFlag.SET_FORWARDING_IPV4: ("ipv4/conf/{}/forwarding", "0", "1"),
    SwitchFlag.SET_FORWARDING_IPV6: ("ipv6/conf/{}/forwarding", "0", "1"),
}


def is_on(session: Session, device: str, version: int) -> bool:
    """Whether ``device`` forwards packets of one address family."""
    return read_sysctl(session, f"ipv{version}/conf/{device}/forwarding") != "0"


def needed(session: Session, device: str, version: int) -> int:
    """The changes that make ``device`` forward."""
    if is_on(session, device, version):
        return 0
    if version == 4:
        return SwitchFlag.SET_FORWARDING_IPV4
    key, before, _ = _CHANGES[SwitchFlag.SET_ACCEPT_RA]
    accepts = read_sysctl(session, key.format(device)) == before
    return SwitchFlag.SET_FORWARDING_IPV6 | (SwitchFlag.SET_ACCEPT_RA if accepts else 0)


def enable(session: Session, device: str, changes: int) -> None:
    """Make the changes."""
    for flag, (key, _, after) in _CHANGES.items():
        if changes & flag:
            write_sysctl(session, key.format(device), after)


def restore(session: Session, ifindex: int, changes: int) -> None:
    """Put back what :func:`enable` changed; a device that is gone has nothing to put back."""
    link = get_link(session, ifindex=ifindex) if changes else None
    if link is None:
        return
    # Forwarding goes off first: at no moment is it on without accept_ra=2.
    for flag, (key, before, _) in reversed(_CHANGES.items()):
        if changes & flag:
            _put_back(session, key.format(link.name), before)


def _put_back(session: Session, key: str, value: str) -> None:
    try:
        write_sysctl(session, key, value)
    except KernelError as refused:
        if refused.errno != errno.ENOENT:  # with an MTU below 1,280 a device loses its settings of IPv6
            raise
