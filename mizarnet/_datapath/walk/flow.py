# SPDX-License-Identifier: Apache-2.0
"""The packets that are walked: made from what the caller asked for, or understood from a frame."""

from __future__ import annotations

import ipaddress
import struct
from typing import NamedTuple

import attrs

from mizarnet._datapath.dry_run import LONGEST
from mizarnet._datapath.self_test import packets
from mizarnet._datapath.self_test.packets import Party
from mizarnet._model.arguments import IPAddress
from mizarnet._model.question import Upper

_NUMBERS = {(Upper.ICMP, 4): 1, (Upper.ICMP, 6): 58, (Upper.TCP, 4): 6, (Upper.TCP, 6): 6}
_TCP, _UDP = 6, 17
_WITH_PORTS = (_TCP, _UDP)
_ASKING_PORT = 40000
_SYN, _SYN_ACK = 0x02, 0x12
# By the version of IP: the type of a ping, and that of its answer.
_ECHO, _ECHO_REPLY = {4: 8, 6: 128}, {4: 0, 6: 129}
_ETHERNET = 14
_IPV4, _IPV6, _ARP = 0x0800, 0x86DD, 0x0806
_EXTENSIONS = (0, 43, 44, 51, 60)
"""Hop-by-hop options, routing, fragment, authentication and destination options."""
SUPER_PACKET = 3000
"""Bytes of a packet that stands for one of any length whose segments the device makes."""
_SMALL = 84
"""Bytes of an IPv4 packet of ping as it is usually sent."""


@attrs.frozen
class Flow:
    """A packet between two addresses of a VNI.

    Attributes:
        vni: VNI of both.
        source: Address that it comes from.
        destination: Address that it goes to.
        upper: What it carries.
        port: Port of the side that is asked; 0: none.
        size: Bytes of the IP packet.
        is_answer: Whether the side that was asked sends it.
    """

    vni: int
    source: IPAddress
    destination: IPAddress
    upper: Upper
    port: int
    size: int
    is_answer: bool = False

    @property
    def version(self) -> int:
        """Version of IP."""
        return self.destination.version

    @property
    def number(self) -> int:
        """Number of the protocol in the IP header."""
        return _NUMBERS.get((self.upper, self.version), _UDP)

    @property
    def wants_answer(self) -> bool:
        """Whether its sender waits for an answer."""
        return self.upper in (Upper.ICMP, Upper.TCP)

    def reply(self) -> Flow:
        """Its answer, of the same size."""
        return attrs.evolve(self, source=self.destination, destination=self.source, is_answer=True)

    @property
    def ports(self) -> tuple[int, int]:
        """Source and destination port, of what has ports."""
        return (self.port, _ASKING_PORT) if self.is_answer else (_ASKING_PORT, self.port)

    def frame(self, *, by: bytes, to: bytes) -> bytes:
        """A frame with it. What is longer than a program can be run on is cut: nothing but the length is looked at.

        Args:
            by: MAC address of the sender.
            to: MAC address that it is sent to.
        """
        room = min(self.size, LONGEST - _ETHERNET) - packets.IP_BYTES[self.version]
        body = self._upper_header()[:room].ljust(room, b"\0")
        packet = packets.ip(self.source, self.destination, body, protocol=self.number)
        return packets.ethernet(to, by, packet)

    def _upper_header(self) -> bytes:
        if self.upper is Upper.TCP:
            numbers, flags = ((1, 2), _SYN_ACK) if self.is_answer else ((1, 0), _SYN)
            return struct.pack("!HHIIBBHxxxx", *self.ports, *numbers, 5 << 4, flags, 65535)
        if self.upper is Upper.UDP:
            return packets.udp(*self.ports, b"")
        kinds = _ECHO_REPLY if self.is_answer else _ECHO
        return struct.pack("!BBxxHH", kinds[self.version], 0, 1, 1)

    def question(self, hop: IPAddress, *, by: bytes) -> bytes:
        """A frame that asks for the MAC address of a neighbour."""
        asker = Party(by, self.source)
        if hop.version == 6:
            return packets.solicitation(asker, hop)
        return packets.arp(packets.BROADCAST_MAC, packets.ARP_REQUEST, asker, Party(bytes(6), hop))


def smallest(upper: Upper, version: int) -> int:
    """Bytes of the IP packet if the caller does not say it."""
    return max(upper.headers(version), _SMALL)


class Heads(NamedTuple):
    """What tells a packet from others.

    Attributes:
        addresses: Its addresses; None: it has none that can be understood, and the others are 0 and empty.
        protocol: Number of what it carries; 0: ARP.
        ports: Its ports, or its ICMP type, packed.
        length: Its bytes, as its IP header says.
    """

    addresses: Addresses | None
    protocol: int = 0
    ports: bytes = b""
    length: int = 0


def heads_of(frame: bytes) -> Heads:
    """What tells the packet in a frame from others."""
    found, packet = addresses_in(frame), frame[_ETHERNET:]
    if found is None or frame[12:14] == _ARP.to_bytes(2, "big"):
        return Heads(found)
    if found.source.version == 4:
        at, protocol, length = (packet[0] & 0xF) * 4, packet[9], int.from_bytes(packet[2:4], "big")
    else:
        at, protocol, length = 40, packet[6], 40 + int.from_bytes(packet[4:6], "big")
    if protocol == _TCP:  # the sender's half has the beginning of one that is longer
        length = min(length, SUPER_PACKET)
    return Heads(found, protocol, packet[at : at + (4 if protocol in _WITH_PORTS else 1)], length)


class Addresses(NamedTuple):
    """Addresses in a frame."""

    source: IPAddress
    destination: IPAddress


def addresses_in(frame: bytes) -> Addresses | None:
    """Source and destination of the IP packet or ARP question in a frame; None: it has none that can be understood."""
    (ethertype,) = struct.unpack_from("!H", frame, 12)
    body = frame[_ETHERNET:]
    if ethertype == _IPV4 and len(body) >= 20:
        return Addresses(ipaddress.IPv4Address(body[12:16]), ipaddress.IPv4Address(body[16:20]))
    if ethertype == _IPV6 and len(body) >= 40:
        return Addresses(ipaddress.IPv6Address(body[8:24]), ipaddress.IPv6Address(body[24:40]))
    if ethertype == _ARP and len(body) >= 28:
        return Addresses(ipaddress.IPv4Address(body[14:18]), ipaddress.IPv4Address(body[24:28]))
    return None


def has_extension(frame: bytes) -> bool:
    """Whether an extension header follows the fixed header of the IPv6 packet in a frame, which has that."""
    return frame[12:14] == _IPV6.to_bytes(2, "big") and frame[_ETHERNET + 6] in _EXTENSIONS
