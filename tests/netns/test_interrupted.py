# SPDX-License-Identifier: Apache-2.0
"""Whoever dies halfway through leaves nothing that delivers wrongly, and nothing that the next call cannot mend."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import mizarnet as mz
from mizarnet._datapath.endpoints import removal
from mizarnet._kernel.netlink import Session, create_netns, create_veth, delete_netns, dump_links, get_link
from tests.support.agreement import disagreements
from tests.support.process import finish, start_python
from tests.support.traffic import assert_no_ping, assert_ping
from tests.support.wait import wait_until
from tests.world import UNDERLAY, Container, Host, World, links

# Each ends the process at one point of a create or a delete, as a signal would; and how far the endpoint has come then.
DEATHS = {
    "before the device": ("device._create = lambda *_: os._exit(9)", mz.Life.MAKING),
    "before the device is recorded": ("entries.publish = lambda *_: os._exit(9)", mz.Life.MAKING),
    "before others can reach it": ("entries.Record.pack_endpoint = lambda *_: os._exit(9)", mz.Life.MAKING),
    "before the device is deleted": ("removal.delete_links = lambda *_, **__: os._exit(9)", mz.Life.DELETING),
    "before the record is deleted": ("entries.take_record = lambda *_: os._exit(9)", mz.Life.DELETING),
}
CREATE = """
from mizarnet._datapath.endpoints import device, entries, removal
host, netns, point, tunnel = sys.argv[1:]
exec(point)
agent = mz.TransitAgent.open(tunnel, netns=host)
endpoint = mz.Endpoint.create(agent, name="web", vni=7, ip="10.0.0.1/24", netns=netns)
endpoint.delete()
"""


def die(host: Host, netns: str, point: str, tunnel: str = "tunnel0") -> None:
    status, output = finish(start_python(CREATE, host.namespace.name, netns, DEATHS[point][0], tunnel))
    assert status == 9, output


@pytest.mark.parametrize("point", DEATHS)
def test_an_endpoint_can_be_created_after_its_maker_died(world: World, point: str) -> None:
    host, namespace = world.hosts[0], world.namespace("web")
    neighbour = world.container(host, 7, "10.0.0.2/24")
    die(host, namespace.name, point)
    mz.Endpoint.create(host.agent, name="web", vni=7, ip="10.0.0.1/24", netns=namespace.name)
    assert_ping(neighbour.namespace, "10.0.0.1")


@pytest.mark.parametrize("point", DEATHS)
def test_what_is_left_of_an_endpoint_is_named_and_deleted_by_a_handle(world: World, point: str) -> None:
    host, namespace = world.hosts[0], world.namespace("web")
    die(host, namespace.name, point)
    assert mz.Endpoint.list(host.agent) == []
    (listed,) = mz.Endpoint.list(host.agent, dead=True)
    assert (listed.name, listed.state().life) == ("web", DEATHS[point][1])
    with pytest.raises(mz.EndpointNotFoundError, match="not whole"):
        mz.Endpoint.open(host.agent, "web")
    mz.Endpoint.open(host.agent, "web", dead=True).delete()
    assert mz.Endpoint.list(host.agent, dead=True) == []
    assert disagreements(host.agent, [namespace.name]) == []


def test_what_is_left_of_a_name_does_not_lead_to_its_successor(world: World) -> None:
    """Same VNI, address, MAC and namespace: the one that was never whole has no device of its own any more."""
    host, namespace = world.hosts[0], world.namespace("web")
    namespace.run("ip", "route", "add", "default", "dev", "lo")
    program = """
        from mizarnet._datapath.endpoints import entries
        entries.take_record = lambda *_: os._exit(9)
        agent = mz.TransitAgent.open("tunnel0", netns=sys.argv[1])
        mz.Endpoint.create(agent, name="first", vni=7, ip="10.0.0.1/24", netns=sys.argv[2], gateway="10.0.0.254")
    """
    assert finish(start_python(program, host.namespace.name, namespace.name))[0] == 9
    second = mz.Endpoint.create(host.agent, name="second", vni=7, ip="10.0.0.1/24", netns=namespace.name)
    assert mz.Endpoint.open(host.agent, "first", dead=True).state().life is mz.Life.DELETING
    mz.Endpoint.delete_many(host.agent, ["first"])
    assert second.state().life is mz.Life.LIVE
    assert disagreements(host.agent, [namespace.name]) == []


def test_a_namespace_that_came_after_the_look_at_its_name_keeps_its_devices(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its engine deletes a container and makes another of the same name while the endpoints are deleted."""
    agent, names = world.hosts[0].agent, [world.namespace(f"c{n}").name for n in range(2)]
    made = [
        mz.Endpoint.create(agent, vni=7, ip=f"10.0.0.{n}/32", netns=names[n > 2], ifname=f"e{n}")
        for n in (1, 2, 3)
    ]

    def renew(host: Session, works: Any) -> None:
        for name in names:
            delete_netns(name)
            create_netns(name)
            with Session.open(name) as session:
                for n in range(1, 4):
                    create_veth(session, f"e{n}", peer=f"p{n}")
        really(host, works)

    really = removal.side_by_side
    monkeypatch.setattr(removal, "side_by_side", renew)
    mz.Endpoint.delete_many(agent, [each.name for each in made])
    assert mz.Endpoint.list(agent, dead=True) == []
    for name in names:
        with Session.open(name) as session:
            assert len(dump_links(session)) == 7


@pytest.mark.parametrize("point", DEATHS)
def test_an_endpoint_can_be_deleted_after_its_maker_died(world: World, point: str) -> None:
    host, namespace = world.hosts[0], world.namespace("web")
    die(host, namespace.name, point)
    mz.Endpoint.delete_many(host.agent, ["web"])
    assert links(namespace) == ["lo"]
    assert host.agent.endpoints.snapshot() == {}


def test_the_same_device_of_another_tunnel_is_left_alone(host: Host, world: World) -> None:
    """Same VNI, address, MAC, namespace and name of the device: only the tunnel tells the two endpoints apart."""
    namespace, netns = world.namespace("web"), host.namespace.name
    port = host.tunnel.port + 1
    with (
        mz.Tunnel.create(
            "tunnel1", encap=host.tunnel.encap, underlay=UNDERLAY, port=port, netns=netns
        ) as other,
        mz.TransitAgent.attach(other) as agent,
    ):
        web = mz.Endpoint.create(host.agent, name="web", vni=7, ip="10.0.0.1/24", netns=namespace.name)
        die(host, namespace.name, "before the device", "tunnel1")
        with pytest.raises(mz.EndpointNotFoundError, match="is being made"):
            mz.Endpoint.open(agent, "web")
        mz.Endpoint.delete_many(agent, ["web"])
        assert web.state().up
        web.delete()
        assert links(namespace) == ["lo"]
        other.delete()


def test_a_tunnel_can_be_created_after_its_maker_died(world: World) -> None:
    namespace = world.namespace("half")
    program = """
        from mizarnet._kernel.netlink import create
        create.silence = lambda *_, **__: os._exit(9)
        mz.Tunnel.create("tunnel0", encap="vxlan", underlay="lo", netns=sys.argv[1])
    """
    with Session.open(namespace.name) as session:
        namespace.run("ip", "address", "add", "192.0.2.9/32", "dev", "lo")
        assert finish(start_python(program, namespace.name))[0] == 9
        with mz.Tunnel.create("tunnel0", encap="vxlan", underlay="lo", netns=namespace.name) as tunnel:
            assert tunnel.created
            assert links(namespace) == ["lo", "tunnel0"]
            tunnel.delete()
        assert get_link(session, "tunnel0") is None


def test_two_processes_make_one_tunnel(world: World) -> None:
    namespace = world.namespace("both")
    namespace.run("ip", "address", "add", "192.0.2.9/32", "dev", "lo")
    program = """
        for _ in range(10):
            with mz.Tunnel.create("tunnel0", encap="vxlan", underlay="lo", netns=sys.argv[1]) as tunnel:
                made = tunnel.created
    """
    both = [start_python(program, namespace.name) for _ in range(2)]
    assert [finish(process) for process in both] == [(0, ""), (0, "")]
    with mz.Tunnel.open("tunnel0", netns=namespace.name) as tunnel:
        tunnel.delete()


def test_a_name_that_means_another_namespace_now_gets_a_new_endpoint(web: Container, world: World) -> None:
    agent, name = web.host.agent, web.namespace.name
    kept = os.open(f"/run/netns/{name}", os.O_RDONLY)
    try:
        delete_netns(name)
        create_netns(name)
        again = mz.Endpoint.create(agent, name="web", vni=7, ip="10.0.0.1/24", netns=name)
        assert again.created
        assert_ping(world.container(web.host, 7, "10.0.0.2/24").namespace, "10.0.0.1")
    finally:
        os.close(kept)


def test_a_remote_takes_the_place_of_what_is_gone(web: Container) -> None:
    agent = web.host.agent
    web.namespace.delete()
    wait_until(lambda: mz.Endpoint.list(agent) == [])
    agent.endpoints[7, "10.0.0.1"] = mz.Remote("192.0.2.2")
    assert agent.endpoints[7, "10.0.0.1"] == mz.Remote("192.0.2.2")


# -- namespaces --------------------------------------------------------------------------------------------


def test_an_endpoint_of_the_host_leaves_its_default_route_alone(host: Host) -> None:
    host.namespace.run("ip", "route", "add", "default", "via", "192.0.2.254", "metric", "100")
    host.agent.networks[7, "10.0.0.0/24"] = mz.Network(gateway="10.0.0.254")
    mz.Endpoint.create(host.agent, vni=7, ip="10.0.0.1/24", ifname="ep0")
    assert "192.0.2.254" in host.namespace.run("ip", "route", "get", "203.0.113.1")


def test_a_second_endpoint_of_a_namespace_does_without_the_default_route(host: Host, world: World) -> None:
    for prefix in ("10.0.0.0/24", "10.1.0.0/24"):
        host.agent.networks[7, prefix] = mz.Network(gateway=prefix.replace("0/24", "254"))
    both = world.namespace("both").name
    mz.Endpoint.create(host.agent, vni=7, ip="10.0.0.1/24", netns=both)
    with pytest.raises(mz.ExistsError, match="default route"):
        mz.Endpoint.create(
            host.agent, vni=7, ip="10.1.0.1/24", netns=both, ifname="eth1", gateway="10.1.0.254"
        )
    mz.Endpoint.create(host.agent, vni=7, ip="10.1.0.1/24", netns=both, ifname="eth1")


def test_a_namespace_of_another_user_namespace_is_refused_unless_trusted(host: Host) -> None:
    owner = start_python("os.read(0, 1)", by=("unshare", "--user", "--map-root-user", "--net"))
    try:
        path = f"/proc/{owner.pid}/ns/net"
        _wait_for_own_namespace(Path(path))
        spec = {"name": "foreign", "vni": 7, "ip": "10.0.0.1/24", "netns": path}
        with pytest.raises(mz.UntrustedNamespaceError, match="trust_user_namespace"):
            mz.Endpoint.create(host.agent, **spec)
        assert mz.Endpoint.list(host.agent) == []
        mz.Endpoint.create(host.agent, **spec, trust_user_namespace=True).delete()
    finally:
        owner.kill()
        finish(owner)


def _wait_for_own_namespace(path: Path) -> None:
    own = os.stat("/proc/self/ns/net").st_ino
    wait_until(lambda: path.stat().st_ino != own)


def test_a_private_namespace_goes_with_its_tunnel(host: Host) -> None:
    vm = mz.Endpoint.create(host.agent, vni=7, ip="10.0.0.1/24", kind="macvtap")
    assert vm.netns in os.listdir("/run/netns")
    host.tunnel.delete(force=True)
    assert vm.netns not in os.listdir("/run/netns")


def test_a_namespace_that_only_looks_private_stays(host: Host) -> None:
    create_netns("mizarnet-mine")
    try:
        mz.Endpoint.create(
            host.agent, vni=7, ip="10.0.0.1/24", kind="macvtap", netns="mizarnet-mine"
        ).delete()
        assert "mizarnet-mine" in os.listdir("/run/netns")
    finally:
        delete_netns("mizarnet-mine")


@pytest.mark.parametrize("tunnel", [0, 1 << 32, 9_999_999_999])
def test_a_namespace_whose_mark_cannot_be_is_not_ours(host: Host, tunnel: int) -> None:
    name, netns = "mizarnet-00000000000000aa", host.namespace.name
    with Session.open(netns) as session:
        create_netns(name, alias=f"mizarnet host={session.cookie:x} tunnel={tunnel} endpoint=aa")
    try:
        with mz.Host.open(netns=netns) as here:
            assert here.check() == []
            assert [*here.repair().done, *here.gc().done] == []
        assert name in os.listdir("/run/netns")
    finally:
        delete_netns(name)


def test_detaching_what_is_detached_succeeds(host: Host) -> None:
    switch = mz.TransitSwitch.attach(host.agent, mode="generic")
    host.agent.detach()
    switch.detach()
    with mz.TransitAgent.attach(host.tunnel) as heir:
        namespace = host.namespace.name + "c"
        create_netns(namespace)
        try:
            mz.Endpoint.create(heir, vni=7, ip="10.0.0.1/24", netns=namespace)
            host.agent.detach()  # of the earlier life: the heir's endpoints are no business of it
            assert all(heir.state().attached.values())
        finally:
            heir.detach(force=True)
            delete_netns(namespace)


def test_no_ping_to_what_never_came_to_be(world: World) -> None:
    host, namespace = world.hosts[0], world.namespace("web")
    neighbour = world.container(host, 7, "10.0.0.2/24")
    die(host, namespace.name, "before others can reach it")
    assert_no_ping(neighbour.namespace, "10.0.0.1")
