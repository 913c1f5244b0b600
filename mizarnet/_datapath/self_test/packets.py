# SPDX-License-Identifier: Apache-2.0
"""Builders for the bytes of the packets that the self-test needs."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import NamedTuple

from mizarnet._model.arguments import IPAddress
from mizarnet._model.specs import Encap

UDP, ICMP, ICMPV6 = 17, 1, 58
ARP_REQUEST, ARP_REPLY = 1, 2
_ARP, _ETHERNET_IN_GENEVE = 0x0806, 0x6558
_TYPES = {4: 0x0800, 6: 0x86DD}
_TIME_EXCEEDED = {4: (11, 0), 6: (3, 0)}
_TOO_LONG = {4: (3, 4), 6: (2, 0)}
_SOLICITATION, _ADVERTISEMENT = 135, 136
_OPTION_SOURCE, _OPTION_TARGET = b"\x01\x01", b"\x02\x01"
_SOLICITED_OVERRIDE = 0x60000000
_DONT_FRAGMENT = 0x4000
_ALL_NODES_MAC = bytes.fromhex("333300000001")
BROADCAST_MAC = b"\xff" * 6
IP_BYTES = {4: 20, 6: 40}


class Party(NamedTuple):
    """Sender or receiver of a packet.

    Attributes:
        mac: MAC address, 6 bytes.
        ip: IP address.
    """

    mac: bytes
    ip: IPAddress


def ethernet(to: bytes, by: bytes, packet: bytes) -> bytes:
    """A frame around an IP packet."""
    return to + by + struct.pack("!H", _TYPES[packet[0] >> 4]) + packet


def ip(
    source: IPAddress,
    destination: IPAddress,
    payload: bytes,
    *,
    protocol: int = UDP,
    hops: int = 64,
    whole: bool = False,
) -> bytes:
    """An IP packet of the version of its addresses, without options; ``whole``: IPv4 may not be fragmented."""
    addresses = source.packed + destination.packed
    if source.version == 6:
        return struct.pack("!IHBB", 6 << 28, len(payload), protocol, hops) + addresses + payload
    head = struct.pack("!BxHxxHBB", 0x45, 20 + len(payload), _DONT_FRAGMENT if whole else 0, hops, protocol)
    return head + _checksum(head + addresses) + addresses + payload


def udp(source_port: int, destination_port: int, payload: bytes) -> bytes:
    """A UDP datagram without a checksum."""
    return struct.pack("!HHHxx", source_port, destination_port, 8 + len(payload)) + payload


def tunnel(encap: Encap, vni: int, frame: bytes) -> bytes:
    """A VXLAN or Geneve header with the frame behind it."""
    if encap is Encap.VXLAN:
        return struct.pack("!Bxxx", 0x08) + struct.pack("!I", vni << 8) + frame
    return struct.pack("!xxH", _ETHERNET_IN_GENEVE) + struct.pack("!I", vni << 8) + frame


def arp(to: bytes, operation: int, sender: Party, target: Party) -> bytes:
    """A frame with an ARP request or reply."""
    head = to + sender.mac + struct.pack("!HHHBBH", _ARP, 1, _TYPES[4], 6, 4, operation)
    return head + sender.mac + sender.ip.packed + target.mac + target.ip.packed


def solicitation(asker: Party, target: IPAddress) -> bytes:
    """A frame with a neighbour solicitation for an IPv6 address, to all nodes."""
    body = bytes(4) + target.packed + _OPTION_SOURCE + asker.mac
    return _icmpv6(_ALL_NODES_MAC, asker, target, _SOLICITATION, body, hops=255)


def advertisement(to: Party, found: Party) -> bytes:
    """A frame with the neighbour advertisement that answers a solicitation, to its sender."""
    body = struct.pack("!I", _SOLICITED_OVERRIDE) + found.ip.packed + _OPTION_TARGET + found.mac
    return _icmpv6(to.mac, found, to.ip, _ADVERTISEMENT, body, hops=255)


def time_exceeded(to: Party, by: Party, packet: bytes) -> bytes:
    """A frame with an ICMP or ICMPv6 "time exceeded" for a packet: its IP header and the next eight bytes."""
    return _error(to, by, _TIME_EXCEEDED, bytes(4) + packet[: IP_BYTES[to.ip.version] + 8])


def too_long(to: Party, by: Party, packet: bytes, mtu: int) -> bytes:
    """A frame with "fragmentation needed" or "packet too big" for a packet: its IP header and the next 48 bytes."""
    return _error(to, by, _TOO_LONG, struct.pack("!I", mtu) + packet[: IP_BYTES[to.ip.version] + 48])


def _error(to: Party, by: Party, kinds: Mapping[int, tuple[int, int]], body: bytes) -> bytes:
    """``kinds``: type and code by IP version."""
    kind, code = kinds[to.ip.version]
    if to.ip.version == 6:
        return _icmpv6(to.mac, by, to.ip, kind, body, hops=64)
    head = bytes([kind, code])
    message = head + _checksum(head + body) + body
    return ethernet(to.mac, by.mac, ip(by.ip, to.ip, message, protocol=ICMP))


def _icmpv6(to_mac: bytes, by: Party, to: IPAddress, kind: int, body: bytes, *, hops: int) -> bytes:
    head = bytes([kind, 0])
    pseudo = by.ip.packed + to.packed + struct.pack("!IxxxB", 4 + len(body), ICMPV6)
    message = head + _checksum(pseudo + head + body) + body
    return ethernet(to_mac, by.mac, ip(by.ip, to, message, protocol=ICMPV6, hops=hops))


def _checksum(data: bytes) -> bytes:
    """Internet checksum (RFC 1071) over an even number of bytes."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", ~total & 0xFFFF)
