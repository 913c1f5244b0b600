# SPDX-License-Identifier: Apache-2.0
"""Frames of the wrong shape: tagged, cut short, of no known kind, and for everybody at once."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Iterator

from mizarnet import Verdict
from tests.frames import (
    ADVERTISEMENT,
    BROADCAST,
    DESTINATION_OPTIONS,
    HOP_BY_HOP,
    TYPE_ARP,
    TYPE_IPV4,
    TYPE_IPV6,
    UDP,
    VIRTUAL,
    arp,
    datagram,
    ethernet,
    extension,
    frame,
    icmp,
    icmpv6,
    ip,
    ipv4,
    ipv6,
    link_local,
    neighbour,
    patched,
    summed,
    tagged,
    u16,
    udp,
)
from tests.netns.hostile.endpoint.trial import VARIANTS, Facts, Kind, Shot

TAGS = (0x8100, 0x88A8, 0x9100)


def legal(facts: Facts) -> list[bytes]:
    """What the sender may send: to its neighbours, of both families."""
    hood, frames = facts.hood, []
    for to in (hood.near, hood.far):
        for mac in (to.mac, VIRTUAL):
            frames.append(datagram(facts.mac, facts.ip, to.ip, destination_mac=mac))
            frames.append(datagram(facts.mac, facts.ipv6, to.ipv6, destination_mac=mac))
    return frames


# -- tags --------------------------------------------------------------------------------------------------


def vlan_tags(facts: Facts) -> list[Shot]:
    """One, two or three tags of every kind in every order, priority tags, on legal frames and on forged ones."""
    kinds = [kinds for number in (1, 2, 3) for kinds in itertools.product(TAGS, repeat=number)]
    forged = datagram(facts.hood.other.mac, facts.hood.other.ip, "10.0.0.5", destination_mac=BROADCAST)
    frames = [*legal(facts), forged, datagram(facts.mac, facts.ip, "192.0.2.1", destination_mac=BROADCAST)]
    shots = []
    while len(shots) < VARIANTS:
        for stack in kinds:
            priority = facts.random.randrange(8) << 13
            numbers = (0, 1, 7, 8, 4095, facts.random.randrange(4096))
            tags = [(kind, priority | facts.random.choice(numbers)) for kind in stack]
            shots.append(Shot(Verdict.VLAN_TAGGED, tagged(facts.random.choice(frames), *tags)))
    return shots


# -- cut short ---------------------------------------------------------------------------------------------


def cut_headers(facts: Facts) -> list[Shot]:
    """Every length from the bare Ethernet header to where the headers that are read would be whole."""
    six, frames = _chained(facts), []
    for to in (facts.hood.near, facts.hood.far):
        four = datagram(facts.mac, facts.ip, to.ip, destination_mac=to.mac)
        forged = datagram(facts.any_mac(), to.ip, facts.hood.other_far.ip, destination_mac=VIRTUAL)
        question = ethernet(BROADCAST, facts.mac, TYPE_ARP, arp(facts.mac, facts.ip, to.ip))
        for whole, headers in ((four, 34), (forged, 34), (six, 54), (question, 42)):
            frames += [whole[:length] for length in range(14, headers)]
    # The packet ends in its first extension header or at the beginning of the second, and says so.
    frames += [patched(six, 18, u16(size))[: 54 + size] for size in range(12)]
    return [Shot(Verdict.TRUNCATED, frame) for frame in frames]


def _chained(facts: Facts) -> bytes:
    """An IPv6 frame with extension headers before its UDP."""
    to = facts.hood.near.ipv6
    packed = summed(facts.ipv6, to, UDP, udp(9, 9, bytes(40)))
    headers = (extension(HOP_BY_HOP), extension(DESTINATION_OPTIONS))
    return frame(VIRTUAL, facts.mac, ipv6(facts.ipv6, to, packed, headers=headers))


def cut_packets(facts: Facts) -> list[Shot]:
    """Packets that end anywhere before the length in their header."""
    shots = []
    for whole in (_chained(facts), *legal(facts)):
        verdict, start = (Verdict.BAD_IPV4, 34) if whole[12:14] == b"\x08\x00" else (Verdict.BAD_IPV6, 54)
        shots += [Shot(verdict, whole[:length]) for length in range(start, len(whole))]
    return shots


def wrong_headers(facts: Facts) -> list[Shot]:
    """Versions, header lengths and packet lengths that cannot be."""
    near, six = facts.hood.near, _chained(facts)

    def frames() -> Iterator[Shot]:
        while True:
            data = facts.random.randbytes(facts.random.randrange(100))
            four = datagram(facts.mac, facts.ip, near.ip, destination_mac=near.mac, payload=data)
            version = facts.random.choice([number for number in range(16) if number != 4])
            yield Shot(Verdict.BAD_IPV4, patched(four, 14, bytes([version << 4 | 5])))
            yield Shot(Verdict.BAD_IPV4, patched(four, 14, bytes([0x40 | facts.random.randrange(5)])))
            total = facts.random.choice((0, 1, 19, len(four) - 13, 1500, 0xFFFF))
            yield Shot(Verdict.BAD_IPV4, patched(four, 16, u16(total)))
            version = facts.random.choice([number for number in range(16) if number != 6])
            label = facts.random.randbytes(2)
            yield Shot(Verdict.BAD_IPV6, patched(six, 14, bytes([version << 4, 0]) + label))
            length = facts.random.choice((0, len(six) - 53, 1500, 0xFFFF))
            yield Shot(Verdict.BAD_IPV6, patched(six, 16, label + u16(length)))

    return list(itertools.islice(frames(), VARIANTS))


def too_many_headers(facts: Facts) -> list[Shot]:
    """More IPv6 extension headers than anybody needs, with a lie about a neighbour behind them."""
    near = facts.hood.near
    to = near.ipv6
    lie = icmpv6(facts.ipv6, to, ADVERTISEMENT, neighbour(to, flags=0xA0000000))

    def frames() -> Iterator[bytes]:
        while True:
            chain = [
                extension(facts.random.choice((HOP_BY_HOP, DESTINATION_OPTIONS)))
            ] * facts.random.randrange(7, 30)
            packet = ipv6(facts.ipv6, to, lie, protocol=58, hops=255, headers=chain)
            yield frame(near.mac, facts.mac, packet + facts.random.randbytes(facts.random.randrange(20)))
            units = facts.random.randrange(16, 120)
            chain = [extension(DESTINATION_OPTIONS, units), extension(DESTINATION_OPTIONS)]
            packet = ipv6(facts.ipv6, to, lie, protocol=58, hops=255, headers=chain)
            yield frame(near.mac, facts.mac, packet)

    return [Shot(Verdict.EXTENSION_HEADERS, frame) for frame in itertools.islice(frames(), VARIANTS)]


# -- of no known kind --------------------------------------------------------------------------------------


def unknown_ethertypes(facts: Facts) -> list[Shot]:
    """Random ones, IEEE 802.3 lengths, and those that devices and switches act on."""
    # Local traffic of bridges, authentication, MPLS, PPPoE, loopback, MACsec, time, LLDP, RARP, FCoE, TRILL, ERSPAN
    famous = (0x22F3, 0x888E, 0x8847, 0x8848, 0x8863, 0x8864, 0x9000, 0x88E5, 0x88F7, 0x88CC, 0x8035, 0x8906)
    lengths = (0, 3, 38, 46, 1500, 0x05FF)
    known = {TYPE_IPV4, TYPE_ARP, TYPE_IPV6, *TAGS}
    drawn = {facts.random.randrange(0x600, 0x10000) for _ in range(VARIANTS)} - known
    groups = (
        bytes.fromhex("0180c2000000"),
        bytes.fromhex("0180c200000e"),
        BROADCAST,
        facts.hood.near.mac,
        VIRTUAL,
    )
    shots = []
    for ethertype in (*famous, *lengths, 0x88BE, 0x6558, 0x9200, 0x9300, *sorted(drawn)):
        payload = (
            facts.random.randbytes(46) if ethertype % 2 else ipv4(facts.ip, "10.0.0.2", udp(9, 9, b"x" * 20))
        )
        shots.append(
            Shot(
                Verdict.UNKNOWN_ETHERTYPE,
                ethernet(facts.random.choice(groups), facts.mac, ethertype, payload),
            )
        )
    return shots


# -- for everybody -----------------------------------------------------------------------------------------


def _group_mac(address: str) -> bytes:
    if ":" in address:
        return b"\x33\x33" + ip(address)[12:]
    packed = ip(address)
    return BROADCAST if packed[3] == 255 else b"\x01\x00\x5e" + bytes([packed[1] & 127]) + packed[2:]


def storms(facts: Facts) -> list[Shot]:
    """Broadcasts and groups of both families, in frames for the group, for all, and for one neighbour."""
    groups = ("255.255.255.255", "10.0.0.255", "224.0.0.1", "224.0.0.2", "224.0.0.251", "239.255.255.250")
    groups6 = ("ff02::1", "ff02::2", "ff02::fb", "ff02::1:2", "ff05::2", "ff0e::1234", "ff01::1")
    one = (BROADCAST, facts.hood.near.mac, facts.hood.other.mac, VIRTUAL)
    frames = []
    while len(frames) < VARIANTS - 50:
        data = facts.random.randbytes(facts.random.randrange(1, 400))
        for group in groups:
            # To a single MAC, the broadcast address of a network is an address like any other.
            macs = (_group_mac(group), BROADCAST, *(one if group != "10.0.0.255" else ()))
            frames.append(
                datagram(facts.mac, facts.ip, group, destination_mac=facts.random.choice(macs), payload=data)
            )
        for group in groups6:
            mac = facts.random.choice((_group_mac(group), *one))
            source = facts.random.choice((facts.ipv6, link_local(facts.mac), "::"))
            frames.append(datagram(facts.mac, source, group, destination_mac=mac, payload=data))
    for to in (facts.hood.near, facts.hood.far, facts.hood.other_far):
        frames.append(datagram(facts.mac, facts.ip, to.ip, destination_mac=BROADCAST))
        frames.append(datagram(facts.mac, facts.ipv6, to.ipv6, destination_mac=BROADCAST))
    frames += [*_memberships(facts), *_solicitations(facts)]
    return [Shot(Verdict.MULTICAST, frame) for frame in frames]


def _memberships(facts: Facts) -> Iterator[bytes]:
    """IGMP: questions, reports and departures."""
    for kind in (0x11, 0x12, 0x16, 0x17, 0x22):
        for group in ("224.0.0.1", "224.0.0.2", "224.0.0.22", "239.1.2.3"):
            message = icmp(kind, ip(group), code=1)  # the same layout
            packet = ipv4(facts.ip, group, message, protocol=socket.IPPROTO_IGMP, hops=1)
            yield frame(_group_mac(group), facts.mac, packet)


def _solicitations(facts: Facts) -> Iterator[bytes]:
    """Multicast listener questions and reports, and the search for routers."""
    for kind in (130, 131, 132, 143, 133):
        for source in (link_local(facts.mac), facts.ipv6, "::"):
            for group in ("ff02::1", "ff02::2", "ff02::16"):
                message = icmpv6(source, group, kind, bytes(20))
                packet = ipv6(source, group, message, protocol=58, hops=255 if kind == 133 else 1)
                yield frame(_group_mac(group), facts.mac, packet)


KINDS: dict[str, Kind] = {
    "VLAN tags": vlan_tags,
    "headers cut short": cut_headers,
    "packets cut short": cut_packets,
    "wrong headers": wrong_headers,
    "too many extension headers": too_many_headers,
    "unknown ethertypes": unknown_ethertypes,
    "storms": storms,
}
