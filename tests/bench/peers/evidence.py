# SPDX-License-Identifier: Apache-2.0
"""What a peer puts on the wire: that it carries what it says, and in the way that it says."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

from tests.bench.peers.base import VNI, Peer, Way
from tests.bench.timing import Timer
from tests.support.namespace import Namespace
from tests.world import UNDERLAY

SECONDS = 0.05
_EVERYTHING, _IPV4, _UDP = 3, b"\x08\x00", 17
_PORTS = (4789, 6081)


def on_the_wire(peer: Peer, timer: Timer, way: Way | None) -> tuple[int, int]:
    """How many frames of the tunnel, and others of IPv4, are sent during round trips of a moment."""
    assert way is not None
    with peer.hosts[0].packet_socket(UNDERLAY, _EVERYTHING) as listener:
        assert timer.run("rr", way, seconds=SECONDS)["rate"] > 0
        listener.setblocking(False)
        frames = [frame for frame in _received(listener.recv) if frame[12:14] == _IPV4]
    inside = [frame for frame in frames if _is_tunnelled(frame)]
    return len(inside), len(frames) - len(inside)


def sent_during(peer: Peer, timer: Timer, way: Way | None) -> int:
    """Packets that the first host sends during round trips of a moment, once all that is to be learned is known."""
    assert way is not None
    timer.run("rr", way, seconds=SECONDS)
    before = sent_by(peer.hosts[0], UNDERLAY)
    assert timer.run("rr", way, seconds=SECONDS)["rate"] > 0
    return sent_by(peer.hosts[0], UNDERLAY) - before


def kinds(namespace: Namespace) -> set[str]:
    """Kinds of a namespace's devices."""
    found = json.loads(namespace.run("ip", "-d", "-j", "link"))
    return {each.get("linkinfo", {}).get("info_kind", "") for each in found}


def sent_by(namespace: Namespace, name: str) -> int:
    """Packets that a device has sent."""
    (found,) = json.loads(namespace.run("ip", "-s", "-j", "link", "show", name))
    return int(found["stats64"]["tx"]["packets"])


def _received(receive: Callable[[int], bytes]) -> Iterator[bytes]:
    while True:
        try:
            yield receive(128)
        except BlockingIOError:
            return


def _is_tunnelled(frame: bytes) -> bool:
    return (
        frame[23] == _UDP
        and int.from_bytes(frame[36:38], "big") in _PORTS
        and int.from_bytes(frame[46:49], "big") == VNI
    )
