# SPDX-License-Identifier: Apache-2.0
"""Frames in another's name: source MACs and source addresses that are not the sender's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address

import mizarnet as mz
from mizarnet import Verdict
from tests.frames import VIRTUAL, datagram, link_local
from tests.netns.hostile.endpoint.trial import VARIANTS, Facts, Kind, Shot
from tests.world import TUNNEL, UNDERLAY, Container, mac_of


def to_everybody(facts: Facts, mac: bytes, source: str, payload: bytes = b"forged") -> Iterator[bytes]:
    """From that MAC and address to each endpoint of both tenants, by its MAC and by the agent's."""
    for victim in facts.hood.victims:
        to = victim.ipv6 if ":" in source else victim.ip
        for destination_mac in (victim.mac, VIRTUAL):
            yield datagram(mac, source, to, destination_mac=destination_mac, payload=payload)


def _varied(facts: Facts, verdict: Verdict, senders: Iterable[tuple[bytes, str]]) -> list[Shot]:
    """Those senders to everybody, again and again with other data, until there are enough."""
    known, shots = list(senders), []
    while len(shots) < VARIANTS:
        for mac, source in known:
            data = facts.random.randbytes(facts.random.randrange(1, 200))
            shots += [Shot(verdict, frame) for frame in to_everybody(facts, mac, source, data)]
    return shots


# -- MACs --------------------------------------------------------------------------------------------------


def macs_that_nobody_has(facts: Facts) -> list[Shot]:
    """Random ones, those of endpoints on the other host, the agent's virtual one, groups and zero."""
    fixed = (
        facts.hood.far.mac,
        facts.hood.other_far.mac,
        VIRTUAL,
        bytes(6),
        bytes(6 * [255]),
        bytes.fromhex("01005e000001"),
        bytes.fromhex("333300000001"),
        mac_of(facts.hood.first.namespace, UNDERLAY),
        mac_of(facts.hood.second.namespace, TUNNEL),
    )
    macs = (*fixed, *(facts.any_mac() for _ in range(VARIANTS // 16)))
    return _varied(
        facts, Verdict.UNKNOWN_SENDER, ((mac, ip) for mac in macs for ip in (facts.ip, facts.ipv6))
    )


def the_tunnels_mac(facts: Facts) -> list[Shot]:
    """That of the one device that is nobody's."""
    mac = mac_of(facts.hood.first.namespace, TUNNEL)
    return _varied(facts, Verdict.TUNNEL_OWN, ((mac, ip) for ip in (facts.ip, facts.ipv6)))


def _imitating(facts: Facts, victim: Container) -> list[Shot]:
    """With the MAC of an endpoint of the same host, and with every address that matters.

    Where the agent cannot see whose frame it is, an address that goes with the MAC is believed, as ``probe()`` says.
    The others are refused there too.
    """
    own = {victim.ip, victim.ipv6}
    addresses = {facts.ip, facts.ipv6, "10.0.0.77", "fd00::77", *own}
    if mz.probe().route_identity:
        verdict = Verdict.FOREIGN_SOCKET
    else:
        verdict, addresses = Verdict.FOREIGN_SOURCE, addresses - own
    return _varied(facts, verdict, ((victim.mac, each) for each in sorted(addresses)))


def a_neighbours_mac(facts: Facts) -> list[Shot]:
    """Of the same tenant."""
    return _imitating(facts, facts.hood.near)


def another_tenants_mac(facts: Facts) -> list[Shot]:
    """Of the endpoints next door, in another VNI."""
    hood = facts.hood
    return [shot for each in (hood.other, *hood.vms) for shot in _imitating(facts, each)]


# -- addresses ---------------------------------------------------------------------------------------------


def _foreign(facts: Facts, addresses: Iterable[object]) -> list[Shot]:
    return _varied(facts, Verdict.FOREIGN_SOURCE, ((facts.mac, str(each)) for each in addresses))


def random_ipv4(facts: Facts) -> list[Shot]:
    """From anywhere."""
    return _foreign(facts, (IPv4Address(facts.random.randbytes(4)) for _ in range(VARIANTS // 8)))


def others_ipv4(facts: Facts) -> list[Shot]:
    """From the neighbours, from the other tenant's endpoints, and from the next addresses to one's own."""
    hood, own = facts.hood, IPv4Address(facts.ip)
    everybody = {hood.sender.ip, *(victim.ip for victim in hood.victims), str(own + 20), str(own - 1)}
    return _foreign(facts, sorted({*everybody, *_further(facts, 4)} - {facts.ip}))


def special_ipv4(facts: Facts) -> list[Shot]:
    """Loopback, groups, broadcasts, zero and reserved ones."""
    return _foreign(
        facts,
        (
            *("127.0.0.1", "127.1.2.3", "224.0.0.1", "239.255.255.250", "255.255.255.255"),
            *("0.0.0.0", "0.1.2.3", "10.0.0.0", "10.0.0.255", "169.254.1.1", "240.0.0.1"),
        ),
    )


def the_hosts_ipv4(facts: Facts) -> list[Shot]:
    """The addresses of both hosts on the underlay, and others there."""
    return _foreign(facts, (*(host.address for host in facts.hood.world.hosts), "192.0.2.0", "192.0.2.99"))


def _further(facts: Facts, version: int) -> Iterator[str]:
    """Further addresses of neighbours: entries of this host, as the sender's own are."""
    for victim in facts.hood.victims:
        yield from (str(each.ip) for each in victim.endpoint.spec.further if each.version == version)


def random_ipv6(facts: Facts) -> list[Shot]:
    """From anywhere in the world, and from anywhere in the own prefix."""
    prefix = IPv6Address(facts.ipv6).packed[:8]
    return _foreign(
        facts,
        (
            IPv6Address(start + facts.random.randbytes(16 - len(start)))
            for _ in range(VARIANTS // 16)
            for start in (b"\x20", prefix)
        ),
    )


def others_ipv6(facts: Facts) -> list[Shot]:
    """From the neighbours and from the other tenant's endpoints."""
    hood = facts.hood
    everybody = {each.ipv6 for each in (hood.sender, *hood.victims)}
    return _foreign(facts, sorted({*everybody, *_further(facts, 6)} - {facts.ipv6}))


def special_ipv6(facts: Facts) -> list[Shot]:
    """IPv4 inside IPv6 in all its forms, loopback, none at all, and groups."""
    own = IPv4Address(facts.ip).packed
    return _foreign(
        facts,
        (
            *(
                IPv6Address(start + own)
                for start in (bytes(10) + b"\xff\xff", bytes(12), bytes(8) + b"\xff\xff\0\0")
            ),
            *(
                IPv6Address(b"\x20\x02" + own + bytes(10)),
                IPv6Address(bytes.fromhex("0064ff9b") + bytes(8) + own),
            ),
            *("::ffff:10.0.0.2", "::ffff:192.0.2.1", "::1", "::", "ff02::1", "ff05::2", "fec0::1"),
        ),
    )


def link_local_ipv6(facts: Facts) -> list[Shot]:
    """The link-local addresses of others, near misses of the own one, and the own one beyond the link."""
    macs = [victim.mac for victim in facts.hood.victims] + [VIRTUAL]
    own = bytearray(facts.mac)
    for place in range(6):
        macs.append(bytes(own[:place] + bytes([own[place] ^ 1]) + own[place + 1 :]))
    near_misses = (
        bytes.fromhex(text) for text in ("fe80000000000001", "fe80000100000000", "fe90000000000000")
    )
    interface = IPv6Address(link_local(facts.mac)).packed[8:]
    return _foreign(
        facts,
        (
            *(link_local(mac) for mac in macs),
            *(IPv6Address(start + interface) for start in near_misses),
            link_local(facts.mac),
            *("fe80::", "fe80::1"),
        ),
    )


KINDS: dict[str, Kind] = {
    "a MAC that nobody has": macs_that_nobody_has,
    "a neighbour's MAC": a_neighbours_mac,
    "another tenant's MAC": another_tenants_mac,
    "the tunnel's MAC": the_tunnels_mac,
    "a random IPv4 address": random_ipv4,
    "another's IPv4 address": others_ipv4,
    "a special IPv4 address": special_ipv4,
    "the hosts' IPv4 addresses": the_hosts_ipv4,
    "a random IPv6 address": random_ipv6,
    "another's IPv6 address": others_ipv6,
    "a special IPv6 address": special_ipv6,
    "another's link-local address": link_local_ipv6,
}
