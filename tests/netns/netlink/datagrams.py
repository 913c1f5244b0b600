# SPDX-License-Identifier: Apache-2.0
"""What a session sends: the socket of its thread, with a count."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mizarnet._kernel.netlink import Session
from mizarnet._kernel.rtnetlink import Rtm

_HEADER = struct.Struct("=IHHII")


class Datagrams:
    """The types of the requests of each datagram that was sent, in order."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self.sent: list[list[Rtm]] = []

    @property
    def requests(self) -> list[Rtm]:
        """The types of all requests."""
        return [kind for datagram in self.sent for kind in datagram]

    def send(self, data: bytes) -> int:
        """Send, and note what."""
        self.sent.append(list(_kinds(data)))
        return int(self._socket.send(data))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)


def _kinds(data: bytes) -> Iterator[Rtm]:
    while data:
        length, kind, *_ = _HEADER.unpack_from(data)
        yield Rtm(kind)
        data = data[length:]


@contextmanager
def counted(session: Session) -> Iterator[Datagrams]:
    """What is sent by the session's thread in the block."""
    rtnl: Any = session._worker.rtnl
    datagrams = Datagrams(rtnl._socket)
    rtnl._socket = datagrams
    try:
        yield datagrams
    finally:
        rtnl._socket = datagrams._socket
