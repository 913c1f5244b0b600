# SPDX-License-Identifier: Apache-2.0
"""Tunnel packets that aim at the host itself, through the tunnel.

Its IP stack would take an inner packet for its own address, and its tunnel a tunnel packet within a tunnel packet. So
would the sockets of whoever listens on the host.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from ipaddress import ip_address

from mizarnet import Verdict
from tests.support import packets
from tests.support.onlookers import PORT
from tests.support.packets import (
    BROADCAST,
    echo_request,
    ethernet,
    ipv4,
    udp,
)
from tests.support.tenants import BLUE
from tests.support.wire import HOST, OTHER_ADDRESSES, PEER, STRANGER, Kind, Packet, Wire

VIRTUAL = packets.mac("02:6d:7a:6e:00:01")
SYN = 2


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
    return ethernet(mac, STRANGER, 0x0800, packet)


def for_the_hosts_sockets(wire: Wire) -> Iterator[Packet]:
    """Datagrams, the start of a TCP connection and a ping, to each address."""
    start = struct.pack("!HHIIBBHHH", 4242, PORT, 1, 0, 5 << 4, SYN, 65535, 0, 0)
    for mac, verdict in targets(wire).items():
        for address in (HOST, OTHER_ADDRESSES[0], "127.0.0.1"):
            for protocol, body in ((17, udp(4242, PORT, b"frame")), (6, start), (1, echo_request(1, 1))):
                inner = ipv4(PEER, address, body, protocol=protocol)
                yield wire.packet(verdict, ethernet(mac, STRANGER, 0x0800, inner))
        for address in (OTHER_ADDRESSES[1], "::1"):
            for protocol, body in ((17, udp(4242, PORT, b"frame")), (6, start)):
                yield wire.packet(verdict, ethernet(mac, STRANGER, 0x86DD, ipv6(address, protocol, body)))


def ipv6(to: str, protocol: int, body: bytes) -> bytes:
    header = struct.pack("!IHBB", 6 << 28, len(body), protocol, 64)
    return header + ip_address("fd00:6d7a:1::2").packed + ip_address(to).packed + body


KINDS: dict[str, Kind] = {
    "tunnel packets within tunnel packets": nested,
    "packets for the host's sockets": for_the_hosts_sockets,
}
