# SPDX-License-Identifier: Apache-2.0
"""Tunnel packets that aim at the host itself, through the tunnel.

Its IP stack would take an inner packet for its own address, and its tunnel a tunnel packet within a tunnel packet. So
would the sockets of whoever listens on the host.
"""

from __future__ import annotations

from collections.abc import Iterator

from mizarnet import Verdict
from tests.frames import BROADCAST, ICMP, SYN, TCP, UDP, VIRTUAL, echo_request, frame, ipv4, ipv6, tcp, udp
from tests.support.onlookers import PORT
from tests.support.wire import HOST, OTHER_ADDRESSES, PEER, STRANGER, Kind, Packet, Wire
from tests.world import BLUE


def targets(wire: Wire) -> dict[bytes, Verdict]:
    """The MACs that a frame may have on its way to the host's stack, with the reason why it does not get there."""
    return {
        wire.tunnel_mac: Verdict.TUNNEL_MAC,
        BROADCAST: Verdict.MULTICAST,
        wire.net.blue1.mac: Verdict.NO_DESTINATION,
        VIRTUAL: Verdict.NO_DESTINATION,
    }


def nested(wire: Wire) -> Iterator[Packet]:
    """A whole tunnel packet, from a peer, for an endpoint: decapsulated twice, it would arrive."""
    inner = wire.legal(wire.net.blue1)
    for mac, verdict in targets(wire).items():
        for address in (HOST, OTHER_ADDRESSES[0], "127.0.0.1"):
            yield wire.packet(verdict, nest(wire, inner, mac, address))
    yield wire.packet(Verdict.TUNNEL_MAC, nest(wire, nest(wire, inner, wire.tunnel_mac), wire.tunnel_mac))


def nest(wire: Wire, inner: bytes, mac: bytes, address: str = HOST) -> bytes:
    """A frame with a tunnel packet in it, as it is on the cable but for its MACs."""
    packet = wire.outer(wire.tunnel(BLUE, inner), destination=address)[14:]
    return frame(mac, STRANGER, packet)


def for_the_hosts_sockets(wire: Wire) -> Iterator[Packet]:
    """Datagrams, the start of a TCP connection and a ping, to each address."""
    start = tcp(4242, PORT, SYN)
    for mac, verdict in targets(wire).items():
        for address in (HOST, OTHER_ADDRESSES[0], "127.0.0.1"):
            for protocol, body in (
                (UDP, udp(4242, PORT, b"frame")),
                (TCP, start),
                (ICMP, echo_request(1, 1)),
            ):
                inner = ipv4(PEER, address, body, protocol=protocol)
                yield wire.packet(verdict, frame(mac, STRANGER, inner))
        for address in (OTHER_ADDRESSES[1], "::1"):
            for protocol, body in ((UDP, udp(4242, PORT, b"frame")), (TCP, start)):
                inner = ipv6("fd00:6d7a:1::2", address, body, protocol=protocol)
                yield wire.packet(verdict, frame(mac, STRANGER, inner))


KINDS: dict[str, Kind] = {
    "tunnel packets within tunnel packets": nested,
    "packets for the host's sockets": for_the_hosts_sockets,
}
