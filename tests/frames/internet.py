# SPDX-License-Identifier: Apache-2.0
"""IPv4, and IPv6 with extension headers."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from ipaddress import IPv6Address, ip_address
from typing import TypeAlias

from tests.frames.link import patched, u16

ICMP, TCP, UDP, ICMPV6 = 1, 6, 17, 58
HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION_OPTIONS = 0, 43, 44, 60
HEADER_BYTES = {4: 20, 6: 40}

IPV4_HEADER = struct.Struct("!BBHHHBBH4s4s")
IPV6_HEADER = struct.Struct("!IHBB16s16s")
Header: TypeAlias = tuple[int, bytes]
"""The number of an extension header, and all of it but the first byte, which says what follows."""


def ip(text: str) -> bytes:
    """The bytes of an address."""
    return ip_address(text).packed


def link_local(mac: bytes) -> str:
    """The address that a stack makes of a MAC."""
    return str(IPv6Address(b"\xfe\x80" + bytes(6) + bytes([mac[0] ^ 2]) + mac[1:3] + b"\xff\xfe" + mac[3:]))


def checksum(data: bytes) -> int:
    """The Internet checksum."""
    total: int = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def pseudo_header(source: bytes, destination: bytes, protocol: int, length: int) -> bytes:
    """What the checksum of a message covers beyond the message; that of IPv4 is shorter and sums up to the same."""
    return source + destination + struct.pack("!II", length, protocol)


def pseudo_sum(source: str, destination: str, protocol: int, length: int) -> int:
    """What a sender leaves in the checksum's place for a device to go on with."""
    return checksum(pseudo_header(ip(source), ip(destination), protocol, length)) ^ 0xFFFF


def ipv4(
    source: str, destination: str, payload: bytes, *, protocol: int = UDP, hops: int = 64, flags: int = 0
) -> bytes:
    """``flags``: what is said of fragments, in the upper three bits, with the offset below."""
    length = 20 + len(payload)
    addresses = ip(source), ip(destination)
    header = IPV4_HEADER.pack(0x45, 0, length, 0, flags, hops, protocol, 0, *addresses)
    return patched(header, 10, u16(checksum(header))) + payload


def ipv6(
    source: str,
    destination: str,
    payload: bytes,
    *,
    protocol: int = UDP,
    hops: int = 64,
    headers: Sequence[Header] = (),
) -> bytes:
    """``headers``: those between the first one and the payload."""
    for number, rest in reversed(headers):
        payload, protocol = bytes([protocol]) + rest + payload, number
    return IPV6_HEADER.pack(6 << 28, len(payload), protocol, hops, ip(source), ip(destination)) + payload


def packet(source: str, destination: str, payload: bytes, *, protocol: int = UDP, hops: int = 64) -> bytes:
    """Of the family that the source is of."""
    make = ipv6 if ":" in source else ipv4
    return make(source, destination, payload, protocol=protocol, hops=hops)


def extension(number: int, units: int = 0) -> Header:
    """An extension header that says nothing, longer than eight bytes by ``units`` times eight."""
    if number == ROUTING or units:
        return number, bytes([units]) + (b"\x04" if number == ROUTING else b"\0") + bytes(5 + 8 * units)
    return number, b"\0\x01\x04\0\0\0\0"


def fragment(offset: int, *, more: bool, identifier: int = 1) -> Header:
    """A fragment header; ``offset`` in units of eight bytes."""
    return FRAGMENT, b"\0" + struct.pack("!HI", offset << 3 | more, identifier)
