# SPDX-License-Identifier: Apache-2.0
"""Tunnel packets from a peer whose VNI or inner frame is not one for the endpoint it aims at."""

from __future__ import annotations

import random
from collections.abc import Iterator

from mizarnet import Verdict
from tests.frames import (
    ADVERTISEMENT,
    BROADCAST,
    ICMPV6,
    REDIRECT,
    ROUTER_ADVERTISEMENT,
    SOLICITATION,
    TARGET_MAC,
    TYPE_ARP,
    VIRTUAL,
    arp,
    datagram,
    ethernet,
    frame,
    ipv4,
    ipv6,
    link_option,
    neighbour,
    tagged,
    udp,
)
from tests.support.wire import STRANGER, STRANGERS_IP, Kind, Packet, Wire
from tests.world import BLUE, GREEN, RED

LARGEST_VNI = (1 << 24) - 1
VLAN_TAGS = (0x8100, 7), (0x8100, 0xE000), (0x88A8, 7), (0x9100, 7)
SHORT = range(61)
"""Lengths of cut frames."""


# -- the VNI -----------------------------------------------------------------------------------------------


def another_tenants_vni(wire: Wire) -> Iterator[Packet]:
    """The address exists in the blue and the green VNI; the MAC is the blue endpoint's."""
    yield wire.packet(Verdict.NO_DESTINATION, wire.legal(wire.net.blue1), vni=RED)
    yield wire.packet(Verdict.NO_DESTINATION, wire.legal(wire.net.blue2), vni=GREEN)
    yield wire.packet(Verdict.NO_DESTINATION, wire.legal(wire.net.red1), vni=BLUE)


def random_vnis(wire: Wire) -> Iterator[Packet]:
    for vni in random.Random(1).sample(range(RED + 1, LARGEST_VNI + 1), 1024):
        yield wire.packet(Verdict.NO_DESTINATION, wire.legal(wire.net.blue1), vni=vni)


def vni_zero(wire: Wire) -> Iterator[Packet]:
    yield wire.packet(Verdict.NO_DESTINATION, wire.legal(wire.net.blue1), vni=0)


# -- to whom -----------------------------------------------------------------------------------------------


def multicast(wire: Wire) -> Iterator[Packet]:
    """Frames that the tunnel would clone to every endpoint of every tenant."""
    to = wire.net.blue1
    for mac in (BROADCAST, b"\x01\x00\x5e\x00\x00\x01", b"\x33\x33\x00\x00\x00\x01", b"\x03" + to.mac[1:]):
        frame = datagram(STRANGER, STRANGERS_IP, to.ip, destination_mac=mac)
        yield wire.packet(Verdict.MULTICAST, frame)
    for address in ("255.255.255.255", "224.0.0.1", "239.255.255.255"):
        frame = datagram(STRANGER, STRANGERS_IP, address, destination_mac=to.mac)
        yield wire.packet(Verdict.MULTICAST, frame)
    yield wire.packet(
        Verdict.MULTICAST, ipv6_frame("ff02::1", 17, udp(9, 9, b"frame"), destination_mac=to.mac)
    )


def the_tunnels_mac(wire: Wire) -> Iterator[Packet]:
    for container in (wire.net.blue1, wire.net.red1):
        frame = datagram(STRANGER, STRANGERS_IP, container.ip, destination_mac=wire.tunnel_mac)
        yield wire.packet(Verdict.TUNNEL_MAC, frame, vni=container.endpoint.vni)


# -- from whom ---------------------------------------------------------------------------------------------


def an_endpoint_of_this_host(wire: Wire) -> Iterator[Packet]:
    to, other = wire.net.blue1, wire.net.blue2
    for mac, address in ((other.mac, other.ip), (STRANGER, other.ip), (STRANGER, to.ip), (to.mac, to.ip)):
        frame = datagram(mac, address, to.ip, destination_mac=to.mac)
        yield wire.packet(Verdict.SOURCE_IS_LOCAL, frame)


def the_tunnel_itself(wire: Wire) -> Iterator[Packet]:
    """The kernel takes what comes from the tunnel's own MAC for a loop."""
    to = wire.net.blue1
    yield wire.packet(None, datagram(wire.tunnel_mac, STRANGERS_IP, to.ip, destination_mac=to.mac))


# -- neighbour resolution ----------------------------------------------------------------------------------


def neighbour_resolution(wire: Wire) -> Iterator[Packet]:
    """Questions and answers that would put the attacker into a neighbour table; agents do not ask."""
    to, other = wire.net.blue1, wire.net.blue3
    for mac in (to.mac, BROADCAST, VIRTUAL, wire.tunnel_mac):
        for operation in (1, 2):
            question = arp(STRANGER, other.ip, to.ip, operation=operation, target_mac=to.mac)
            yield wire.packet(Verdict.BAD_ARP, ethernet(mac, STRANGER, TYPE_ARP, question))
    for mac in (to.mac, b"\x33\x33\x00\x00\x00\x01"):
        for kind in (SOLICITATION, ADVERTISEMENT, ROUTER_ADVERTISEMENT, REDIRECT):
            message = bytes([kind, 0, 0, 0]) + neighbour("fe80::1", link_option(TARGET_MAC, STRANGER))
            yield wire.packet(Verdict.BAD_ND, ipv6_frame("ff02::1", ICMPV6, message, destination_mac=mac))


# -- other bytes -------------------------------------------------------------------------------------------


def vlan_tags(wire: Wire) -> Iterator[Packet]:
    """One, two and three, of all kinds: the kernel keeps the first beside the frame, if it knows the kind."""
    frame = wire.legal(wire.net.blue1)
    for first in VLAN_TAGS:
        for rest in ((), VLAN_TAGS[:1], (VLAN_TAGS[2], VLAN_TAGS[0])):
            yield wire.packet(Verdict.VLAN_TAGGED, tagged(frame, first, *rest))


def foreign_protocols(wire: Wire) -> Iterator[Packet]:
    """Spanning tree, LLDP, MPLS, PPPoE, jumbo LLC, the experimental type, a loopback test."""
    to = wire.net.blue1.mac
    for ethertype in (0x0026, 0x88CC, 0x8847, 0x8864, 0x8870, 0x88B5, 0x9000):
        yield wire.packet(Verdict.UNKNOWN_ETHERTYPE, ethernet(to, STRANGER, ethertype, bytes(46)))


def cut_frames(wire: Wire) -> Iterator[Packet]:
    """Each length from nothing on."""
    to = wire.net.blue1.mac
    body = udp(9, 9, bytes(64))
    whole = {
        (34, Verdict.BAD_IPV4): frame(to, STRANGER, ipv4(STRANGERS_IP, wire.net.blue1.ip, body)),
        (54, Verdict.BAD_IPV6): ipv6_frame("fd00::1", 17, body, destination_mac=to),
        (14, Verdict.BAD_ARP): ethernet(
            to, STRANGER, TYPE_ARP, arp(STRANGER, STRANGERS_IP, "10.0.0.1") + bytes(19)
        ),
    }
    for (headers, verdict), made in whole.items():
        for length in SHORT:
            yield wire.packet(Verdict.TRUNCATED if length < headers else verdict, made[:length])


def ipv6_frame(destination: str, protocol: int, body: bytes, *, destination_mac: bytes) -> bytes:
    """A whole frame from a stranger."""
    packet = ipv6("fe80::99", destination, body, protocol=protocol, hops=255)
    return frame(destination_mac, STRANGER, packet)


KINDS: dict[str, Kind] = {
    "the VNI of another tenant": another_tenants_vni,
    "random VNIs": random_vnis,
    "VNI 0": vni_zero,
    "multicast and broadcast": multicast,
    "to the tunnel's own MAC": the_tunnels_mac,
    "from an endpoint of this host": an_endpoint_of_this_host,
    "from the tunnel's own MAC": the_tunnel_itself,
    "ARP and neighbour discovery": neighbour_resolution,
    "VLAN tags": vlan_tags,
    "protocols that are not IP": foreign_protocols,
    "cut at each length": cut_frames,
}
