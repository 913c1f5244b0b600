# SPDX-License-Identifier: Apache-2.0
"""Ports of a network namespace that sockets wait on, from /proc, which shows the reader's own namespace."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mizarnet._kernel.netlink.session import Session
from mizarnet._kernel.refusals import explained

_TABLES = {"tcp": ("tcp", "tcp6"), "udp": ("udp", "udp6")}
_LISTEN = "0A"
_CLOSE = "07"  # the state of a UDP socket that is not connected


def waiting_ports(session: Session, protocol: str) -> set[int]:
    """The ports that sockets of a namespace take packets on from anybody.

    Args:
        session: Session of the namespace.
        protocol: ``"tcp"`` or ``"udp"``.
    """
    return session.run(lambda: {port for name in _TABLES[protocol] for port in _ports(name)})


def _ports(name: str) -> Iterator[int]:
    path = Path("/proc/thread-self/net") / name
    with explained(f"read {path}"):
        if not path.exists():  # a kernel without IPv6
            return
        for line in path.read_text(encoding="ascii").splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            if state == (_LISTEN if name.startswith("tcp") else _CLOSE):
                yield int(local.rpartition(":")[2], 16)
