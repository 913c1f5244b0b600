# SPDX-License-Identifier: Apache-2.0
"""Sockets of a network namespace that wait for packets, from /proc, which shows the reader's own namespace."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import NamedTuple

from mizarnet._kernel.netlink.session import Session
from mizarnet._kernel.refusals import explained
from mizarnet._model.arguments import IPAddress

_TABLES = {"tcp": ("tcp", "tcp6"), "udp": ("udp", "udp6")}
_LISTEN = "0A"
_CLOSE = "07"  # the state of a UDP socket that is not connected


class Waiting(NamedTuple):
    """Where a socket waits.

    Attributes:
        ip: Its own address; unspecified: all addresses of that IP version. Whether ``::`` is for IPv4, too, hangs on an
            option of the socket (IPV6_V6ONLY), which /proc does not show.
        port: Its port.
    """

    ip: IPAddress
    port: int


def waiting_sockets(session: Session, protocol: str) -> set[Waiting]:
    """Where sockets of a namespace take packets from anybody.

    Args:
        session: Session of the namespace.
        protocol: ``"tcp"`` or ``"udp"``.
    """
    return session.run(lambda: {each for name in _TABLES[protocol] for each in _waiting(name)})


def waiting_ports(session: Session, protocol: str) -> set[int]:
    """The ports of these, at whatever address; arguments as for :func:`waiting_sockets`."""
    return {each.port for each in waiting_sockets(session, protocol)}


def _waiting(name: str) -> Iterator[Waiting]:
    path = Path("/proc/thread-self/net") / name
    with explained(f"read {path}"):
        if not path.exists():  # a kernel without IPv6
            return
        for line in path.read_text(encoding="ascii").splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            if state == (_LISTEN if name.startswith("tcp") else _CLOSE):
                ip, _, port = local.partition(":")
                yield Waiting(_address(ip), int(port, 16))


def _address(text: str) -> IPAddress:
    """An address as the kernel prints it: in words of four bytes, each as a number of the machine's."""
    words = (int(text[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(text), 8))
    packed = b"".join(words)
    if len(packed) == 4:
        return IPv4Address(packed)
    found = IPv6Address(packed)
    return found.ipv4_mapped or found
