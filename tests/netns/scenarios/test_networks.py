# SPDX-License-Identifier: Apache-2.0
"""Endpoints reach each other through transit switches and routers, wherever those are (T1 to T7)."""

from __future__ import annotations

import itertools

import pytest

from mizarnet import Verdict
from tests.frames import Outer
from tests.support.services import exchange_everything
from tests.support.traffic import Capture, udp_ask, udp_echo
from tests.world import UNDERLAY, Container, EncapName, Host, Subnet, World, common_tests, total

VNI = 3
A, B = Subnet(VNI, 1), Subnet(VNI, 20)

both_underlays = pytest.mark.parametrize(
    ("underlay", "version"),
    [
        pytest.param(4, 4, id="ipv4-over-ipv4"),
        pytest.param(4, 6, id="ipv6-over-ipv4", marks=pytest.mark.twin),
        pytest.param(6, 4, id="ipv4-over-ipv6", marks=pytest.mark.twin),
        pytest.param(6, 6, id="ipv6-over-ipv6", marks=pytest.mark.twin),
    ],
)


def switched(world: World, switch: Host, homes: tuple[Host, Host]) -> tuple[Container, Container]:
    """One network with one transit switch, and two endpoints that only the switch knows."""
    world.network(A, switches=[switch])
    pair = world.member(homes[0], A, 2), world.member(homes[1], A, 3)
    world.inform(switch)
    world.switch(switch)
    return pair


@pytest.mark.vm
@both_underlays
def test_t1_one_network_with_a_transit_switch(encap: EncapName, underlay: int, version: int) -> None:
    with World(encap, hosts=3, ipv6=underlay == 6) as world:
        h1, h2, h3 = world.hosts
        one, other = switched(world, h3, (h1, h2))
        common_tests(one, other, version)
        assert total([h3], "switch", Verdict.BOUNCED) > 50
        assert total([h1, h2], "guard", Verdict.ACCEPTED) > 50
        assert total([h1, h2], "guard", Verdict.BOUNCED) == 0


@pytest.mark.vm
def test_t2_the_switch_is_on_the_host_of_an_endpoint(encap: EncapName, version: int) -> None:
    with World(encap, hosts=2) as world:
        h1, h2 = world.hosts
        common_tests(*switched(world, h2, (h1, h2)), version)
        # What comes for its own endpoint it passes, and what its own endpoint sends never meets the NIC.
        assert total([h2], "switch", Verdict.BOUNCED) == 0


def nothing_on_the_wire(world: World, one: Container, other: Container, version: int) -> None:
    """Common tests, while no tunnel packet leaves the host; a last packet of the hosts' own shows the capture works."""
    here, there, last = one.host, world.hosts[-1], b"the last frame of this test"
    with Capture(here.namespace, UNDERLAY) as wire:
        common_tests(one, other, version)
        with udp_echo(there.namespace, there.address, tag=b""):
            assert udp_ask(here.namespace, there.address, last) == last
        frames = wire.until(lambda frame: frame.endswith(last))
    assert [outer for outer in map(Outer.parse, frames) if outer] == []


@pytest.mark.vm
def test_t3_both_endpoints_on_one_host(encap: EncapName, version: int) -> None:
    with World(encap, hosts=2) as world:
        h1, h2 = world.hosts
        nothing_on_the_wire(world, *switched(world, h2, (h1, h1)), version)


@pytest.mark.vm
def test_t4_endpoints_and_switch_on_one_host(encap: EncapName, version: int) -> None:
    with World(encap, hosts=2) as world:
        h1, _ = world.hosts
        nothing_on_the_wire(world, *switched(world, h1, (h1, h1)), version)


@pytest.mark.vm
def test_t5_many_switches_share_the_flows_of_a_network(encap: EncapName, version: int) -> None:
    with World(encap, hosts=6) as world:
        switches, homes = world.hosts[:3], world.hosts[3:]
        world.network(A, switches=switches)
        for number, home in enumerate([*homes, *homes], 2):
            world.member(home, A, number)
        world.inform(*switches)
        world.switch(*switches)
        for one, other in itertools.combinations(world.containers, 2):
            common_tests(one, other, version)
        assert all(total([switch], "switch", Verdict.BOUNCED) for switch in switches)


# -- two networks, joined by a router ----------------------------------------------------------------------


def routed(
    world: World,
    router: Host,
    switches: dict[Subnet, tuple[Host, ...]],
    homes: dict[Subnet, tuple[Host, ...]],
) -> None:
    """Each host knows the networks of its endpoints and the router; the router knows every network.

    The switches of a network know its endpoints. So a packet to another network goes: host, router, switch, host.
    """
    for net in switches:
        world.network(net, switches=switches[net], on={*homes[net], router})
        world.route(net.vni, routers=[router], on={*homes[net]} - {router})
        for number, home in enumerate(homes[net], 2):
            world.member(home, net, number)
        members = [
            each for each in world.containers if str(each.endpoint.ip).startswith(net.prefixes[0][:-4])
        ]
        world.inform(*switches[net], about=members)


def all_pairs(world: World, version: int) -> None:
    for one, other in itertools.combinations(world.containers, 2):
        common_tests(one, other, version)


@pytest.mark.vm
@both_underlays
def test_t6_two_networks_and_a_router(encap: EncapName, underlay: int, version: int) -> None:
    with World(encap, hosts=5, ipv6=underlay == 6) as world:
        h1, h2, switch_a, switch_b, router = world.hosts
        routed(world, router, {A: (switch_a,), B: (switch_b,)}, {A: (h1,), B: (h2,)})
        world.switch(switch_a, switch_b, router)
        common_tests(*world.containers, version)
        for switch in (switch_a, switch_b, router):
            assert total([switch], "switch", Verdict.BOUNCED) > 10


def test_t6_seven_hosts(encap: EncapName, version: int) -> None:
    with World(encap, hosts=7) as world:
        h1, h2, h3, h4, switch_a, switch_b, router = world.hosts
        routed(world, router, {A: (switch_a,), B: (switch_b,)}, {A: (h1, h2), B: (h3, h4)})
        world.switch(switch_a, switch_b, router)
        all_pairs(world, version)


def test_t7_three_switches_each_and_hosts_of_several_roles(encap: EncapName, version: int) -> None:
    with World(encap, hosts=7) as world:
        # All but the router have endpoints; h2 and h3 are switches of both networks.
        h1, h2, h3, h4, h5, h6, router = world.hosts
        routed(world, router, {A: (h1, h2, h3), B: (h2, h3, h4)}, {A: (h1, h2, h5), B: (h3, h4, h6)})
        world.switch(h1, h2, h3, h4, router)
        all_pairs(world, version)
        assert total([router], "switch", Verdict.BOUNCED) > 50


@pytest.mark.vm
def test_t7_three_routers_that_know_every_endpoint(encap: EncapName, version: int) -> None:
    with World(encap, hosts=7) as world:
        h1, h2, h3, h4, *routers = world.hosts
        world.network(A, switches=routers, on=(h1, h2))
        world.network(B, switches=routers, on=(h3, h4))
        world.route(VNI, routers=routers, on=(h1, h2, h3, h4))
        for number, (home, net) in enumerate(((h1, A), (h2, A), (h3, B), (h4, B)), 2):
            world.member(home, net, number)
        world.inform(*routers)
        world.switch(*routers)
        all_pairs(world, version)
        assert all(total([router], "switch", Verdict.BOUNCED) for router in routers)


def test_seven_hosts_two_networks_three_switches_each_and_a_router(encap: EncapName) -> None:
    with World(encap, hosts=7) as world:
        *switches, router = world.hosts
        homes = {A: world.hosts[:4], B: world.hosts[3:]}
        routed(world, router, {A: tuple(switches[:3]), B: tuple(switches[3:])}, homes)
        world.switch(*world.hosts)
        for one, other in itertools.permutations(world.containers, 2):
            exchange_everything(one.namespace, other.address(4))
            exchange_everything(one.namespace, other.address(6))
