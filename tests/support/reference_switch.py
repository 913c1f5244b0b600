# SPDX-License-Identifier: Apache-2.0
"""What a transit switch must do with a frame, in plain Python, from the rules and from nothing else.

It reads a frame field by field and writes a new one with every checksum computed over the whole, so that it shares
neither the program's order of checks nor its arithmetic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Literal, TypeAlias

import attrs

from mizarnet import Verdict
from tests.support.packets import checksum

Address: TypeAlias = IPv4Address | IPv6Address
Prefix: TypeAlias = IPv4Network | IPv6Network

ETHERTYPES = {4: b"\x08\x00", 6: b"\x86\xdd"}
HEADER_BYTES = {4: 20, 6: 40}
ETHERNET_BYTES = 14
UDP = 17


@attrs.frozen(kw_only=True)
class Knowledge:
    """What the host knows.

    Attributes:
        encap: Encapsulation of its tunnel.
        port: UDP port of its tunnel.
        local: Its underlay address.
        mac: Of its underlay device.
        peers: Underlay prefixes that it accepts tunnel packets from.
        endpoints: VNI and address to the host an endpoint lives on; None: on this one.
        networks: VNI and prefix to transit switches.
        hops: Host to the MAC of the next hop, or to the verdict that says why there is none.
        generic: Whether the program is on the generic hook.
    """

    encap: Literal["vxlan", "geneve"]
    port: int
    local: Address
    mac: bytes
    peers: Sequence[Prefix]
    endpoints: Mapping[tuple[int, Address], Address | None]
    networks: Mapping[tuple[int, Prefix], Sequence[Address]]
    hops: Mapping[Address, bytes | Verdict]
    generic: bool = False


@attrs.frozen
class Outcome:
    """The verdict, and the frame as it goes on."""

    verdict: Verdict
    frame: bytes


@attrs.frozen
class _Packet:
    """A tunnel packet to this host, taken apart."""

    source: Address
    ttl: int
    source_port: int
    udp_checksum: int
    vni: int
    inner: bytes


def judge(frame: bytes, known: Knowledge) -> Outcome:
    """What becomes of a frame."""
    packet = _read(frame, known)
    host = None if packet is None else _next_host(packet, known)
    if packet is None or host is None or packet.ttl <= 1:
        return Outcome(Verdict.PASSED, frame)
    if known.generic and packet.udp_checksum:
        return Outcome(Verdict.PASSED_CHECKSUM, frame)
    hop = known.hops[host]
    if isinstance(hop, Verdict):
        return Outcome(hop, frame)
    return Outcome(Verdict.BOUNCED, hop + known.mac + frame[12:14] + _readdressed(frame, known.local, host))


# -- reading -----------------------------------------------------------------------------------------------


def _read(frame: bytes, known: Knowledge) -> _Packet | None:
    version = known.local.version
    ip = frame[ETHERNET_BYTES:][: HEADER_BYTES[version]]
    rest = frame[ETHERNET_BYTES + HEADER_BYTES[version] :]
    if frame[12:14] != ETHERTYPES[version] or len(ip) < HEADER_BYTES[version] or len(rest) < 16:
        return None
    addresses = _plain_udp_addresses(ip, version)
    if addresses is None or addresses[1] != known.local:
        return None
    udp, tunnel = rest[:8], rest[8:16]
    length = _tunnel_header_bytes(tunnel, known.encap)
    if int.from_bytes(udp[2:4], "big") != known.port or length is None:
        return None
    return _Packet(
        source=addresses[0],
        ttl=ip[8] if version == 4 else ip[7],
        source_port=int.from_bytes(udp[:2], "big"),
        udp_checksum=int.from_bytes(udp[6:8], "big"),
        vni=int.from_bytes(tunnel[4:7], "big"),
        inner=rest[8 + length :],
    )


def _plain_udp_addresses(ip: bytes, version: int) -> tuple[Address, Address] | None:
    """Source and destination of a packet that is UDP right behind the header, without options or fragments."""
    if version == 6:
        plain = ip[0] >> 4 == 6 and ip[6] == UDP
        return (IPv6Address(ip[8:24]), IPv6Address(ip[24:40])) if plain else None
    more_or_offset = int.from_bytes(ip[6:8], "big") & 0x3FFF
    plain = ip[0] == 0x45 and ip[9] == UDP and not more_or_offset
    return (IPv4Address(ip[12:16]), IPv4Address(ip[16:20])) if plain else None


def _tunnel_header_bytes(tunnel: bytes, encap: str) -> int | None:
    """None for a header that the kernel would refuse or that is not for an endpoint."""
    if encap == "vxlan":
        return 8 if tunnel[:4] == b"\x08\0\0\0" and tunnel[7] == 0 else None
    version, options = tunnel[0] >> 6, tunnel[0] & 0x3F
    control, critical = tunnel[1] & 0x80, tunnel[1] & 0x40
    if version or control or critical or tunnel[2:4] != b"\x65\x58":
        return None
    return 8 + 4 * options


# -- deciding ----------------------------------------------------------------------------------------------


def _next_host(packet: _Packet, known: Knowledge) -> Address | None:
    destination = _inner_destination(packet.inner)
    if destination is None or not any(packet.source in prefix for prefix in known.peers):
        return None
    if (packet.vni, destination) in known.endpoints:
        return known.endpoints[packet.vni, destination]
    around = [prefix for vni, prefix in known.networks if vni == packet.vni and destination in prefix]
    if not around:
        return None
    switches = known.networks[packet.vni, max(around, key=lambda prefix: prefix.prefixlen)]
    if not switches or known.local in switches:
        return None
    return switches[packet.source_port % len(switches)]


def _inner_destination(inner: bytes) -> Address | None:
    if inner[12:14] == ETHERTYPES[4] and len(inner) >= 34:
        return IPv4Address(inner[30:34])
    if inner[12:14] == ETHERTYPES[6] and len(inner) >= 54:
        return IPv6Address(inner[38:54])
    return None


# -- writing -----------------------------------------------------------------------------------------------


def _readdressed(frame: bytes, source: Address, destination: Address) -> bytes:
    """From the outer IP header on: one hop less, new addresses, checksums anew."""
    packet = bytearray(frame[ETHERNET_BYTES:])
    if source.version == 4:
        packet[8] -= 1
        packet[12:20] = source.packed + destination.packed
    else:
        packet[7] -= 1
        packet[8:40] = source.packed + destination.packed
    return seal(bytes(packet), has_udp_checksum=packet[HEADER_BYTES[source.version] :][6:8] != b"\0\0")


def seal(packet: bytes, *, has_udp_checksum: bool) -> bytes:
    """An IP packet with UDP in it, from the IP header on, with right checksums."""
    version = packet[0] >> 4
    header, datagram = packet[: HEADER_BYTES[version]], packet[HEADER_BYTES[version] :]
    if version == 4:
        header = header[:10] + bytes(2) + header[12:]
        header = header[:10] + checksum(header).to_bytes(2, "big") + header[12:]
    return header + _seal_udp(header, datagram, has_udp_checksum)


def _seal_udp(header: bytes, datagram: bytes, has_checksum: bool) -> bytes:
    blank = datagram[:6] + bytes(2) + datagram[8:]
    if not has_checksum:
        return blank
    addresses = header[12:20] if header[0] >> 4 == 4 else header[8:40]
    length = int.from_bytes(datagram[4:6], "big")
    pseudo = addresses + length.to_bytes(4, "big") + UDP.to_bytes(4, "big")
    # Zero would mean "none": its other form in one's complement stands for it.
    return blank[:6] + (checksum(pseudo + blank[:length]) or 0xFFFF).to_bytes(2, "big") + blank[8:]
