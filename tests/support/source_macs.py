# SPDX-License-Identifier: Apache-2.0
"""Counts frames by their source MAC in the kernel, since no process keeps up with a flood."""

from __future__ import annotations

import ctypes
import socket
import struct

from tests.support.onlookers import PACKET_IGNORE_OUTGOING, PACKET_STATISTICS, SOL_PACKET
from tests.support.traffic import ETH_P_ALL
from tests.world import Container

SO_ATTACH_FILTER = 26  # <asm-generic/socket.h>
_LOAD_WORD, _LOAD_HALF, _SKIP_UNLESS_EQUAL, _ANSWER = 0x20, 0x28, 0x15, 0x06  # <linux/bpf_common.h>
_WHOLE, _NOTHING = 0xFFFFFFFF, 0


class OtherSources:
    """How many frames came to an endpoint's device from any MAC but one."""

    def __init__(self, container: Container, mac: bytes) -> None:
        """Start counting."""
        self._socket = container.packet_socket()
        self._socket.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        self._attach(mac)
        self._socket.bind((container.endpoint.ifname, ETH_P_ALL))

    def _attach(self, mac: bytes) -> None:
        first, last = struct.unpack("!IH", mac)
        steps = (
            (_LOAD_WORD, 0, 0, 6), (_SKIP_UNLESS_EQUAL, 0, 3, first),
            (_LOAD_HALF, 0, 0, 10), (_SKIP_UNLESS_EQUAL, 0, 1, last),
            (_ANSWER, 0, 0, _NOTHING), (_ANSWER, 0, 0, _WHOLE),
        )  # fmt: skip
        code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
        program = struct.pack("@HP", len(steps), ctypes.addressof(code))
        self._socket.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)

    def count(self) -> int:
        """Those since the last call, also such as the socket had no room for."""
        statistics = self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8)
        return int(struct.unpack("=II", statistics)[0])

    def close(self) -> None:
        """Stop counting."""
        self._socket.close()
