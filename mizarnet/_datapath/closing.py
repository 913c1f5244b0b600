# SPDX-License-Identifier: Apache-2.0
"""Keeping a host from being a router by the device of its transit switch, whose forwarding was off before.

IPv4 asks the incoming device alone whether to forward. So what comes in by that device for others is dropped, as it
would not have been forwarded before, but for what goes to gateways, which have rules of their own. The switch itself
bounces before any of this. On a host without nftables, or its command, the device stays open.
"""

from __future__ import annotations

from mizarnet._datapath.gateway_notes import PREFIX
from mizarnet._kernel import nftables
from mizarnet._kernel.netlink import Link, Session
from mizarnet._model.enumerations import SwitchFlag
from mizarnet._model.log import log
from mizarnet.errors import UnsupportedError

_TABLE = "inet mizarnet-switch"
_REMOVAL = f"add table {_TABLE}\ndelete table {_TABLE}\n"


def close(session: Session, device: Link, changes: int) -> None:
    """Close a device for what it would forward, if ``changes``, as bits of ``SwitchFlag``, make a router of it.

    Raises:
        KernelError: The kernel refused it.
        PrivilegeError: CAP_NET_ADMIN is missing.
    """
    if not changes & SwitchFlag.SET_FORWARDING_IPV4:
        return
    rule = f'iif {device.ifindex} oifname != "{PREFIX}*" meta nfproto ipv4 drop'
    chain = f"chain forwarded {{\n type filter hook forward priority -10; policy accept;\n {rule}\n}}"
    commands = f"{_REMOVAL}table {_TABLE} {{\n{chain}\n}}\n"
    try:
        nftables.refuse_without(session, commands)
    except UnsupportedError as missing:
        log.warning(
            "%s forwards for everybody who sends to it by this host: %s", device.name, missing.message
        )
        return
    nftables.apply(session, commands, f"close {device.name}")
    log.info("%s closed: nothing is forwarded for others", device.name)


def reopen(session: Session, changes: int) -> None:
    """Take the rules of :func:`close` away, if ``changes`` say that it wrote some."""
    if not changes & SwitchFlag.SET_FORWARDING_IPV4:
        return
    try:
        nftables.refuse_without(session, _REMOVAL)
    except UnsupportedError:
        return  # which kept them from being written
    nftables.apply(session, _REMOVAL, "remove the rules of a transit switch")
    log.info("the rules of a transit switch removed")
