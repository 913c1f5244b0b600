# SPDX-License-Identifier: Apache-2.0
"""Frames that are too long: as they are, and those that are to be cut into segments that would be."""

from __future__ import annotations

import os

from mizarnet import Verdict
from tests.frames import (
    ACK,
    HEADER_BYTES,
    ICMP,
    ICMPV6,
    TCP,
    UDP,
    VIRTUAL,
    datagram,
    fragment,
    frame,
    ipv4,
    ipv6,
    link_local,
    packet,
    patched,
    pseudo_sum,
    tcp,
    u16,
    udp,
)
from tests.netns.hostile.endpoint.trial import VARIANTS, Facts, Kind, Shot
from tests.support.vmm import NEEDS_CHECKSUM, TCPV4, VirtioHeader

TCPV6, UDP_L4 = 4, 5  # <linux/virtio_net.h>
TCP_HEADER, UDP_HEADER = 20, 8
LONGEST = 20_000
DONT_FRAGMENT = 0x4000
ETHERNET = 14


def mtu_of(facts: Facts) -> int:
    """The tunnel's, and so the longest packet that an endpoint may send."""
    return facts.hood.first.tunnel.mtu


def long_frames(facts: Facts) -> list[Shot]:
    """From one byte more than there is room for."""
    room = mtu_of(facts) - HEADER_BYTES[4] - UDP_HEADER
    sizes = [
        *range(1, 20),
        *(facts.random.randrange(20, LONGEST) for _ in range(VARIANTS // 2)),
        65_507 - room,
    ]
    frames = (
        datagram(facts.mac, facts.ip, to.ip, destination_mac=to.mac, payload=bytes(room + extra))
        for extra in sizes
        for to in (facts.hood.near, facts.hood.far)
    )
    return [Shot(Verdict.OVERSIZED, frame) for frame in frames]


def long_frames_of_others(facts: Facts) -> list[Shot]:
    """From one byte more than there is room for, in victims' names: an answer would be to them."""
    victims = (facts.hood.near, facts.hood.far, facts.hood.other, facts.hood.other_far)
    packets = (
        _whole(*addresses, mtu_of(facts) + facts.random.choice((1, 2, 50, facts.random.randrange(3, 8000))))
        for victim in victims
        for addresses in ((victim.ip, facts.hood.near.ip), (victim.ipv6, facts.hood.near.ipv6))
        for _ in range(VARIANTS // 8)
        if addresses[0] not in (facts.ip, facts.ipv6)
    )
    return [Shot(Verdict.OVERSIZED, frame(VIRTUAL, facts.mac, each)) for each in packets]


def long_frames_without_an_answer(facts: Facts) -> list[Shot]:
    """From its own addresses: errors, later fragments, neighbour discovery, and to groups."""
    size, to, to_ipv6 = mtu_of(facts) + 1, facts.hood.near.ip, facts.hood.near.ipv6
    packets = [
        *(_whole(facts.ip, to, size, protocol=ICMP, start=bytes([kind, 0])) for kind in (0, 3, 4, 5, 11, 12)),
        *(_whole(facts.ipv6, to_ipv6, size, protocol=ICMPV6, start=bytes([kind, 0])) for kind in range(1, 5)),
        *(
            _whole(facts.ipv6, to_ipv6, size, protocol=ICMPV6, start=bytes([kind, 0]))
            for kind in range(134, 138)
        ),
        *(_whole(facts.ip, to, size, flags=DONT_FRAGMENT | offset) for offset in (1, 185, 0x1FFF)),
        ipv6(facts.ipv6, to_ipv6, bytes(size), headers=[fragment(1, more=True)]),
        _whole(facts.ip, "224.0.0.9", size),
        _whole(facts.ip, "255.255.255.255", size),
        _whole(facts.ipv6, "ff02::9", size),
        _whole(link_local(facts.mac), to_ipv6, size),
    ]
    return [Shot(Verdict.OVERSIZED, frame(VIRTUAL, facts.mac, each)) for each in packets]


def told_frames(facts: Facts) -> list[bytes]:
    """From its own addresses, so that it is told as often as anybody may be."""
    ways = ((facts.ip, facts.hood.near.ip), (facts.ipv6, facts.hood.far.ipv6))
    return [
        frame(VIRTUAL, facts.mac, _whole(*way, mtu_of(facts) + extra))
        for way in ways
        for extra in range(1, 30)
    ]


def _whole(
    source: str, to: str, size: int, *, protocol: int = UDP, start: bytes = b"", flags: int = DONT_FRAGMENT
) -> bytes:
    """A packet of that size that may not be fragmented."""
    if ":" in source:
        return ipv6(source, to, start.ljust(size - HEADER_BYTES[6], b"\0"), protocol=protocol)
    return ipv4(source, to, start.ljust(size - HEADER_BYTES[4], b"\0"), protocol=protocol, flags=flags)


def super_frame(facts: Facts, kind: int, source: str, destination: str, *, segment: int, size: int) -> Shot:
    """``size`` bytes of data, to be cut into segments of ``segment`` each."""
    is_tcp = kind != UDP_L4
    protocol = TCP if is_tcp else UDP
    length = (TCP_HEADER if is_tcp else UDP_HEADER) + size
    seed = pseudo_sum(source, destination, protocol, length)
    start = (
        tcp(1, 2, ACK, check=seed) if is_tcp else patched(udp(9, 9, bytes(size)), 6, u16(seed))[:UDP_HEADER]
    )
    at = ETHERNET + HEADER_BYTES[6 if ":" in source else 4]
    header = VirtioHeader(NEEDS_CHECKSUM, kind, at + len(start), segment, at, 16 if is_tcp else 6)
    made = packet(source, destination, start + bytes(size), protocol=protocol)
    return Shot(Verdict.OVERSIZED, frame(VIRTUAL, facts.mac, made), header)


def _ways(facts: Facts) -> list[tuple[int, str, str]]:
    """Kinds of segmentation with addresses of their family: the sender's, and that of a neighbour."""
    four, six = facts.hood.far.ip, facts.hood.far.ipv6
    ways = [(TCPV4, facts.ip, four), (TCPV6, facts.ipv6, six)]
    major, minor = map(int, os.uname().release.split(".")[:2])
    if (major, minor) >= (6, 2):  # before, no sender could ask for segments of UDP
        ways += [(UDP_L4, facts.ip, four), (UDP_L4, facts.ipv6, six)]
    return ways


def long_segments(facts: Facts) -> list[Shot]:
    """Super-frames whose segments are longer than the tunnel's packets: fragmentable ones, or in a victim's name."""
    mtu, near = mtu_of(facts), facts.hood.near
    ways = [(kind, near.ipv6 if ":" in source else source, to) for kind, source, to in _ways(facts)]
    return [
        super_frame(facts, *way, segment=segment, size=facts.random.randrange(segment + 1, LONGEST))
        for way in ways
        for segment in (mtu - 27, mtu, *(facts.random.randrange(mtu, 9000) for _ in range(VARIANTS // 5)))
    ]


def super_frames_from_others(facts: Facts) -> list[Shot]:
    """Super-frames in the names of others."""
    victims = [facts.hood.near, facts.hood.other_far]
    shots = []
    for kind, source, destination in _ways(facts):
        for victim in victims:
            foreign = victim.ipv6 if ":" in source else victim.ip
            for _ in range(VARIANTS // 8):
                segment = facts.random.randrange(500, 1300)
                size = facts.random.randrange(segment + 1, LONGEST)
                made = super_frame(facts, kind, foreign, destination, segment=segment, size=size)
                shots.append(Shot(Verdict.FOREIGN_SOURCE, made.frame, made.header))
    return shots


FRAMES: dict[str, Kind] = {
    "too long frames": long_frames,
    "too long frames in others' names": long_frames_of_others,
    "too long frames that are not answered": long_frames_without_an_answer,
}
SUPER_FRAMES: dict[str, Kind] = {
    "super-frames with too long segments": long_segments,
    "super-frames from others": super_frames_from_others,
}
