# SPDX-License-Identifier: Apache-2.0
"""Networks behind a container that routes: from its own host, from others, and by a transit switch."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import pytest

import mizarnet as mz
from mizarnet import Verdict
from tests.support.depth import depth
from tests.support.icmp import assert_silence, datagram_error, echo
from tests.support.namespace import Namespace
from tests.support.router import (
    BEHIND,
    INSIDE,
    Translator,
    add_address,
    forward,
    name_next_hop,
    router,
)
from tests.support.services import exchange_datagrams, exchange_everything, exchange_file
from tests.support.traffic import Capture
from tests.world import Container, EncapName, Subnet, World, total

A, B = Subnet(3, 1), Subnet(3, 2)
OTHER_VNI = Subnet(4, 7)
MANY = depth(4 << 20, 100 << 20)
UNREACHABLE = {4: 3, 6: 1}


def both_ways(members: Iterable[Container], behind: Namespace, version: int) -> None:
    for each in members:
        exchange_everything(each.namespace, INSIDE[version])
        exchange_everything(behind, each.address(version))


@pytest.mark.vm
def test_from_every_host_to_what_is_behind_a_router(encap: EncapName, version: int) -> None:
    with World(encap, hosts=3) as world:
        world.network(A)
        made, behind = router(world, world.hosts[0], A, 2)
        members = [world.member(host, A, 3 + number) for number, host in enumerate(world.hosts)]
        world.publish()
        assert_silence(members[1].namespace, INSIDE[version])
        name_next_hop(made.endpoint, on=world.hosts)
        both_ways(members, behind, version)
        # In a prefix of another name, whose router is the agent, too.
        world.network(B)
        beyond = world.member(world.hosts[2], B, 9)
        world.publish()
        both_ways([beyond], behind, version)


def test_over_an_underlay_of_ipv6(encap: EncapName, version: int) -> None:
    with World(encap, hosts=2, ipv6=True) as world:
        world.network(A)
        made, behind = router(world, world.hosts[0], A, 2)
        members = [world.member(host, A, 3 + number) for number, host in enumerate(world.hosts)]
        world.publish()
        assert_silence(members[1].namespace, INSIDE[version])
        name_next_hop(made.endpoint, on=world.hosts)
        both_ways(members, behind, version)
        for each in members:
            first = datagram_error(each.namespace, INSIDE[version], hops=1)
            assert first.offender == made.address(version)


def test_the_first_routers_on_the_way(encap: EncapName, version: int) -> None:
    """Into a network behind a next hop, that is the first; into another prefix of the VNI, the agent."""
    with World(encap, hosts=2) as world:
        for net in (A, B):
            world.network(net)
        made, _ = router(world, world.hosts[0], A, 2)
        one, beyond = world.member(world.hosts[1], A, 3), world.member(world.hosts[0], B, 9)
        world.publish()
        name_next_hop(made.endpoint, on=world.hosts)
        ways = {
            INSIDE[version]: made.address(version),
            beyond.address(version): A.gateways[version == 6],
        }
        for target, first in ways.items():
            assert datagram_error(one.namespace, target, hops=1).offender == first
            reached = datagram_error(one.namespace, target, hops=2)
            assert (reached.offender, reached.type) == (target, UNREACHABLE[version])


@pytest.mark.vm
def test_a_path_mtu_is_told_by_the_router(encap: EncapName, version: int) -> None:
    with World(encap, hosts=2) as world:
        world.network(A)
        made, behind = router(world, world.hosts[0], A, 2, mtu=1300)
        members = [world.member(host, A, 3 + number) for number, host in enumerate(world.hosts)]
        world.publish()
        name_next_hop(made.endpoint, on=world.hosts)
        for each in members:
            with pytest.raises(OSError, match="Message too long") as told:
                echo(each.namespace, INSIDE[version], size=1350, whole=True)
            assert told.value.errno == errno.EMSGSIZE
            exchange_file(each.namespace, INSIDE[version])
            exchange_datagrams(each.namespace, INSIDE[version], size=4000)  # in fragments
            exchange_datagrams(behind, each.address(version), size=4000)


def test_much_at_once_is_segmented_behind_the_agent(encap: EncapName, version: int) -> None:
    with World(encap, hosts=3) as world:
        world.network(A)
        made, _ = router(world, world.hosts[0], A, 2)
        members = [world.member(host, A, 3 + number) for number, host in enumerate(world.hosts)]
        world.publish()
        name_next_hop(made.endpoint, on=world.hosts)
        for each in members:
            with Capture(made.namespace, "eth0") as seen, ThreadPoolExecutor(1) as pool:
                file = pool.submit(exchange_file, each.namespace, INSIDE[version], size=MANY)
                seen.until(lambda frame: len(frame) > 2 * 1514 and frame[0:6] == made.mac)
                seen.until(lambda frame: len(frame) > 2 * 1514 and frame[6:12] == made.mac)  # the way back
                file.result()


@pytest.mark.vm
@pytest.mark.parametrize("with_program", [True, False], ids=["xdp", "guard"])
def test_by_a_transit_switch_that_alone_knows_the_next_hop(
    encap: EncapName, version: int, with_program: bool
) -> None:
    with World(encap, hosts=3) as world:
        home, other, switch = world.hosts
        world.network(A)
        made, behind = router(world, home, A, 2)
        one = world.member(other, A, 3)
        world.inform(switch)
        world.inform(home, about=[one])
        name_next_hop(made.endpoint, on=(home, switch))
        for prefix in BEHIND:
            other.agent.networks[A.vni, prefix] = mz.Network(switches=[switch.address])
        if with_program:
            world.switch(switch)
        both_ways([one], behind, version)
        assert total([switch], "switch" if with_program else "guard", Verdict.BOUNCED) > 50


@pytest.mark.parametrize(
    "ipv6", [pytest.param(False, marks=pytest.mark.vm), True], ids=["over-ipv4", "over-ipv6"]
)
def test_a_router_may_send_back_to_the_host_of_the_source(encap: EncapName, version: int, ipv6: bool) -> None:
    """It gave the packet another destination: that is an endpoint of the host which the packet came from."""
    with World(encap, hosts=3, ipv6=ipv6) as world:
        home, other, third = world.hosts
        world.network(A)
        made, _ = router(world, home, A, 2)
        one, target = world.member(other, A, 3), world.member(other, A, 4)
        world.publish()
        name_next_hop(made.endpoint, on=world.hosts)
        with Translator(made.namespace, {INSIDE[version]: target.address(version)}):
            before = other.agent.stats()
            ask(one, target, version)
            since = other.agent.stats().since(before)
            assert since.guard[Verdict.ACCEPTED].packets >= 1
            assert since.guard[Verdict.SOURCE_IS_LOCAL].packets == 0
            # Where no network names it any more, it is a stranger like others.
            for prefix in BEHIND:
                del other.agent.networks[A.vni, prefix]
                other.agent.networks[A.vni, prefix] = mz.Network(switches=[home.address])
            before = other.agent.stats()
            with pytest.raises(TimeoutError):
                ask(one, target, version, timeout=0.5)
            assert other.agent.stats().since(before).guard[Verdict.SOURCE_IS_LOCAL].packets == 1
        assert total([third], "guard", Verdict.ACCEPTED) == 0


def ask(one: Container, target: Container, version: int, *, timeout: float = 10) -> None:
    """A datagram to what the router translates arrives at the target, with its own source."""
    with (
        one.udp(ip=one.address(version)) as sender,
        target.udp(7000, ip=target.address(version)) as receiver,
    ):
        receiver.settimeout(timeout)
        sender.sendto(b"translate me", (INSIDE[version], 7000))
        data, (source, *_) = receiver.recvfrom(100)
        assert (data, source) == (b"translate me", one.address(version))


@pytest.mark.vm
def test_a_router_between_two_vnis(encap: EncapName, version: int) -> None:
    with World(encap, hosts=2) as world:
        home = world.hosts[0]
        for net in (A, OTHER_VNI):
            world.network(net)
        left = world.add(home, world.space(), vni=A.vni, ip=A.interfaces(2), forwarding=True)
        right = world.add(
            home, left.namespace, vni=OTHER_VNI.vni, ip=OTHER_VNI.interfaces(2), forwarding=True,
            ifname="eth1", default_route="never",
        )  # fmt: skip
        forward(left.namespace)
        ends = [world.member(host, A, 3 + number) for number, host in enumerate(world.hosts)]
        others = [world.member(host, OTHER_VNI, 3 + number) for number, host in enumerate(world.hosts)]
        world.publish()
        assert_silence(ends[1].namespace, others[1].address(version))
        name_next_hop(left.endpoint, on=world.hosts, prefixes=OTHER_VNI.prefixes)
        name_next_hop(right.endpoint, on=world.hosts, prefixes=A.prefixes)
        for one, far in zip(ends, reversed(others), strict=True):
            exchange_everything(one.namespace, far.address(version))
            exchange_everything(far.namespace, one.address(version))


@pytest.mark.vm
def test_the_way_out(encap: EncapName, version: int) -> None:
    """Two entries: the router is the gateway of its prefix, and the next hop of everything else."""
    outside = {4: "8.8.8.8", 6: "2001:db8:8::8"}[version]
    with World(encap, hosts=2) as world:
        for host in world.hosts:
            for prefix, gateway in zip(A.prefixes, A.gateways, strict=True):
                host.agent.networks[A.vni, prefix] = mz.Network(gateway=gateway)
            for prefix, gateway in zip(("0.0.0.0/0", "::/0"), A.gateways, strict=True):
                host.agent.networks[A.vni, prefix] = mz.Network(via=gateway)
        made = world.add(world.hosts[0], world.space(), vni=A.vni, ip=A.interfaces(1), forwarding=True)
        members = [world.member(host, A, 3 + number) for number, host in enumerate(world.hosts)]
        world.publish()
        add_address(made.namespace, "lo", outside)
        for each in members:
            assert echo(each.namespace, outside)
            exchange_file(each.namespace, outside)
            assert echo(each.namespace, made.address(version))


@pytest.mark.vm
def test_the_next_hop_comes_goes_and_moves(encap: EncapName, version: int) -> None:
    with World(encap, hosts=3) as world:
        first, second, _ = world.hosts
        world.network(A)
        name = dict(zip((4, 6), BEHIND, strict=True))[version]
        for host in world.hosts:
            host.agent.networks[A.vni, name] = mz.Network(via=A.address(2, version))
        members = [world.member(host, A, 3 + number) for number, host in enumerate(world.hosts)]
        world.publish()
        refused(members, version, by="agent")  # nobody has its address
        made = world.member(first, A, 2)
        add_address(made.namespace, "lo", INSIDE[version])
        world.publish()
        refused(members[:1], version, by="agent")  # it may not forward
        before = first.agent.stats()
        assert_silence(members[1].namespace, INSIDE[version])
        assert first.agent.stats().since(before).guard[Verdict.NO_NEXT_HOP].packets == 1
        assert made.endpoint.stats().received.packets == 0
        space = made.namespace
        for host in (first, second, first):
            world.remove(made)
            made = world.add(host, space, vni=A.vni, ip=A.interfaces(2), forwarding=True)
            world.publish()
            for each in members:
                assert echo(each.namespace, INSIDE[version])
        world.remove(made)
        world.publish()
        refused(members, version, by="agent")


def refused(members: Iterable[Container], version: int, *, by: str) -> None:
    for each in members:
        before = each.host.agent.stats()
        assert_silence(each.namespace, INSIDE[version])
        since = getattr(each.host.agent.stats().since(before), by)
        assert since[Verdict.NO_NEXT_HOP].packets == 1
