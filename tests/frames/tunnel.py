# SPDX-License-Identifier: Apache-2.0
"""VXLAN and Geneve, and the packets they are in."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address

import attrs

from tests.frames.internet import HEADER_BYTES, UDP, checksum, pseudo_header
from tests.frames.link import patched, u16

VXLAN_PORT, GENEVE_PORT = 4789, 6081
PORTS = {"vxlan": VXLAN_PORT, "geneve": GENEVE_PORT}
ETHERNET_INSIDE = 0x6558


def vxlan(vni: int, frame: bytes) -> bytes:
    return struct.pack("!BxxxI", 0x08, vni << 8) + frame


def geneve(
    vni: int,
    frame: bytes,
    *,
    options: bytes = b"",
    flags: int = 0,
    units: int | None = None,
    contents: int = ETHERNET_INSIDE,
) -> bytes:
    """A Geneve header with options, and a frame.

    ``flags``: 0x80 is a control frame, 0x40 says that an option is critical. ``units``: of four bytes of options, if
    it is to lie; above them the version.
    """
    size = len(options) // 4 if units is None else units
    return struct.pack("!BBHI", size, flags, contents, vni << 8) + options + frame


def tunnel(encap: str, vni: int, frame: bytes) -> bytes:
    """A frame with the tunnel header of that name."""
    return vxlan(vni, frame) if encap == "vxlan" else geneve(vni, frame)


def geneve_option(kind: int, data: bytes = b"", *, length: int | None = None) -> bytes:
    """An option of the experimental class; ``length`` in units of four bytes, if it is to lie."""
    return struct.pack("!HBB", 0xFF00, kind, len(data) // 4 if length is None else length) + data


def seal(packet: bytes, *, has_udp_checksum: bool) -> bytes:
    """An IP packet with UDP in it, from the IP header on, with right checksums."""
    version = packet[0] >> 4
    header, datagram = packet[: HEADER_BYTES[version]], packet[HEADER_BYTES[version] :]
    if version == 4:
        header = patched(header, 10, bytes(2))
        header = patched(header, 10, u16(checksum(header)))
    return header + _seal_udp(header, datagram, has_udp_checksum)


def is_sealed(packet: bytes) -> bool:
    """Whether an IP packet with UDP in it has right checksums, or none in the UDP header."""
    at = HEADER_BYTES[packet[0] >> 4] + 6
    return packet == seal(packet, has_udp_checksum=packet[at : at + 2] != bytes(2))


def _seal_udp(header: bytes, datagram: bytes, has_checksum: bool) -> bytes:
    blank = patched(datagram, 6, bytes(2))
    if not has_checksum:
        return blank
    addresses = header[12:20] if header[0] >> 4 == 4 else header[8:40]
    length = int.from_bytes(datagram[4:6], "big")
    # Zero would mean "none": its other form in one's complement stands for it.
    check = checksum(pseudo_header(addresses, b"", UDP, length) + blank[:length]) or 0xFFFF
    return patched(blank, 6, u16(check))


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
        if frame[12:14] != b"\x08\x00" or frame[23] != UDP:
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
