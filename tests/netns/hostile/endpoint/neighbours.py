# SPDX-License-Identifier: Apache-2.0
"""Lies about who has which address: ARP, neighbour discovery, and the words of routers."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from functools import partial
from ipaddress import IPv6Address

from mizarnet import Verdict
from tests.frames import (
    ADVERTISEMENT,
    BROADCAST,
    DESTINATION_OPTIONS,
    HOP_BY_HOP,
    ICMPV6,
    REDIRECT,
    ROUTER_ADVERTISEMENT,
    ROUTING,
    SOLICITATION,
    SOURCE_MAC,
    TARGET_MAC,
    TYPE_ARP,
    VIRTUAL,
    Header,
    arp,
    ethernet,
    extension,
    fragment,
    frame,
    icmpv6,
    ip,
    ipv6,
    link_local,
    link_option,
    neighbour,
    patched,
    u16,
)
from tests.netns.hostile.endpoint.trial import VARIANTS, Facts, Kind, Shot
from tests.world import TUNNEL, mac_of

REQUEST, REPLY = 1, 2
ALL_NODES, ALL_NODES_MAC = "ff02::1", bytes.fromhex("333300000001")
NONCE = 14
OVERRIDE = 0xA0000000  # from a router, to be believed over what is known


def _until_enough(shots: Iterator[Shot]) -> list[Shot]:
    """The first few hundred of what goes on for ever."""
    return [shot for shot, _ in zip(shots, range(VARIANTS), strict=False)]


# -- ARP ---------------------------------------------------------------------------------------------------


def _arp_frame(facts: Facts, message: bytes) -> bytes:
    """To everybody, to a neighbour, to the tunnel."""
    to = (BROADCAST, facts.hood.near.mac, facts.hood.other.mac, VIRTUAL, _mac_of_tunnel(facts))
    return ethernet(facts.random.choice(to), facts.mac, TYPE_ARP, message)


def _mac_of_tunnel(facts: Facts) -> bytes:
    """Of the sender's host."""
    return mac_of(facts.hood.first.namespace, TUNNEL)


def _others(facts: Facts) -> list[str]:
    """The victims' addresses, a gateway's, a host's, and some that nobody has."""
    anybody = {f"10.0.0.{facts.random.randrange(20, 250)}" for _ in range(40)}
    victims = {victim.ip for victim in facts.hood.victims}
    return sorted({*victims, "10.0.0.254", "192.0.2.1", *anybody} - {facts.ip})


def arp_in_others_names(facts: Facts) -> list[Shot]:
    """Requests, announcements, and questions without a sender for what belongs to others."""
    others = _others(facts)

    def frames() -> Iterator[bytes]:
        while True:
            other, asked = facts.random.choice(others), facts.random.choice(others)
            for sender, target in ((other, asked), (other, other), (other, facts.ip), ("0.0.0.0", other)):
                yield _arp_frame(facts, arp(facts.mac, sender, target))

    return _until_enough(Shot(Verdict.ARP_SPOOFED, frame) for frame in frames())


def arp_with_anothers_mac(facts: Facts) -> list[Shot]:
    """The own address, and others', with the MAC of somebody else inside."""
    macs = [victim.mac for victim in facts.hood.victims] + [VIRTUAL, BROADCAST, bytes(6), facts.any_mac()]
    others = _others(facts)

    def frames() -> Iterator[bytes]:
        while True:
            mac, asked = facts.random.choice(macs), facts.random.choice(others)
            for sender, target in ((facts.ip, asked), (facts.ip, facts.ip), (asked, facts.ip)):
                yield _arp_frame(facts, arp(mac, sender, target))

    return _until_enough(Shot(Verdict.ARP_SPOOFED, frame) for frame in frames())


def arp_replies(facts: Facts) -> list[Shot]:
    """Answers that nobody asked for, in anybody's name, and operations that do not exist."""
    others = _others(facts)

    def frames() -> Iterator[bytes]:
        while True:
            other = facts.random.choice(others)
            mac = facts.random.choice((facts.mac, facts.hood.near.mac))
            for operation in (REPLY, REPLY, 3, 4, 8, 9, 0):
                message = arp(
                    mac, other, facts.hood.near.ip, operation=operation, target_mac=facts.hood.near.mac
                )
                yield _arp_frame(facts, message)

    return _until_enough(Shot(Verdict.BAD_ARP, frame) for frame in frames())


# -- neighbour discovery -----------------------------------------------------------------------------------


def solicitation(target: str, mac: bytes) -> tuple[int, bytes]:
    """Who has the target? The asker says that it is at ``mac``."""
    return SOLICITATION, neighbour(target, link_option(SOURCE_MAC, mac))


def advertisement(target: str, mac: bytes) -> tuple[int, bytes]:
    """The target is at ``mac``."""
    return ADVERTISEMENT, neighbour(target, link_option(TARGET_MAC, mac), flags=OVERRIDE)


def router(prefix: str, mac: bytes) -> tuple[int, bytes]:
    """The way out leads over ``mac``, for 30 minutes, and this prefix is here."""
    start = struct.pack("!BBHII", 64, 0, 1800, 0, 0)
    information = struct.pack("!BBBBIII", 3, 4, 64, 0xC0, 86400, 86400, 0) + ip(prefix)
    return ROUTER_ADVERTISEMENT, start + link_option(SOURCE_MAC, mac) + information


def redirect(target: str, destination: str, mac: bytes) -> tuple[int, bytes]:
    """The way to the destination leads over the target, which is at ``mac``."""
    return REDIRECT, neighbour(target, ip(destination) + link_option(TARGET_MAC, mac))


def nd_frame(
    facts: Facts,
    message: tuple[int, bytes],
    *,
    source: str = "",
    hops: int = 255,
    code: int = 0,
    headers: Sequence[Header] = (),
) -> bytes:
    """A message to a neighbour or to all nodes, from the own address or the own link-local one."""
    source = source or facts.random.choice((facts.ipv6, link_local(facts.mac)))
    near = facts.hood.near
    to, mac = facts.random.choice(((near.ipv6, near.mac), (ALL_NODES, ALL_NODES_MAC), (near.ipv6, VIRTUAL)))
    packed = icmpv6(source, to, *message, code=code)
    packet = ipv6(source, to, packed, protocol=ICMPV6, hops=hops, headers=headers)
    return frame(mac, facts.mac, packet)


def _lies(facts: Facts) -> Iterator[tuple[int, bytes]]:
    """Every message that would make a victim believe something wrong, over and over."""
    victims = [victim.ipv6 for victim in facts.hood.victims]
    macs = [*(victim.mac for victim in facts.hood.victims), VIRTUAL, facts.mac, facts.any_mac()]
    while True:
        victim, other, mac = (
            facts.random.choice(victims),
            facts.random.choice(victims),
            facts.random.choice(macs),
        )
        wrong = mac if mac != facts.mac else VIRTUAL
        yield advertisement(victim, mac)
        yield solicitation(victim, wrong)
        yield router("2001:db8:bad::", mac)
        yield redirect(victim, other, mac)
        yield redirect(facts.ipv6, other, mac)


def nd_in_others_names(facts: Facts) -> list[Shot]:
    """Advertisements, solicitations with another's MAC, router advertisements and redirects."""
    return _until_enough(Shot(Verdict.ND_SPOOFED, nd_frame(facts, lie)) for lie in _lies(facts))


def nd_from_others_addresses(facts: Facts) -> list[Shot]:
    """The same, from the addresses of the victims and of routers."""
    victims = facts.hood.victims
    sources = [*(each.ipv6 for each in victims), *(link_local(each.mac) for each in victims)]
    sources += ["fe80::1", link_local(VIRTUAL)]
    return _until_enough(
        Shot(Verdict.FOREIGN_SOURCE, nd_frame(facts, lie, source=facts.random.choice(sources)))
        for lie in _lies(facts)
    )


def nd_questions_without_a_sender(facts: Facts) -> list[Shot]:
    """The victims' addresses and those of nobody, claimed as if they were being made sure of."""
    victims = [ip(victim.ipv6) for victim in facts.hood.victims]

    def frames() -> Iterator[bytes]:
        while True:
            target = facts.random.choice((*victims, victims[0][:8] + facts.random.randbytes(8)))
            group = str(IPv6Address(b"\xff\x02" + bytes(9) + b"\x01\xff" + target[13:]))
            mac = facts.random.choice((b"\x33\x33\xff" + target[13:], facts.hood.near.mac, VIRTUAL))
            nonce = link_option(NONCE, facts.random.randbytes(6))
            packed = icmpv6("::", group, SOLICITATION, bytes(4) + target + nonce)
            packet = ipv6("::", group, packed, protocol=ICMPV6, hops=255)
            yield frame(mac, facts.mac, packet)

    return _until_enough(Shot(Verdict.ND_SPOOFED, frame) for frame in frames())


def nd_from_afar(facts: Facts) -> list[Shot]:
    """With the hop limit of what a router has passed on, or with a code that does not exist."""

    def frames() -> Iterator[bytes]:
        for lie in _lies(facts):
            yield nd_frame(facts, lie, hops=facts.random.randrange(2, 255))
            yield nd_frame(facts, lie, code=facts.random.randrange(1, 256))

    return _until_enough(Shot(Verdict.BAD_ND, frame) for frame in frames())


CHAINS: tuple[tuple[Header, ...], ...] = (
    *((extension(number),) for number in (HOP_BY_HOP, DESTINATION_OPTIONS, ROUTING)),
    (extension(HOP_BY_HOP), extension(DESTINATION_OPTIONS)),
    (extension(HOP_BY_HOP), extension(ROUTING), extension(DESTINATION_OPTIONS)),
    (extension(DESTINATION_OPTIONS),) * 6,
    (extension(HOP_BY_HOP), fragment(0, more=False)),
)


def nd_behind_extension_headers(facts: Facts) -> list[Shot]:
    """Where a filter that reads only the first header does not look."""

    def frames() -> Iterator[bytes]:
        for lie in _lies(facts):
            yield nd_frame(facts, lie, headers=facts.random.choice(CHAINS))

    return _until_enough(Shot(Verdict.BAD_ND, frame) for frame in frames())


def nd_in_fragments(facts: Facts) -> list[Shot]:
    """First fragments with all of the message, with its first bytes, or with none of it."""
    part = partial(fragment, 0, more=True)

    def frames() -> Iterator[bytes]:
        for lie in _lies(facts):
            header = part(identifier=facts.random.randrange(1 << 32))
            yield nd_frame(facts, lie, headers=(header,))
            whole = nd_frame(facts, lie, headers=(header,))
            yield _cut(whole, 62 + facts.random.randrange(0, 24))

    return _until_enough(Shot(Verdict.BAD_ND, frame) for frame in frames())


def _cut(frame: bytes, length: int) -> bytes:
    """An IPv6 packet that ends there and says so."""
    return patched(frame, 18, u16(length - 54))[:length]


KINDS: dict[str, Kind] = {
    "ARP in others' names": arp_in_others_names,
    "ARP with another's MAC": arp_with_anothers_mac,
    "ARP replies": arp_replies,
    "ND in others' names": nd_in_others_names,
    "ND from others' addresses": nd_from_others_addresses,
    "ND questions without a sender": nd_questions_without_a_sender,
    "ND from afar": nd_from_afar,
    "ND behind extension headers": nd_behind_extension_headers,
    "ND in fragments": nd_in_fragments,
}
