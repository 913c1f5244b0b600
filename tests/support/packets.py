# SPDX-License-Identifier: Apache-2.0
"""Frames by the byte, made and read without the library."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address

import attrs

ETHERTYPES = {4: b"\x08\x00", 6: b"\x86\xdd"}
HEADER_BYTES = {4: 20, 6: 40}
VXLAN_PORT, GENEVE_PORT = 4789, 6081
BROADCAST = bytes(6 * [255])


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def checksum(data: bytes) -> int:
    """The Internet checksum."""
    total: int = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ethernet(destination: bytes, source: bytes, ethertype: int, payload: bytes) -> bytes:
    return destination + source + struct.pack("!H", ethertype) + payload


def ipv4(
    source: str, destination: str, payload: bytes, *, protocol: int = 17, ttl: int = 64, flags: int = 0
) -> bytes:
    def header(check: int) -> bytes:
        start = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 0, flags, ttl, protocol, check)
        return start + IPv4Address(source).packed + IPv4Address(destination).packed

    return header(checksum(header(0))) + payload


def udp(source_port: int, destination_port: int, payload: bytes) -> bytes:
    """UDP without a checksum, which IPv4 allows."""
    return struct.pack("!HHHH", source_port, destination_port, 8 + len(payload), 0) + payload


def echo_request(identifier: int, sequence: int, payload: bytes = b"mizarnet" * 7) -> bytes:
    start = struct.pack("!BBHHH", 8, 0, 0, identifier, sequence)
    return start[:2] + struct.pack("!H", checksum(start + payload)) + start[4:] + payload


def arp(
    sender_mac: bytes, sender: str, target: str, *, operation: int = 1, target_mac: bytes = bytes(6)
) -> bytes:
    fixed = struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation)
    return fixed + sender_mac + IPv4Address(sender).packed + target_mac + IPv4Address(target).packed


def datagram(
    source_mac: bytes,
    source: str,
    destination: str,
    *,
    destination_mac: bytes,
    payload: bytes = b"frame",
    ttl: int = 64,
) -> bytes:
    """A whole frame with a UDP datagram to port 9."""
    packet = ipv4(source, destination, udp(9, 9, payload), ttl=ttl)
    return ethernet(destination_mac, source_mac, 0x0800, packet)


def vxlan(vni: int, frame: bytes) -> bytes:
    return struct.pack("!BxxxI", 0x08, vni << 8) + frame


def geneve(vni: int, frame: bytes, *, options: bytes = b"", flags: int = 0) -> bytes:
    """``flags``: 0x80 is a control frame, 0x40 says that an option is critical."""
    return struct.pack("!BBHI", len(options) // 4, flags, 0x6558, vni << 8) + options + frame


def geneve_option(kind: int, data: bytes = b"", *, length: int | None = None) -> bytes:
    """An option of the experimental class; ``length`` in units of four bytes, if it is to lie."""
    return struct.pack("!HBB", 0xFF00, kind, len(data) // 4 if length is None else length) + data


def seal(packet: bytes, *, has_udp_checksum: bool) -> bytes:
    """An IP packet with UDP in it, from the IP header on, with right checksums."""
    version = packet[0] >> 4
    header, datagram = packet[: HEADER_BYTES[version]], packet[HEADER_BYTES[version] :]
    if version == 4:
        header = header[:10] + bytes(2) + header[12:]
        header = header[:10] + checksum(header).to_bytes(2, "big") + header[12:]
    return header + _seal_udp(header, datagram, has_udp_checksum)


def is_sealed(packet: bytes) -> bool:
    """Whether an IP packet with UDP in it has right checksums, or none in the UDP header."""
    at = HEADER_BYTES[packet[0] >> 4] + 6
    return packet == seal(packet, has_udp_checksum=packet[at : at + 2] != bytes(2))


def _seal_udp(header: bytes, datagram: bytes, has_checksum: bool) -> bytes:
    blank = datagram[:6] + bytes(2) + datagram[8:]
    if not has_checksum:
        return blank
    addresses = header[12:20] if header[0] >> 4 == 4 else header[8:40]
    length = int.from_bytes(datagram[4:6], "big")
    pseudo = addresses + length.to_bytes(4, "big") + (17).to_bytes(4, "big")
    # Zero would mean "none": its other form in one's complement stands for it.
    return blank[:6] + (checksum(pseudo + blank[:length]) or 0xFFFF).to_bytes(2, "big") + blank[8:]


@attrs.frozen
class Outer:
    """A tunnel packet as captured on the underlay."""

    source: str
    destination: str
    ttl: int
    tos: int
    dont_fragment: bool
    port: int
    udp_checksum: int
    vni: int
    inner: bytes

    @classmethod
    def parse(cls, frame: bytes) -> Outer | None:
        """None for anything but an unfragmented VXLAN or Geneve packet over IPv4."""
        if frame[12:14] != b"\x08\x00" or frame[23] != 17:
            return None
        ip, transport = frame[14:34], frame[14 + 4 * (frame[14] & 15) :]
        _, port, _, udp_checksum = struct.unpack_from("!HHHH", transport)
        if port not in (VXLAN_PORT, GENEVE_PORT):
            return None
        options = 4 * (transport[8] & 0x3F) if port == GENEVE_PORT else 0
        return cls(
            source=str(IPv4Address(ip[12:16])),
            destination=str(IPv4Address(ip[16:20])),
            ttl=ip[8],
            tos=ip[1],
            dont_fragment=bool(ip[6] & 0x40),
            port=port,
            udp_checksum=udp_checksum,
            vni=int.from_bytes(transport[12:15], "big"),
            inner=transport[16 + options :],
        )
