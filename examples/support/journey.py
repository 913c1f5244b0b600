# SPDX-License-Identifier: Apache-2.0
"""Follows single packets through a lab: who sent them on, by which verdict, with how many hops left."""

from __future__ import annotations

import select
import signal
import socket
import struct
from contextlib import ExitStack
from types import TracebackType
from typing import Self

import attrs

import mizarnet as mz
from mizarnet import Verdict
from mizarnet._kernel.netlink import Session
from support import drawing

PORT = 7
PATIENCE = 10.0
"""Seconds for a packet to arrive, enough for an emulated machine."""
ETH_P_ALL, PACKET_OUTGOING, IP_RECVTTL = 3, 4, 12
DECISIONS = {
    "agent": (Verdict.ENCAPSULATED, Verdict.DELIVERED_LOCALLY),
    "switch": (Verdict.BOUNCED,),
    "guard": (Verdict.ACCEPTED, Verdict.BOUNCED),
}


@attrs.frozen
class Hop:
    """A tunnel packet on its way to a host."""

    host: str
    ttl: int


class Journeys:
    """Sends packets, draws their ways, and remembers whether all were as expected."""

    def __init__(self, lab: mz.Lab) -> None:
        self._lab = lab
        self._stack = ExitStack()
        self._failed = 0

    def __enter__(self) -> Self:
        # kill(1) deletes the lab as Ctrl-C does.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        # Unbound, so it sees every port of the bridge between the hosts.
        self._fabric = self._socket(f"{self._lab.name}-fabric", socket.AF_PACKET, socket.SOCK_RAW, ETH_P_ALL)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _socket(self, netns: str | None, family: int, kind: int, protocol: int = 0) -> socket.socket:
        with Session.open(netns) as session:
            # A socket stays in the namespace it was made in.
            made = session.run(socket.socket, family, kind, socket.htons(protocol))
        made.settimeout(PATIENCE)
        return self._stack.enter_context(made)

    def follow(
        self, name: str, source: mz.Endpoint, target: mz.Endpoint, *, way: tuple[str, ...], ttl: int
    ) -> None:
        """Send one packet, draw its way, and compare it with ``way`` and the ``ttl`` it is to arrive with."""
        drawing.heading(f"{name}: {source.name} ({source.ip}) to {target.name} ({target.ip})")
        self._send(source, target)  # so that every host on the way knows its neighbours
        self._hops()
        before = [host.agent.stats() for host in self._lab.hosts]
        inner = self._send(source, target)
        hops = self._hops()
        rise = {
            host.name: host.agent.stats().since(then)
            for host, then in zip(self._lab.hosts, before, strict=True)
        }
        self._draw(way[0], hops, rise, inner)
        self._expect(f"the way is {' -> '.join(way)}", [hop.host for hop in hops] == [*way[1:]])
        outer = [64, *range(8, 0, -1)][: len(hops)]
        self._expect(f"outer TTL {', '.join(map(str, outer))}", [hop.ttl for hop in hops] == outer)
        self._expect(f"inner TTL {ttl} at {target.name}", inner == ttl)
        for host in way[1:-1]:
            self._expect(f"{host} bounced it in XDP", rise[host].switch[Verdict.BOUNCED].packets == 1)

    def _send(self, source: mz.Endpoint, target: mz.Endpoint) -> int:
        """Send a datagram and return the TTL it arrives with."""
        with (
            self._socket(source.netns, socket.AF_INET, socket.SOCK_DGRAM) as sender,
            self._socket(target.netns, socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        ):
            receiver.setsockopt(socket.IPPROTO_IP, IP_RECVTTL, 1)
            receiver.bind((str(target.ip), PORT))
            sender.sendto(b"which way did I come?", (str(target.ip), PORT))
            _, [(_, _, data)], _, _ = receiver.recvmsg(64, 64)
        (ttl,) = struct.unpack("i", data)
        return int(ttl)

    def _hops(self) -> list[Hop]:
        """The tunnel packets that the fabric handed to hosts since the last call."""
        hops: list[Hop] = []
        while select.select([self._fabric], [], [], 0)[0]:
            frame, (port, _, direction, *_) = self._fabric.recvfrom(2048)
            if direction == PACKET_OUTGOING and self._is_tunnel_packet(frame) and port.startswith("h"):
                hops.append(Hop(port, frame[22]))
        return hops

    def _is_tunnel_packet(self, frame: bytes) -> bool:
        port = self._lab.hosts[0].tunnel.port
        return (
            frame[12:14] == b"\x08\x00"
            and frame[23] == socket.IPPROTO_UDP
            and frame[36:38] == port.to_bytes(2, "big")
        )

    def _draw(self, start: str, hops: list[Hop], rise: dict[str, mz.Stats], inner: int) -> None:
        print(f"  {start}: {_decided(rise[start])}")
        for hop in hops:
            print(f"    | outer TTL {hop.ttl}")
            print(f"  {hop.host}: {_decided(rise[hop.host])}")
        print(f"    | inner TTL {inner}")

    def _expect(self, text: str, good: bool) -> None:
        self._failed += not good
        drawing.check(text, good)

    def conclude(self) -> int:
        """The exit status: zero if all was as expected."""
        drawing.heading(f"{self._failed} NOT as expected" if self._failed else "all as expected")
        return int(self._failed > 0)


def _decided(stats: mz.Stats) -> str:
    """What the programs of a host decided about the packet; answers to ARP and the like are left out."""
    said = [
        f"{program} {verdict.name.lower()}"
        for program, verdicts in DECISIONS.items()
        for verdict in verdicts
        if getattr(stats, program)[verdict].packets
    ]
    return ", ".join(said) or "nothing"
