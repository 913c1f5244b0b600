# SPDX-License-Identifier: Apache-2.0
"""Tenants with the same addresses on the same hosts, and the host as an endpoint (T8, T9, T11)."""

from __future__ import annotations

import pytest

from mizarnet import Verdict
from tests.support.counting import counted
from tests.support.icmp import assert_silence
from tests.world import Container, EncapName, Subnet, World, common_tests

BLUE, GREEN = 3, 4


def with_switch(world: World, *nets: Subnet) -> None:
    """Every network has the last host as its switch."""
    for net in nets:
        world.network(net, switches=world.hosts[-1:], on=world.hosts[:-1])
    world.switch(world.hosts[-1])


@pytest.mark.vm
def test_t8_tenants_do_not_reach_each_other(encap: EncapName, version: int) -> None:
    blue, green = Subnet(BLUE, 1), Subnet(GREEN, 2)
    with World(encap, hosts=3) as world:
        h1, h2, switch = world.hosts
        with_switch(world, blue, green)
        blues = world.member(h1, blue, 2), world.member(h2, blue, 3)
        greens = world.member(h1, green, 2), world.member(h2, green, 3)
        world.inform(switch)
        common_tests(*blues, version)
        common_tests(*greens, version)
        for one in blues:
            for other in greens:
                unreachable(one, other, version)
                unreachable(other, one, version)


def unreachable(one: Container, other: Container, version: int) -> None:
    """No answer, and the sender's own agent says why."""
    since = counted(one.host.agent, lambda: assert_silence(one.namespace, other.address(version)))
    assert since.agent[Verdict.NO_DESTINATION].packets >= 1
    assert since.agent[Verdict.ENCAPSULATED].packets == since.agent[Verdict.DELIVERED_LOCALLY].packets == 0


@pytest.mark.vm
def test_t9_tenants_with_the_same_addresses(encap: EncapName, version: int) -> None:
    blue, green = Subnet(BLUE, 1), Subnet(GREEN, 1)
    with World(encap, hosts=3) as world:
        h1, h2, switch = world.hosts
        with_switch(world, blue, green)
        blues = world.member(h1, blue, 2), world.member(h2, blue, 3)
        greens = world.member(h1, green, 2), world.member(h2, green, 3)
        world.inform(switch)
        common_tests(*blues, version)
        common_tests(*greens, version)
        before = [each.endpoint.stats() for each in greens]
        common_tests(*blues, version)
        assert [each.endpoint.stats().received for each in greens] == [each.received for each in before]


@pytest.mark.vm
def test_t11_the_host_itself_is_an_endpoint(encap: EncapName, version: int) -> None:
    net = Subnet(BLUE, 1)
    with World(encap, hosts=2) as world:
        h1, h2 = world.hosts
        world.network(net)
        world.serve(h1.namespace)
        own = world.add(h1, h1.namespace, vni=BLUE, ip=net.interfaces(2), ifname="own0")
        near, far = world.member(h1, net, 3), world.member(h2, net, 4)
        world.publish()
        common_tests(own, near, version)
        common_tests(own, far, version)
