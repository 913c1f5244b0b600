# SPDX-License-Identifier: Apache-2.0
"""Tunnel packets from inside the tunnel, and other words that are meant for the hosts themselves."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from mizarnet import Verdict
from tests.frames import (
    BROADCAST,
    GENEVE_PORT,
    SYN,
    TCP,
    VIRTUAL,
    VXLAN_PORT,
    datagram,
    echo_request,
    frame,
    icmpv6,
    ipv4,
    ipv6,
    summed,
    tcp,
    tunnel,
    udp,
)
from tests.netns.hostile.endpoint.net import Neighbourhood
from tests.netns.hostile.endpoint.trial import VARIANTS, Facts, Kind, Shot
from tests.world import GREEN, TUNNEL, UNDERLAY, mac_of

FLANNEL_PORT = 8472
"""Where Linux put VXLAN before it had a port of its own."""
PORTS = (VXLAN_PORT, GENEVE_PORT, FLANNEL_PORT)


def tunnel_packet(hood: Neighbourhood, port: int, data: bytes = b"nested") -> bytes:
    """A complete one for the other tenant's endpoint next door, from the one on the other host."""
    sender, to = hood.other_far, hood.other
    inner = datagram(sender.mac, sender.ip, to.ip, destination_mac=to.mac, payload=data)
    return tunnel("geneve" if port == GENEVE_PORT else "vxlan", GREEN, inner)


def _host_macs(facts: Facts) -> tuple[bytes, ...]:
    """All that a frame for a host could bear."""
    spaces = [host.namespace for host in facts.hood.world.hosts]
    macs = [mac_of(space, device) for space in spaces for device in (TUNNEL, UNDERLAY)]
    return (*macs, VIRTUAL, facts.hood.near.mac, facts.hood.other.mac)


def _host_addresses(facts: Facts) -> tuple[str, ...]:
    return (*(host.address for host in facts.hood.world.hosts), "192.0.2.77", "127.0.0.1", "127.0.0.53")


def nested_for_the_hosts(facts: Facts) -> list[Shot]:
    """Tunnel packets to the hosts' addresses, in frames to their devices' MACs."""
    macs, addresses = _host_macs(facts), _host_addresses(facts)

    def frames() -> Iterator[bytes]:
        for port in itertools.cycle(PORTS):
            data = facts.random.randbytes(facts.random.randrange(200))
            packet = udp(facts.random.randrange(1, 65536), port, tunnel_packet(facts.hood, port, data))
            to = facts.random.choice(addresses)
            yield frame(facts.random.choice(macs), facts.mac, ipv4(facts.ip, to, packet))

    return [Shot(Verdict.NO_DESTINATION, frame) for frame in itertools.islice(frames(), VARIANTS)]


def nested_for_everybody(facts: Facts) -> list[Shot]:
    """Tunnel packets as broadcasts and to groups."""
    macs = (BROADCAST, bytes.fromhex("01005e000001"), *_host_macs(facts))

    def frames() -> Iterator[bytes]:
        for port in itertools.cycle(PORTS):
            packet = udp(facts.random.randrange(1, 65536), port, tunnel_packet(facts.hood, port))
            to, mac = facts.random.choice(("255.255.255.255", "224.0.0.1")), facts.random.choice(macs)
            yield frame(mac, facts.mac, ipv4(facts.ip, to, packet))
            to = facts.random.choice(_host_addresses(facts))
            yield frame(facts.random.choice(macs[:2]), facts.mac, ipv4(facts.ip, to, packet))

    return [Shot(Verdict.MULTICAST, frame) for frame in itertools.islice(frames(), VARIANTS)]


def to_the_hosts(facts: Facts) -> list[Shot]:
    """Datagrams, connections and pings for whatever listens on the hosts."""
    macs, addresses = _host_macs(facts), _host_addresses(facts)

    def frames() -> Iterator[bytes]:
        while True:
            to, port = facts.random.choice(addresses), facts.random.choice((9, 22, 53, *PORTS))
            ping = echo_request(1, facts.random.randrange(65536))
            for packet, protocol in ((udp(9, port, b"host"), 17), (_syn(facts, to, port), 6), (ping, 1)):
                mac = facts.random.choice(macs)
                yield frame(mac, facts.mac, ipv4(facts.ip, to, packet, protocol=protocol))
            yield from _frames6(facts, facts.random.choice(macs))

    return [Shot(Verdict.NO_DESTINATION, frame) for frame in itertools.islice(frames(), VARIANTS)]


def _syn(facts: Facts, to: str, port: int) -> bytes:
    return summed(facts.ip, to, TCP, tcp(facts.random.randrange(1024, 65536), port, SYN))


def _frames6(facts: Facts, mac: bytes) -> Iterator[bytes]:
    to = facts.random.choice(("::1", "fe80::1", "::ffff:192.0.2.1", "::192.0.2.1", "64:ff9b::c000:201"))
    yield datagram(facts.mac, facts.ipv6, to, destination_mac=mac, port=facts.random.choice((9, *PORTS)))
    ping = icmpv6(facts.ipv6, to, 128, facts.random.randbytes(16))
    yield frame(mac, facts.mac, ipv6(facts.ipv6, to, ping, protocol=58))


KINDS: dict[str, Kind] = {
    "tunnel packets for the hosts": nested_for_the_hosts,
    "tunnel packets for everybody": nested_for_everybody,
    "packets for the hosts": to_the_hosts,
}
