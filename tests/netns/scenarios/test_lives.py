# SPDX-License-Identifier: Apache-2.0
"""Endpoints and networks that go, and come again elsewhere (T12, T15, T16, T17)."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

import mizarnet as mz
from mizarnet import Verdict
from mizarnet._kernel.netlink import Session, dump_links
from tests.support.counting import counted
from tests.support.icmp import assert_silence
from tests.support.tables import contents
from tests.world import ROUTES, EncapName, Host, Subnet, World, common_tests

VNI = 3
A, B = Subnet(VNI, 1), Subnet(VNI, 2)


def test_t12_an_endpoint_comes_again_on_its_host(encap: EncapName, version: int) -> None:
    with World(encap, hosts=2) as world:
        h1, h2 = world.hosts
        world.network(A)
        one, other = world.member(h1, A, 2), world.member(h2, A, 3)
        world.publish()
        common_tests(one, other, version)
        world.remove(other)
        common_tests(one, world.member(h2, A, 3), version)


@pytest.mark.vm
def test_t12_an_endpoint_comes_again_on_another_host(encap: EncapName, version: int) -> None:
    with World(encap, hosts=4) as world:
        h1, h2, h3, switch = world.hosts
        world.network(A, switches=[switch])
        one, other = world.member(h1, A, 2), world.member(h2, A, 3)
        world.inform(switch)
        world.switch(switch)
        for home in (h3, h1, h2):  # elsewhere, to the host of the asker, and back
            common_tests(one, other, version)
            world.remove(other)
            other = world.member(home, A, 3)
            world.inform(switch)
        common_tests(one, other, version)


@pytest.mark.vm
def test_t15_a_deleted_endpoint_is_gone(encap: EncapName, version: int) -> None:
    with World(encap, hosts=2) as world:
        h1, h2 = world.hosts
        one, other = world.member(h1, A, 2), world.member(h2, A, 3)
        world.publish()
        common_tests(one, other, version)
        world.remove(other)
        since = counted(h2.agent, lambda: assert_silence(one.namespace, other.address(version)))
        assert since.guard[Verdict.NO_DESTINATION].packets == 1
        world.publish()
        since = counted(h1.agent, lambda: assert_silence(one.namespace, other.address(version)))
        assert since.agent[Verdict.NO_DESTINATION].packets == 1
        for host in world.hosts:
            assert (VNI, other.address(version)) not in host.agent.endpoints


# -- everything of an endpoint, a network and a VNI goes ---------------------------------------------------


def assert_empty(hosts: Iterable[Host], *, networks: int = 0) -> None:
    """No entry in any table but those of networks and peers, and no device on the tunnel."""
    for host in hosts:
        left = {name: len(entries) for name, entries in contents(host.agent).items()}
        kept = {"networks": networks, "peers": 1}
        assert left == {name: kept.get(name, 0) for name in left}
        assert mz.Endpoint.list(host.agent) == []


def devices(world: World) -> list[str]:
    """Devices in the containers, besides loopback."""
    found: list[str] = []
    for container in world.containers:
        with Session.open(container.namespace.name) as session:
            found += [link.name for link in dump_links(session) if link.name != "lo"]
    return found


def test_t16_several_endpoints_of_a_host_go_one_at_a_time(encap: EncapName) -> None:
    with World(encap, hosts=2) as world:
        h1, h2 = world.hosts
        for number in range(2, 7):
            world.member(h1, A, number)
        witness = world.member(h2, A, 9)
        world.publish()
        for container in world.containers[:5]:
            common_tests(container, witness, 4)
            container.endpoint.delete()
            world.publish()
        witness.endpoint.delete()
        world.publish()
        assert_empty(world.hosts)
        assert devices(world) == []


@pytest.mark.vm
def test_t16_all_endpoints_of_a_network_go_at_once(encap: EncapName, version: int) -> None:
    with World(encap, hosts=2) as world:
        for net in (A, B):
            world.network(net)
            for host in world.hosts:
                world.member(host, net, 2 + len(world.containers))
        world.publish()
        for host in world.hosts:
            members = [each for each in mz.Endpoint.list(host.agent) if str(each.ip).startswith("10.1.")]
            mz.Endpoint.delete_many(host.agent, [each.name for each in members])
            for prefix in A.prefixes:
                del host.agent.networks[VNI, prefix]
        world.publish()
        common_tests(*world.containers[2:], version)
        assert [len(host.agent.endpoints) for host in world.hosts] == [4, 4]
        assert [len(host.agent.networks) for host in world.hosts] == [2, 2]


def forget_vni(world: World) -> None:
    """Everything of the VNI, as a control plane would remove it."""
    for host in world.hosts:
        mz.Endpoint.delete_many(host.agent, [each.name for each in mz.Endpoint.list(host.agent, vni=VNI)])
        host.agent.endpoints.sync([], vni=VNI)
        for key in host.agent.networks.snapshot():
            del host.agent.networks[key]


def test_t17_a_vni_goes_after_its_switch_and_router_were_replaced(encap: EncapName, version: int) -> None:
    with World(encap, hosts=6) as world:
        h1, h2, *rest = world.hosts
        homes = {A: h1, B: h2}
        for net, home in homes.items():
            world.network(net, on=[home])
            world.member(home, net, 2)
        world.inform(*rest)
        for switch, router in (rest[:2], rest[2:]):
            for net, home in homes.items():
                world.network(net, switches=[switch], on=[home, router])
                world.route(VNI, routers=[router], on=[home])
            world.switch(switch, router)
            common_tests(*world.containers, version)
        forget_vni(world)
        assert_empty(world.hosts)
        assert devices(world) == []
        assert not any(ROUTES[0] in map(str, host.agent.networks) for host in world.hosts)


@pytest.mark.vm
def test_t17_a_vni_goes_whole_and_another_one_stays(encap: EncapName, version: int) -> None:
    other = Subnet(4, 1)
    with World(encap, hosts=3) as world:
        h1, h2, switch = world.hosts
        for net in (A, other):
            world.network(net, switches=[switch], on=(h1, h2))
            world.member(h1, net, 2), world.member(h2, net, 3)
        world.inform(switch)
        world.switch(switch)
        for host in world.hosts:
            mz.Endpoint.delete_many(host.agent, [each.name for each in mz.Endpoint.list(host.agent, vni=VNI)])
            host.agent.endpoints.sync([], vni=VNI)
            for key in [key for key in host.agent.networks if key.vni == VNI]:
                del host.agent.networks[key]
            assert not any(key.vni == VNI for key in host.agent.endpoints)
            assert len(contents(host.agent)["records"]) == (host is not switch)
        common_tests(*world.containers[2:], version)
