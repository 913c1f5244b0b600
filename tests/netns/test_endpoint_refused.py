# SPDX-License-Identifier: Apache-2.0
"""Creating an endpoint fails for a reason, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import mizarnet as mz
from mizarnet._kernel.netlink import Session, create_veth, delete_link, delete_netns, get_link
from tests.support.namespace import Namespace
from tests.support.tables import unchanged
from tests.support.wait import wait_until
from tests.world import TUNNEL, Host, World, links, new_namespace


@pytest.mark.parametrize(
    ("taken", "spec"),
    [
        ("10.0.0.1", {"vni": 7, "ip": "10.0.0.1/24"}),
        ("02:00:00:00:00:07", {"vni": 9, "ip": "10.0.0.9/24", "mac": "02:00:00:00:00:07"}),
    ],
)
def test_an_address_or_mac_that_is_taken_names_its_holder(
    world: World, taken: str, spec: dict[str, Any]
) -> None:
    host = world.hosts[0]
    world.container(host, 7, "10.0.0.1/24", name="web", mac="02:00:00:00:00:07")
    other = world.namespace("other")
    with unchanged(host.agent), pytest.raises(mz.ExistsError, match=taken) as caught:
        mz.Endpoint.create(host.agent, name="other", netns=other.name, **spec)
    assert caught.value.holder == "web"
    assert links(other) == ["lo"]


def name_taken(host: Host, namespace: Namespace) -> None:
    with Session.open(namespace.name) as session:
        create_veth(session, "eth0", peer="peer0")


def default_route_taken(host: Host, namespace: Namespace) -> None:
    mz.Endpoint.create(
        host.agent, vni=9, ip="10.9.0.1/24", netns=namespace.name, ifname="first", gateway="10.9.0.254"
    )


def device_without_ethernet(host: Host, namespace: Namespace) -> None:
    namespace.run("ip", "tuntap", "add", "dev", "eth0", "mode", "tun")


def namespace_gone(host: Host, namespace: Namespace) -> None:
    namespace.delete()


@pytest.mark.parametrize(
    ("arrange", "error"),
    [
        (name_taken, mz.ExistsError),
        (device_without_ethernet, mz.ExistsError),
        (default_route_taken, mz.ExistsError),
        (namespace_gone, mz.NetnsNotFoundError),
    ],
)
def test_a_failure_at_any_step_leaves_nothing(
    host: Host, arrange: Callable[[Host, Namespace], None], error: type[Exception]
) -> None:
    namespace = new_namespace("half")
    try:
        arrange(host, namespace)
        before = links(namespace) if error is not mz.NetnsNotFoundError else []
        with unchanged(host.agent), pytest.raises(error):
            mz.Endpoint.create(
                host.agent,
                vni=7,
                ip=["10.0.0.5/24", "fd00::5/64"],
                netns=namespace.name,
                gateway="10.0.0.254",
            )
        if before:
            assert links(namespace) == before
    finally:
        namespace.delete()


def test_what_is_in_the_way_in_a_new_namespace_of_that_name_costs_nobody_the_endpoint(world: World) -> None:
    """The container lives on in a namespace that has lost its name to another one."""
    agent, space = world.hosts[0].agent, world.namespace("web")
    made = mz.Endpoint.create(agent, vni=7, ip="10.0.0.1/24", netns=space.name)
    with Session.open(space.name) as alive:
        space.delete()
        name_taken(world.hosts[0], Namespace(space.name))
        with unchanged(agent), pytest.raises(mz.ExistsError, match="has a device eth0"):
            mz.Endpoint.create(agent, made.spec)
        assert made.state().life is mz.Life.LIVE
        with Session.open(space.name) as there:
            delete_link(there, name="eth0")
        assert mz.Endpoint.create(agent, made.spec).created
        assert get_link(alive, "eth0") is None
    assert links(space) == ["lo", "eth0"]


def test_an_mtu_larger_than_the_tunnels(host: Host) -> None:
    with unchanged(host.agent), pytest.raises(mz.MtuError, match="1450"):
        mz.Endpoint.create(host.agent, vni=7, ip="10.0.0.1/24", mtu=1451)


def test_a_tunnel_whose_mtu_was_lowered_by_hand(world: World, host: Host) -> None:
    host.namespace.run("ip", "link", "set", TUNNEL, "mtu", "1400")
    netns = world.namespace("web").name
    with unchanged(host.agent), pytest.raises(mz.MtuError, match="1450 is larger than the tunnel's 1400"):
        mz.Endpoint.create(host.agent, vni=7, ip="10.0.0.1/24", netns=netns, mtu=1450)
    assert mz.Endpoint.create(host.agent, vni=7, ip="10.0.0.1/24", netns=netns).state().mtu == 1400


@pytest.mark.vm
@pytest.mark.parametrize("table", ["senders", "endpoints"])
def test_a_full_table_leaves_nothing_half_made(table: str) -> None:
    sizes = {"senders": {"max_local": 2}, "endpoints": {"max_local": 8, "max_endpoints": 3}}[table]
    with World("vxlan", hosts=1, **sizes) as world:
        host, namespace = world.hosts[0], world.namespace("full")
        for n in (1, 2):
            mz.Endpoint.create(host.agent, vni=7, ip=f"10.0.0.{n}/32", netns=namespace.name, ifname=f"e{n}")
        if table == "endpoints":
            host.agent.endpoints[7, "10.0.0.9"] = mz.Remote("192.0.2.2")
        with unchanged(host.agent), pytest.raises(mz.CapacityError) as caught:
            mz.Endpoint.create(host.agent, vni=7, ip="10.0.0.3/32", netns=namespace.name, ifname="e3")
        assert caught.value.table == table
        assert caught.value.capacity == {"senders": 2, "endpoints": 3}[table]
        assert links(namespace) == ["lo", "e1", "e2"]
        mz.Endpoint.open(host.agent, "7/10.0.0.2").delete()
        mz.Endpoint.create(host.agent, vni=7, ip="10.0.0.3/32", netns=namespace.name, ifname="e3")


@pytest.mark.parametrize("table", ["senders", "endpoints"])
def test_containers_that_ended_without_a_word_leave_their_room(table: str) -> None:
    """Nobody deletes the endpoint of a container that was killed with its namespace."""
    sizes = {"senders": {"max_local": 2}, "endpoints": {"max_local": 8, "max_endpoints": 2}}[table]
    with mz.Lab(hosts=1, name="room", **sizes) as lab:
        agent = lab.hosts[0].agent
        for number in range(1, 6):
            netns = lab.container(f"c{number}")
            made = mz.Endpoint.create(agent, vni=7, ip=f"10.0.0.{number}/24", netns=netns)
            if number > 1:
                delete_netns(netns)
                wait_until(lambda gone=made: gone.name not in [each.name for each in mz.Endpoint.list(agent)])
        assert [each.name for each in mz.Endpoint.list(agent)] == ["7/10.0.0.1"]
        with pytest.raises(mz.CapacityError):
            for number in (8, 9):
                mz.Endpoint.create(agent, vni=7, ip=f"10.0.0.{number}/24", netns=lab.container(f"d{number}"))


def test_the_entry_of_an_endpoint_without_a_device_can_be_removed(world: World) -> None:
    agent, namespace = world.hosts[0].agent, world.namespace("brief")
    mz.Endpoint.create(agent, vni=7, ip=["10.0.0.1/24", "fd00::1/64"], netns=namespace.name)
    with pytest.raises(mz.LocalEndpointError):
        del agent.endpoints[7, "10.0.0.1"]
    namespace.delete()
    wait_until(lambda: not mz.Endpoint.list(agent))
    del agent.endpoints[7, "10.0.0.1"]
    assert len(agent.endpoints) == 0
    with pytest.raises(mz.EntryNotFoundError):
        del agent.endpoints[7, "10.0.0.1"]
