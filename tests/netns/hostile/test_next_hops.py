# SPDX-License-Identifier: Apache-2.0
"""What next hops permit, and no more, in great numbers: for others' destinations, and from this host's own sources."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ipaddress import ip_network

import pytest

import mizarnet as mz
from mizarnet import Verdict
from tests.frames import VIRTUAL, datagram
from tests.netns.hostile.endpoint.net import Neighbourhood, settle
from tests.netns.hostile.endpoint.trial import (
    VARIANTS,
    Facts,
    PacketSocket,
    Shot,
    assert_all_refused,
    shots_of,
    verdicts,
)
from tests.support.flood import frame_count
from tests.support.onlookers import assert_silence
from tests.support.wire import OTHER_ADDRESSES, PEER, STRANGER, STRANGERS_IP, Packet, Wire
from tests.world import BLUE, GREEN

PLACES = {"here": "172.20.1.0/24", "there": "172.20.2.0/24", "nowhere": "172.20.3.0/24"}
PLACES_IPV6 = {"here": "fd51::/64", "there": "fd52::/64", "nowhere": "fd53::/64"}
NOBODY, NOBODY_IPV6 = "10.0.0.77", "fd00::77"
ROUTER, ROUTERS_HOST = "10.0.0.60", "192.0.2.60"
GREEN_ROUTERS_HOST = "192.0.2.61"
EVERYTHING = "0.0.0.0/0"


def name_next_hops(agent: mz.TransitAgent, hops: dict[str, str], *, vni: int = BLUE) -> Iterator[None]:
    """While a test runs, networks have these next hops, by prefix."""
    for prefix, via in hops.items():
        agent.networks[vni, prefix] = mz.Network(via=via)
    yield
    for prefix in hops:
        del agent.networks[vni, prefix]


# -- what an endpoint that may not forward never gets ------------------------------------------------------


@pytest.fixture
def led_astray(hood: Neighbourhood) -> Iterator[None]:
    """The next hops of networks are neighbours that may not forward, and somebody who is not there."""
    vias = {"here": (hood.near.ip, hood.near.ipv6), "there": (hood.far.ip, hood.far.ipv6)}
    vias["nowhere"] = NOBODY, NOBODY_IPV6
    hops = {PLACES[name]: vias[name][0] for name in PLACES}
    hops |= {PLACES_IPV6[name]: vias[name][1] for name in PLACES_IPV6}
    both = [name_next_hops(host.agent, hops) for host in (hood.first, hood.second)]
    for each in both:
        next(each)
    yield
    for each in both:
        next(each, None)


def frames_for(facts: Facts, *names: str) -> Iterator[bytes]:
    """To addresses in networks, with the MAC of everybody who could be made believe that it is for him."""
    macs = (VIRTUAL, facts.hood.near.mac, facts.hood.far.mac, facts.hood.other.mac, facts.mac)
    for name in names:
        for prefix, source in ((PLACES[name], facts.ip), (PLACES_IPV6[name], facts.ipv6)):
            first = int(ip_network(prefix).network_address)
            for number in range(VARIANTS // 20):
                to = str(ip_network(prefix).network_address.__class__(first + 1 + number * 5 % 250))
                for mac in macs:
                    yield datagram(facts.mac, source, to, destination_mac=mac, payload=b"for others")


@pytest.mark.usefixtures("led_astray")
def test_what_is_for_others_leaves_for_nobody_who_may_not_forward(hood: Neighbourhood) -> None:
    def kind(facts: Facts) -> list[Shot]:
        return [Shot(Verdict.NO_NEXT_HOP, frame) for frame in frames_for(facts, "here", "nowhere")]

    sender = PacketSocket(hood.sender.endpoint, hood.sender.namespace)
    assert_all_refused(hood, sender, shots_of(kind, hood, sender.endpoint))


@pytest.mark.usefixtures("led_astray")
def test_what_is_for_others_is_refused_where_the_next_hop_is(hood: Neighbourhood) -> None:
    """The sender's host does not know whether an endpoint of another may forward: that one's guard does."""

    def kind(facts: Facts) -> list[Shot]:
        return [Shot(Verdict.ENCAPSULATED, frame) for frame in frames_for(facts, "there")]

    sender = PacketSocket(hood.sender.endpoint, hood.sender.namespace)
    shots, count = shots_of(kind, hood, sender.endpoint), frame_count(routed=True)
    hood.forget()
    traffic, before = hood.traffic(), hood.world.stats()
    sender.flood(shots, count)
    settle(hood.world)
    first, second = (now.since(then) for now, then in zip(hood.world.stats(), before, strict=True))
    assert verdicts(first.agent) == {Verdict.ENCAPSULATED: count}
    refused = verdicts(second.guard)
    assert refused.keys() == {Verdict.NO_NEXT_HOP}
    assert refused[Verdict.NO_NEXT_HOP] > count // 2  # the rest found a queue full
    assert hood.traffic() == traffic
    assert_silence([each for each in hood.onlookers if not each.label.startswith("wire")])
    hood.assert_awake()


# -- whose sources come back -------------------------------------------------------------------------------


@pytest.fixture
def way_out(wire: Wire) -> Iterator[None]:
    """Both tenants have a default route to a next hop on another host each; another next hop may not forward."""
    agent = wire.net.first.agent
    routers = {BLUE: ROUTERS_HOST, GREEN: GREEN_ROUTERS_HOST}
    for vni, host in routers.items():
        agent.endpoints[vni, ROUTER] = mz.Remote(host)
    hops = {EVERYTHING: ROUTER, PLACES["here"]: wire.net.blue2.ip}
    both = [name_next_hops(agent, hops), name_next_hops(agent, {EVERYTHING: ROUTER}, vni=GREEN)]
    for each in both:
        next(each)
    yield
    for each in both:
        next(each, None)
    agent.endpoints.apply([], [(vni, ROUTER) for vni in routers])


def local(wire: Wire) -> bytes:
    """From an endpoint of the attacked host to another one there."""
    net = wire.net
    return datagram(STRANGER, net.blue2.ip, net.blue1.ip, destination_mac=net.blue1.mac, payload=b"frame")


def forget(wire: Wire) -> None:
    for each in wire.endpoints.values():
        each.forget()


def assert_let_in(wire: Wire) -> None:
    """What comes from the host of the next hop arrives."""
    forget(wire)
    wire.send([wire.packet(Verdict.ACCEPTED, local(wire), source=ROUTERS_HOST)], 1)
    wire.assert_seen({wire.net.blue1: 1})


def local_sources(wire: Wire) -> Iterator[Packet]:
    """From every other peer, and from the next hop's host in other VNIs."""
    for number in range(2, 255):
        # The kernel itself takes nothing from another address of its own.
        if (source := f"192.0.2.{number}") not in (ROUTERS_HOST, *OTHER_ADDRESSES):
            yield wire.packet(Verdict.SOURCE_IS_LOCAL, local(wire), source=source)
    green = datagram(STRANGER, wire.net.green1.ip, wire.net.green1.ip, destination_mac=VIRTUAL)
    yield wire.packet(Verdict.SOURCE_IS_LOCAL, green, vni=GREEN, source=ROUTERS_HOST)


@pytest.mark.vm
@pytest.mark.usefixtures("way_out")
def test_local_sources_come_back_from_the_host_of_the_next_hop_alone(wire: Wire) -> None:
    packets, count = list(local_sources(wire)), frame_count()
    wire.assert_refused(packets, count=count)
    assert_let_in(wire)


CHANGES: dict[str, Callable[[mz.TransitAgent], object]] = {
    "the next hop moved": lambda agent: agent.endpoints.update({(BLUE, ROUTER): mz.Remote("192.0.2.62")}),
    "its entry went": lambda agent: agent.endpoints.apply([], [(BLUE, ROUTER)]),
    "another is named": lambda agent: agent.networks.update({(BLUE, EVERYTHING): mz.Network(via=NOBODY)}),
    "none is named": lambda agent: agent.networks.update({(BLUE, EVERYTHING): mz.Network()}),
}


@pytest.mark.usefixtures("way_out")
@pytest.mark.parametrize("what", CHANGES)
def test_local_sources_do_not_come_back_from_where_the_next_hop_was(wire: Wire, what: str) -> None:
    assert_let_in(wire)
    CHANGES[what](wire.net.first.agent)
    forget(wire)
    packet = wire.packet(Verdict.SOURCE_IS_LOCAL, local(wire), source=ROUTERS_HOST)
    wire.assert_refused([packet], count=frame_count())


@pytest.mark.usefixtures("way_out")
def test_what_is_for_others_comes_in_for_nobody_who_may_not_forward(wire: Wire) -> None:
    """From any peer, with the MAC of the endpoint or another one."""
    net = wire.net
    packets = [
        wire.packet(
            Verdict.NO_NEXT_HOP,
            datagram(STRANGER, STRANGERS_IP, f"172.20.1.{number}", destination_mac=mac),
            source=source,
        )
        for number in range(1, 255, 7)
        for mac in (net.blue1.mac, net.blue2.mac, VIRTUAL)
        for source in (PEER, ROUTERS_HOST)
    ]
    wire.assert_refused(packets, count=frame_count())
