# SPDX-License-Identifier: Apache-2.0
"""UDP, TCP, ICMP and ICMPv6: messages with their checksums, and whole frames with them."""

from __future__ import annotations

import struct

from tests.frames.internet import HEADER_BYTES, ICMP, ICMPV6, TCP, UDP, checksum, ip, packet, pseudo_header
from tests.frames.link import frame, patched, u16

FIN, SYN, ACK = 1, 2, 16

UDP_HEADER = struct.Struct("!HHHH")
TCP_HEADER = struct.Struct("!HHIIBBHHH")
ICMP_HEADER = struct.Struct("!BBHI")
_CHECKSUM_AT = {ICMP: 2, ICMPV6: 2, TCP: 16, UDP: 6}


def summed(source: str, destination: str, protocol: int, message: bytes) -> bytes:
    """A message with its checksum, whatever stood in its place."""
    blank = patched(message, _CHECKSUM_AT[protocol], bytes(2))
    before = b"" if protocol == ICMP else pseudo_header(ip(source), ip(destination), protocol, len(blank))
    check = checksum(before + blank)
    # To UDP zero means "none": its other form in one's complement stands for it.
    return patched(blank, _CHECKSUM_AT[protocol], u16(check or 0xFFFF if protocol == UDP else check))


def sum_of_message(packet: bytes) -> int:
    """Over what follows an IP header without options, and its pseudo-header: zero if the checksum is right."""
    version = packet[0] >> 4
    header, message = packet[: HEADER_BYTES[version]], packet[HEADER_BYTES[version] :]
    protocol, first = (header[9], 12) if version == 4 else (header[6], 8)
    half = (len(header) - first) // 2
    if protocol == ICMP:
        return checksum(message)
    source, destination = header[first : first + half], header[first + half :]
    return checksum(pseudo_header(source, destination, protocol, len(message)) + message)


def checksums_hold(frame: bytes) -> bool:
    """Whether the sums over the IP header and over the message in a frame are right."""
    return (frame[14] >> 4 == 6 or checksum(frame[14:34]) == 0) and sum_of_message(frame[14:]) == 0


def udp(source_port: int, destination_port: int, payload: bytes) -> bytes:
    """UDP without a checksum, which IPv4 allows."""
    return UDP_HEADER.pack(source_port, destination_port, 8 + len(payload), 0) + payload


def tcp(
    source_port: int,
    destination_port: int,
    flags: int,
    *,
    sequence: int = 1,
    acknowledged: int = 0,
    check: int = 0,
    options: bytes = b"",
) -> bytes:
    """A header; ``check`` stands in the checksum's place."""
    size = (20 + len(options)) // 4 << 4
    fields = source_port, destination_port, sequence, acknowledged, size, flags, 0xFFFF, check, 0
    return TCP_HEADER.pack(*fields) + options


def icmp(kind: int, body: bytes, *, code: int = 0) -> bytes:
    return summed("", "", ICMP, bytes([kind, code, 0, 0]) + body)


def echo_request(identifier: int, sequence: int, payload: bytes = b"mizarnet" * 7) -> bytes:
    return icmp(8, u16(identifier) + u16(sequence) + payload)


def icmpv6(source: str, destination: str, kind: int, body: bytes, *, code: int = 0) -> bytes:
    return summed(source, destination, ICMPV6, bytes([kind, code, 0, 0]) + body)


def datagram(
    source_mac: bytes,
    source: str,
    destination: str,
    *,
    destination_mac: bytes,
    payload: bytes = b"frame",
    port: int = 9,
    hops: int = 64,
) -> bytes:
    """A whole frame with a UDP datagram, over IPv6 with the checksum that it must have there."""
    message = udp(9, port, payload)
    if ":" in source:
        message = summed(source, destination, UDP, message)
    return frame(destination_mac, source_mac, packet(source, destination, message, hops=hops))
