# SPDX-License-Identifier: Apache-2.0
"""IPv6 and ICMPv6 by the byte, with extension headers."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from ipaddress import IPv6Address

from tests.support.packets import checksum, ethernet

HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION = 0, 43, 44, 60
ICMPV6, UDP = socket.IPPROTO_ICMPV6, socket.IPPROTO_UDP
PADDING = b"\x01\x04\0\0\0\0"
"""An option that fills an extension header of eight bytes."""
Header = tuple[int, bytes]
"""Its number, and all of it but the first byte, which names what follows."""


def extension(number: int) -> Header:
    """An extension header that says nothing."""
    return number, (b"\0" + PADDING if number != ROUTING else b"\0\x04\0" + bytes(4))


def fragment(offset: int, *, more: bool, identifier: int = 1) -> Header:
    """A fragment header; ``offset`` in units of eight bytes."""
    return FRAGMENT, b"\0" + struct.pack("!HI", offset << 3 | more, identifier)


def ipv6(
    source: str,
    destination: str,
    payload: bytes,
    *,
    protocol: int = UDP,
    hops: int = 64,
    headers: Sequence[Header] = (),
) -> bytes:
    """A packet with those extension headers."""
    for number, rest in reversed(headers):
        payload, protocol = bytes([protocol]) + rest + payload, number
    start = struct.pack("!IHBB", 6 << 28, len(payload), protocol, hops)
    return start + IPv6Address(source).packed + IPv6Address(destination).packed + payload


def sealed(source: str, destination: str, packet: bytes, protocol: int, at: int) -> bytes:
    """With its checksum, whose place is ``at``, over the addresses as well."""
    pseudo = IPv6Address(source).packed + IPv6Address(destination).packed
    total = checksum(pseudo + struct.pack("!II", len(packet), protocol) + packet)
    return packet[:at] + struct.pack("!H", total or 0xFFFF) + packet[at + 2 :]


def udp6(source: str, destination: str, port: int, payload: bytes) -> bytes:
    """A datagram; with IPv6 it must have a checksum."""
    packet = struct.pack("!HHHH", 9, port, 8 + len(payload), 0) + payload
    return sealed(source, destination, packet, UDP, 6)


def icmpv6(source: str, destination: str, kind: int, body: bytes, *, code: int = 0) -> bytes:
    """A message."""
    return sealed(source, destination, struct.pack("!BBH", kind, code, 0) + body, ICMPV6, 2)


def datagram6(
    mac: bytes,
    source: str,
    destination: str,
    *,
    destination_mac: bytes,
    payload: bytes = b"frame",
    port: int = 9,
) -> bytes:
    """A whole frame with a UDP datagram."""
    packet = ipv6(source, destination, udp6(source, destination, port, payload))
    return ethernet(destination_mac, mac, 0x86DD, packet)


def link_local(mac: bytes) -> str:
    """The address that a stack makes of a MAC."""
    return str(IPv6Address(b"\xfe\x80" + bytes(6) + bytes([mac[0] ^ 2]) + mac[1:3] + b"\xff\xfe" + mac[3:]))
