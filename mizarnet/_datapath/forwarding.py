# SPDX-License-Identifier: Apache-2.0
"""Forwarding of the underlay device, which the transit switch needs: turned on, remembered and restored.

The kernel's FIB look-up answers an XDP program only where forwarding is on. The map ``switching`` holds the changes, as
bits of ``SwitchFlag``, so that any process can undo them.
"""

from __future__ import annotations

import errno

from mizarnet._kernel.netlink import Session, get_link, read_sysctl, write_sysctl
from mizarnet._model.enumerations import SwitchFlag
from mizarnet._model.log import log
from mizarnet.errors import KernelError

# With forwarding on, accept_ra=1 makes the kernel ignore router advertisements, and the default route would expire.
_CHANGES = {
    SwitchFlag.SET_ACCEPT_RA: ("ipv6/conf/{}/accept_ra", "1", "2"),
    SwitchFlag.SET_FORWARDING_IPV4: ("ipv4/conf/{}/forwarding", "0", "1"),
    SwitchFlag.SET_FORWARDING_IPV6: ("ipv6/conf/{}/forwarding", "0", "1"),
}


def is_on(session: Session, device: str, version: int) -> bool:
    """Whether ``device`` forwards packets of one IP version, 4 or 6."""
    return read_sysctl(session, f"ipv{version}/conf/{device}/forwarding") != "0"


def needed(session: Session, device: str, version: int) -> int:
    """Changes that make ``device`` forward packets of one IP version, as bits of ``SwitchFlag``; 0: none."""
    if is_on(session, device, version):
        return 0
    if version == 4:
        return SwitchFlag.SET_FORWARDING_IPV4
    key, before, _ = _CHANGES[SwitchFlag.SET_ACCEPT_RA]
    accepts = read_sysctl(session, key.format(device)) == before
    return SwitchFlag.SET_FORWARDING_IPV6 | (SwitchFlag.SET_ACCEPT_RA if accepts else 0)


def enable(session: Session, device: str, changes: int) -> None:
    """Make changes, given as bits of ``SwitchFlag``, on ``device``."""
    for flag, (key, _, after) in _CHANGES.items():
        if changes & flag:
            write_sysctl(session, key.format(device), after)
            log.info("%s set to %s", key.format(device), after)


def restore(session: Session, ifindex: int, changes: int) -> None:
    """Undo changes of :func:`enable`, given as bits of ``SwitchFlag``; a device that is gone is no error."""
    link = get_link(session, ifindex=ifindex) if changes else None
    if link is None:
        return
    # Forwarding is turned off first, so that it is never on without accept_ra=2.
    for flag, (key, before, _) in reversed(_CHANGES.items()):
        if changes & flag:
            _put_back(session, key.format(link.name), before)


def _put_back(session: Session, key: str, value: str) -> None:
    try:
        write_sysctl(session, key, value)
        log.info("%s set back to %s", key, value)
    except KernelError as refused:
        if refused.errno != errno.ENOENT:  # a device with an MTU below 1280 has no IPv6 settings
            raise
