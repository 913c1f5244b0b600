# SPDX-License-Identifier: Apache-2.0
"""A transit switch when something is missing: agreement, a program, a peer. Nothing loops and nothing is lost."""

from __future__ import annotations

import pytest

import mizarnet as mz
from mizarnet import Verdict
from tests.support.icmp import assert_silence, echo
from tests.world import Container, EncapName, Subnet, World, common_tests

NET = Subnet(3, 1)
BOUNCES = 8
"""The most that a frame is sent on."""


@pytest.fixture(params=[pytest.param(True, marks=pytest.mark.vm), False], ids=["xdp", "guard"])
def with_program(request: pytest.FixtureRequest) -> bool:
    """Whether the switch has its program, or the guard does all its work."""
    found: bool = request.param
    return found


def pair(world: World) -> tuple[Container, Container]:
    """Endpoints on the first two hosts, whose network has the third as its switch."""
    h1, h2, switch, *_ = world.hosts
    world.network(NET, switches=[switch], on=(h1, h2))
    made = world.member(h1, NET, 2), world.member(h2, NET, 3)
    world.inform(switch)
    return made


def on_the_underlay(world: World, before: list[mz.Stats]) -> int:
    """Tunnel packets that were put there since."""
    since = [host.agent.stats().since(then) for host, then in zip(world.hosts, before, strict=True)]
    sent = sum(each.agent[Verdict.ENCAPSULATED].packets for each in since)
    return sent + sum(
        each.switch[Verdict.BOUNCED].packets + each.guard[Verdict.BOUNCED].packets for each in since
    )


def stats_of(world: World) -> list[mz.Stats]:
    return [host.agent.stats() for host in world.hosts]


def test_two_that_disagree_put_two_frames_on_the_underlay(encap: EncapName, with_program: bool) -> None:
    """Each of the two says that the other has it, and a third host asks; or one of the two itself: one frame."""
    with World(encap, hosts=4) as world:
        one, other = pair(world)
        left, right = world.hosts[2:]
        if with_program:
            world.switch(left, right)
        key = (NET.vni, other.endpoint.ip)
        left.agent.endpoints[key] = mz.Remote(right.address)
        right.agent.endpoints[key] = mz.Remote(left.address)
        before = stats_of(world)
        assert_silence(one.namespace, other.address(4))
        assert on_the_underlay(world, before) == 2
        back = [host.agent.stats().since(then).guard for host, then in zip(world.hosts, before, strict=True)]
        assert [each[Verdict.BOUNCED_BACK].packets for each in back] == [0, 0, 0, 1]
        near = world.member(left, NET, 4)
        before = stats_of(world)
        assert_silence(near.namespace, other.address(4))
        assert on_the_underlay(world, before) == 1
        assert right.agent.stats().since(before[3]).guard[Verdict.BOUNCED_BACK].packets == 1
        left.agent.endpoints[key] = mz.Remote(other.host.address)
        assert echo(one.namespace, other.address(4))


def test_three_switches_that_disagree_end_it_by_the_outer_ttl(encap: EncapName, with_program: bool) -> None:
    with World(encap, hosts=5) as world:
        one, other = pair(world)
        ring = world.hosts[2:]
        if with_program:
            world.switch(*ring)
        key = (NET.vni, other.endpoint.ip)
        for switch, following in zip(ring, (*ring[1:], ring[0]), strict=True):
            switch.agent.endpoints[key] = mz.Remote(following.address)
        before = stats_of(world)
        assert_silence(one.namespace, other.address(4))
        assert on_the_underlay(world, before) == 1 + BOUNCES
        since = [host.agent.stats().since(then).guard for host, then in zip(world.hosts, before, strict=True)]
        assert sum(each[Verdict.OUTER_HOP_LIMIT].packets for each in since) == 1
        ring[0].agent.endpoints[key] = mz.Remote(other.host.address)
        assert echo(one.namespace, other.address(4))


def test_what_comes_from_no_peer_is_left_to_the_guard_which_refuses_it(encap: EncapName) -> None:
    with World(encap, hosts=3) as world:
        one, other = pair(world)
        switch = world.hosts[2]
        world.switch(switch)
        (all_hosts,) = switch.agent.peers
        switch.agent.peers.discard(all_hosts)
        switch.agent.peers.add(f"{other.host.address}/32")
        before = switch.agent.stats()
        assert_silence(one.namespace, other.address(4))
        since = switch.agent.stats().since(before)
        assert (since.switch[Verdict.BOUNCED].packets, since.guard[Verdict.FOREIGN_PEER].packets) == (0, 1)
        switch.agent.peers.add(f"{one.host.address}/32")
        common_tests(one, other, 4)
