# SPDX-License-Identifier: Apache-2.0
"""Frames of other VNIs that tenants send to the ports of tunnels, and whoever looks whether one gets there."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from tests.frames import datagram, mac
from tests.support.icmp import family_of
from tests.support.namespace import Namespace
from tests.support.outside import VNIS
from tests.support.traffic import Capture
from tests.world import UNDERLAY

_FRAMES = int(os.environ.get("MIZARNET_TEST_FRAMES", "20000"))
COUNT = 1000 if _FRAMES >= 10_000 else _FRAMES // 20
"""Of each kind: a thousand, and fewer in the short run in emulation."""
PORTS = (4789, 6081)
MARK = b"a frame that nobody may get"
LAST = b"the last datagram of this test"


@contextmanager
def nothing_arrives(*spaces: Namespace) -> Iterator[None]:
    """No frame with the mark is seen on the underlay of some hosts, but for those of the VNI's own tunnel packets."""
    with ExitStack() as open_ones:
        captures = [open_ones.enter_context(Capture(space, UNDERLAY)) for space in spaces]
        yield
        for capture, space in zip(captures, spaces, strict=True):
            end_with(space)
            for frame in capture.until(lambda frame: LAST in frame):
                assert MARK not in frame or is_of_the_vni(frame), f"{space.name} got {frame[:64].hex()}"


def is_of_the_vni(frame: bytes) -> bool:
    """Whether a frame is a tunnel packet of the tenants' own VNI, in which they may send what they want."""
    to_tunnel = frame[12:14] == b"\x08\0" and frame[23] == socket.IPPROTO_UDP
    return to_tunnel and int.from_bytes(frame[36:38]) in PORTS and int.from_bytes(frame[46:49]) == VNIS[0]


def end_with(space: Namespace) -> None:
    """Send the last datagram out of a namespace, where a capture sees it, too."""
    with space.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sender.sendto(LAST, ("192.0.2.255", 9))


def payloads(size: int = 0) -> dict[int, bytes]:
    """What a tunnel would take for frames of another VNI, by the port of either kind of tunnel."""
    inner = datagram(
        mac("02:00:00:00:00:01"),
        "10.1.0.5",
        "10.1.0.6",
        destination_mac=mac("02:00:00:00:00:02"),
        payload=MARK * (1 + size // len(MARK)),
    )
    return {4789: bytes.fromhex("0800000000000800") + inner, 6081: bytes.fromhex("0000655800000800") + inner}


def send_many(sender: Namespace, target: str, ports: Sequence[int], *, size: int = 0) -> None:
    """So many frames of each kind to ports of an address, as datagrams of a socket: to a tunnel those of its kind."""
    with sender.socket(family_of(target), socket.SOCK_DGRAM) as made:
        each = [
            (payload, (target, port))
            for own_port, payload in payloads(size).items()
            for port in ports
            if port == own_port or port not in PORTS
        ]
        for number in range(COUNT * len(each)):
            try:
                made.sendto(*each[number % len(each)])
            except OSError as refused:  # told by the router, which is as good
                assert refused.errno in (1, 101, 111, 113)
