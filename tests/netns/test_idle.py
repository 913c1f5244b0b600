# SPDX-License-Identifier: Apache-2.0
"""What healthy containers, VMs and hosts say when nobody uses them is counted apart, and nothing else is dropped."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

import mizarnet as mz
from mizarnet import Verdict
from tests.frames import BROADCAST, frame, ipv4, udp
from tests.support.guest_stack import NIC, guest
from tests.support.icmp import echo
from tests.support.namespace import Namespace
from tests.support.traffic import send_frame
from tests.support.wait import wait_until
from tests.world import EncapName, Subnet, World, device

NET = Subnet(3, 1)
REPORTS_AND_SOLICITATION = 3
"""Groups that are joined, for the link-local address and for the other one, and the question for a router."""


@pytest.fixture(scope="module", params=["macvlan", "macvtap"])
def pair(encap: EncapName, request: pytest.FixtureRequest) -> Iterator[tuple[World, list[Namespace]]]:
    """Two network stacks as they come, on two hosts."""
    with World(encap, hosts=2) as world, ExitStack() as guests:
        world.network(NET)
        spaces = [world.namespace(label) for label in ("one", "other")]
        for number, (host, space) in enumerate(zip(world.hosts, spaces, strict=True), 2):
            spec = mz.EndpointSpec(vni=NET.vni, ip=NET.interfaces(number), kind=request.param)
            if request.param == "macvlan":
                mz.Endpoint.create(host.agent, netns=space.name, vni=spec.vni, ip=spec.ip)
            else:
                guests.enter_context(guest(mz.Endpoint.create(host.agent, spec), space))
        world.publish()
        yield world, spaces


def said(world: World, verdict: Verdict) -> list[int]:
    return [stats.chatter.get(verdict, mz.Counter()).packets for stats in world.stats()]


@pytest.mark.vm
def test_an_idle_pair_shows_no_drop_but_chatter(pair: tuple[World, list[Namespace]]) -> None:
    world, spaces = pair
    wait_until(
        lambda: (
            min(said(world, Verdict.MULTICAST)) >= REPORTS_AND_SOLICITATION
            and min(said(world, Verdict.OWN_ADDRESS_ASKED)) >= 1
        ),
        lambda: f"a stack says less than usual: {[stats.chatter for stats in world.stats()]}",
    )
    for address in (NET.address(3, 4), NET.address(3, 6)):
        assert echo(spaces[0], address)
    for stats in world.stats():
        assert stats.drops == {}
        assert set(stats.chatter) == {Verdict.MULTICAST, Verdict.OWN_ADDRESS_ASKED}
        assert stats.dropped.packets == sum(counter.packets for counter in stats.chatter.values())


def test_a_question_for_dhcp_is_chatter_of_either_family(pair: tuple[World, list[Namespace]]) -> None:
    world, spaces = pair
    agent = world.hosts[0].agent
    (endpoint,) = mz.Endpoint.list(agent)
    before = agent.stats()
    discover = ipv4("0.0.0.0", "255.255.255.255", udp(68, 67, bytes(240)))
    send_frame(spaces[0], NIC, frame(BROADCAST, endpoint.mac.packed, discover))
    with spaces[0].socket(socket.AF_INET6, socket.SOCK_DGRAM) as client, suppress(OSError):
        client.sendto(bytes(40), ("ff02::1:2", 547, 0, device(spaces[0], NIC).ifindex))
    wait_until(
        lambda: agent.stats().since(before).chatter.get(Verdict.MULTICAST, mz.Counter()).packets >= 2,
        lambda: f"there was only {agent.stats().since(before)}",
    )
    assert agent.stats().since(before).drops == {}


def test_what_is_no_chatter_stands_apart_from_it(pair: tuple[World, list[Namespace]]) -> None:
    world, spaces = pair
    agent = world.hosts[0].agent
    before = agent.stats()
    assert not echo(spaces[0], NET.address(9, 4), timeout=0.1)
    since = agent.stats().since(before)
    assert set(since.drops) == {Verdict.NO_SWITCH}
    assert since.verdicts[Verdict.NO_SWITCH] == since.drops[Verdict.NO_SWITCH]
    assert since.verdicts[Verdict.ENCAPSULATED] == mz.Counter()
