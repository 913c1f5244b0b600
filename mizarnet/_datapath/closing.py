# SPDX-License-Identifier: Apache-2.0
"""Keeping a host from being a router by the devices of its transit switches, whose forwarding was off before.

IPv4 asks the incoming device alone whether to forward. So what comes in by such a device for others is dropped, as it
would not have been forwarded before, but for what goes to gateways, which have rules of their own. The switch itself
bounces before any of this. On a host without nftables, or its command, such devices stay open.
"""

from __future__ import annotations

from collections.abc import Collection

from mizarnet._datapath.gateway_notes import PREFIX
from mizarnet._kernel import nftables
from mizarnet._kernel.netlink import Session
from mizarnet._model.log import log
from mizarnet.errors import KernelError, UnsupportedError

_TABLE = "inet mizarnet-switch"
_CLOSED = "closed "
_REMOVAL = f"add table {_TABLE}\ndelete table {_TABLE}\n"


def close(session: Session, devices: Collection[int]) -> None:
    """Close devices for what they would forward, and no others; without any, what :func:`close` wrote goes.

    Args:
        session: Session of the host.
        devices: Indexes of all devices that transit switches made routers.

    Raises:
        KernelError: The kernel refused it.
        PrivilegeError: CAP_NET_ADMIN is missing.
    """
    commands = _commands(devices)
    try:
        nftables.refuse_without(session, commands)
    except UnsupportedError as missing:
        if devices:
            log.warning("a transit switch's device forwards for everybody: %s", missing.message)
        return  # without nftables nothing was written, either
    nftables.apply(session, commands, "close the devices of transit switches")
    log.info("closed for what they would forward for others: %d devices of transit switches", len(devices))


def is_open(session: Session, device: int) -> bool:
    """Whether the rule that closes a device, by its index, is gone; False where there is no nftables to have it."""
    try:
        listed = nftables.read(session, "table", *_TABLE.split()) or []
        comments = {each["rule"].get("comment") for each in listed if "rule" in each}
        if f"{_CLOSED}{device}" in comments:
            return False
        nftables.refuse_without(session, _commands([device]))
    except (KernelError, UnsupportedError):
        return False
    return True


def _commands(devices: Collection[int]) -> str:
    if not devices:
        return _REMOVAL
    rules = "\n".join(
        f'iif {each} oifname != "{PREFIX}*" meta nfproto ipv4 drop comment "{_CLOSED}{each}"'
        for each in sorted(devices)
    )
    chain = f"chain forwarded {{\n type filter hook forward priority -10; policy accept;\n{rules}\n}}"
    return f"{_REMOVAL}table {_TABLE} {{\n{chain}\n}}\n"
