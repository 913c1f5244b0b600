# SPDX-License-Identifier: Apache-2.0
"""Frames that are too long: as they are, and those that are to be cut into segments that would be."""

from __future__ import annotations

import os

from mizarnet import Verdict
from tests.frames import (
    ACK,
    HEADER_BYTES,
    TCP,
    UDP,
    VIRTUAL,
    datagram,
    frame,
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
    """Super-frames whose segments are longer than the tunnel's packets."""
    mtu = mtu_of(facts)
    return [
        super_frame(facts, *way, segment=segment, size=facts.random.randrange(segment + 1, LONGEST))
        for way in _ways(facts)
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


FRAMES: dict[str, Kind] = {"too long frames": long_frames}
SUPER_FRAMES: dict[str, Kind] = {
    "super-frames with too long segments": long_segments,
    "super-frames from others": super_frames_from_others,
}
