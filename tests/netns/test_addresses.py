# SPDX-License-Identifier: Apache-2.0
"""An endpoint with several addresses of each family: each is as good as the first."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from ipaddress import ip_interface
from typing import Any

import pytest

import mizarnet as mz
from mizarnet import Verdict
from mizarnet._kernel.netlink import Session, delete_address, list_addresses
from mizarnet._model import codec
from tests.frames import BROADCAST, arp, datagram, ethernet
from tests.support.icmp import echo
from tests.support.tables import contents, unchanged
from tests.support.traffic import assert_no_ping, assert_ping
from tests.support.wait import wait_until
from tests.world import Container, World, device, links, total

MANY = tuple(f"10.0.0.{n}/24" for n in range(1, 65)) + tuple(f"fd00::{n:x}/64" for n in range(1, 65))


def _texts(endpoint: mz.Endpoint) -> list[str]:
    return [str(each) for each in endpoint.addresses]


def _send(container: Container, frame: bytes) -> None:
    """Send a frame, which may be refused."""
    with container.packet_socket() as raw, suppress(OSError):
        raw.send(frame)


@pytest.mark.vm
def test_every_one_of_many_addresses_is_reached_from_here_and_from_elsewhere(world: World) -> None:
    first, second = world.hosts
    memory = first.agent.state().memory
    many = world.container(first, 7, MANY)
    near = world.container(first, 7, ("10.0.0.201/24", "fd00::201/64"))
    far = world.container(second, 7, ("10.0.0.202/24", "fd00::202/64"))
    for ip in (MANY[0], MANY[1], MANY[40], MANY[63], MANY[64], MANY[65], MANY[127]):
        address = ip.partition("/")[0]
        for each in (near, far):
            assert echo(each.namespace, address), f"{address} does not answer {each.ip}"
    assert _texts(many.endpoint) == [*MANY]
    assert set(many.endpoint.state().addresses) == {*many.endpoint.addresses}
    assert first.agent.state().memory == memory


def test_further_addresses_speak_as_the_first(world: World) -> None:
    """A source that is no address of the endpoint's is refused, whoever else has it."""
    first, second = world.hosts
    web = world.container(first, 7, ("10.0.0.1/24", "10.0.0.11/24", "10.1.0.1/24"))
    world.container(first, 7, ("10.0.0.2/24", "10.0.0.12/24"))
    far = world.container(second, 7, ("10.0.0.3/24", "10.1.0.3/24"))
    with far.udp(9) as heard:
        for source in ("10.0.0.1", "10.0.0.11", "10.1.0.1"):
            with web.udp(0, ip=source) as sending:
                sending.sendto(b"hello", (far.ip, 9))
                assert heard.recvfrom(100)[1][0] == source
    before = total([first], "agent", Verdict.FOREIGN_SOURCE)
    for source in ("10.0.0.2", "10.0.0.12", "10.0.0.99"):
        _send(web, datagram(web.mac, source, far.ip, destination_mac=bytes(6)))
    assert total([first], "agent", Verdict.FOREIGN_SOURCE) == before + 3


def test_neighbours_of_a_further_address_are_not_routed_to(world: World) -> None:
    first, second = world.hosts
    web = world.container(first, 7, ("10.0.0.1/24", "10.1.0.1/24"))
    far = world.container(second, 7, ("10.0.0.3/24", "10.1.0.3/24"))
    with far.udp(9, ip="10.1.0.3") as heard, web.udp(0, ip="10.1.0.1") as sending:
        sending.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 1)
        sending.sendto(b"one hop", ("10.1.0.3", 9))
        assert heard.recv(100) == b"one hop"


def test_questions_about_the_own_addresses_are_consumed(world: World) -> None:
    first, _ = world.hosts
    web = world.container(first, 7, ("10.0.0.1/24", "10.0.0.11/24"))
    other = world.container(first, 7, ("10.0.0.2/24",))

    def ask(who: Container, sender: str, target: str, verdict: Verdict) -> None:
        before = total([first], "agent", verdict)
        _send(who, ethernet(BROADCAST, who.mac, 0x0806, arp(who.mac, sender, target)))
        assert total([first], "agent", verdict) == before + 1

    ask(web, "0.0.0.0", "10.0.0.11", Verdict.OWN_ADDRESS_ASKED)  # a probe
    ask(web, "10.0.0.11", "10.0.0.11", Verdict.OWN_ADDRESS_ASKED)  # an announcement
    ask(web, "10.0.0.11", "10.0.0.2", Verdict.NEIGHBOUR_ANSWERED)
    ask(other, "10.0.0.2", "10.0.0.11", Verdict.NEIGHBOUR_ANSWERED)
    ask(other, "10.0.0.11", "10.0.0.11", Verdict.ARP_SPOOFED)
    ask(other, "0.0.0.0", "10.0.0.11", Verdict.ARP_SPOOFED)


def test_each_address_belongs_to_one_endpoint(world: World) -> None:
    host = world.hosts[0]
    world.container(host, 7, ("10.0.0.1/24", "10.0.0.11/24"), name="web")
    other = world.namespace("other")
    with unchanged(host.agent), pytest.raises(mz.ExistsError, match=r"10\.0\.0\.11") as caught:
        mz.Endpoint.create(host.agent, vni=7, ip=["10.0.0.2/24", "10.0.0.11/24"], netns=other.name)
    assert caught.value.holder == "web"
    found = mz.Endpoint.open(host.agent, vni=7, ip="10.0.0.11")
    assert (found.name, _texts(found)) == ("web", ["10.0.0.1/24", "10.0.0.11/24"])
    assert [_texts(each) for each in mz.Endpoint.list(host.agent)] == [["10.0.0.1/24", "10.0.0.11/24"]]


@pytest.mark.parametrize("kind", ["lo", "tun"])
def test_an_address_of_the_subnet_may_be_on_a_device_without_ethernet(world: World, kind: str) -> None:
    space = world.namespace("web")
    if kind == "tun":
        space.run("ip", "tuntap", "add", "dev", "tun", "mode", "tun")
    space.run("ip", "address", "add", "10.0.0.77/24", "dev", kind)
    made = world.add(world.hosts[0], space, vni=7, ip="10.0.0.1/24")
    space.run("ip", "address", "add", "10.0.5.77/24", "dev", kind)
    assert made.endpoint.update(ip=["10.0.0.1/24", "10.0.5.1/24"]) == ("ip",)
    assert made.endpoint.check() == []


@pytest.mark.parametrize("forwarding", [False, True])
@pytest.mark.parametrize("own", ["fe80::ff:fe00:7/64", "fe80::ff:fe00:7"])
@pytest.mark.parametrize("other", [[], ["10.0.0.1/24", "fd00::1/64"]])
def test_an_address_may_be_the_devices_own_link_local_one(
    world: World, forwarding: bool, own: str, other: list[str]
) -> None:
    near, far = world.hosts
    spec: dict[str, Any] = {"vni": 7, "name": "web", "mac": "02:00:00:00:00:07", "forwarding": forwarding}
    space = world.namespace("web")
    web = world.tell(world.add(near, space, ip=[*other, own], **spec))
    assert web.endpoint.check() == []
    assert {each.ip for each in web.endpoint.state().addresses} == {
        each.ip for each in web.endpoint.addresses
    }
    with Session.open(space.name) as session:
        assert not any(each.tentative for each in list_addresses(session))
    db = world.container(far, 7, ("10.0.0.2/24", "fe80::2/64"))
    db.namespace.run("ping", "-6", "-c", "1", "-W", "9", "fe80::ff:fe00:7%eth0")
    web.endpoint.update(ip="10.0.0.1/24")
    web.endpoint.update(ip=["10.0.0.1/24", own])
    assert web.endpoint.check() == []
    assert not mz.Endpoint.create(near.agent, web.endpoint.spec).created
    space.run("ip", "link", "set", "eth0", "down")
    assert not mz.Endpoint.create(near.agent, web.endpoint.spec).created
    assert web.endpoint.check() == []


def test_a_prefix_that_the_kernel_makes_no_route_to(world: World) -> None:
    web = world.container(world.hosts[0], 7, "0.1.2.3/8")
    assert web.endpoint.check() == []


def test_devices_may_have_names_that_are_no_text(world: World) -> None:
    space, name = world.namespace("web"), os.fsdecode(b"\xff\xfe")
    space.run("ip", "link", "add", name, "type", "veth", "peer", "name", "other")
    space.run("ip", "address", "add", "fd77::1/64", "dev", name)
    for each in (name, "other"):
        space.run("ip", "link", "set", each, "up")
    made = world.add(world.hosts[0], space, vni=7, ip="fd00::1/64")
    assert made.endpoint.update(ip=["fd00::1/64", "fd01::1/64"]) == ("ip",)
    assert made.endpoint.check() == []


def test_the_order_behind_the_first_of_a_family_says_nothing(world: World) -> None:
    host = world.hosts[0]
    web = world.container(host, 7, ("10.0.0.9/24", "fd00::9/64", "10.0.0.3/24", "10.0.0.1/24", "fd00::1/64"))
    assert _texts(web.endpoint) == ["10.0.0.9/24", "10.0.0.1/24", "10.0.0.3/24", "fd00::9/64", "fd00::1/64"]
    with unchanged(host.agent):
        again = mz.Endpoint.create(
            host.agent,
            vni=7,
            ip=["fd00::9/64", "fd00::1/64", "10.0.0.9/24", "10.0.0.1/24", "10.0.0.3/24"],
            netns=web.namespace.name,
        )
    assert not again.created
    with unchanged(host.agent), pytest.raises(mz.ExistsError) as caught:
        mz.Endpoint.create(host.agent, name=again.name, vni=7, ip=["10.0.0.9/24", "10.0.0.1/24"])
    assert "ip" in caught.value.differences


def test_the_same_lines_again_give_further_addresses_and_entries_back(world: World) -> None:
    host = world.hosts[0]
    web = world.container(host, 7, ("10.0.0.1/24", "10.0.0.11/24", "10.0.0.12/24"))
    before = contents(host.agent)
    found = web.endpoint.state()
    with Session.open(web.namespace.name) as session:
        for lost in ("10.0.0.11/24", "10.0.0.12/24"):
            delete_address(session, web.endpoint.ifindex, ip_interface(lost))
    key = mz.EndpointKey.parse((7, "10.0.0.12"))
    maps = host.agent._datapath.maps
    packed = codec.pack_endpoint_key(key)
    assert maps.endpoints.delete(packed) and maps.addresses.delete(packed)
    assert not mz.Endpoint.create(host.agent, web.endpoint.spec).created
    assert contents(host.agent) == before
    assert web.endpoint.state() == found
    assert isinstance(host.agent.endpoints[key], mz.Local)


def test_an_end_frees_all_addresses(world: World) -> None:
    host = world.hosts[0]
    before = contents(host.agent)
    web = world.add(host, world.namespace("web"), vni=7, ip=MANY)
    far = world.container(world.hosts[1], 7, "10.0.0.201/24")
    world.tell(web)
    assert_ping(far.namespace, "10.0.0.64")
    web.endpoint.delete()
    assert contents(host.agent) == {**before, "endpoints": contents(host.agent)["endpoints"]}
    assert [str(key.ip) for key in host.agent.endpoints] == ["10.0.0.201"]
    assert_no_ping(far.namespace, "10.0.0.64")


def test_containers_that_ended_leave_all_of_their_addresses(world: World) -> None:
    host, space = world.hosts[0], world.namespace("brief")
    mz.Endpoint.create(host.agent, vni=7, ip=["10.0.0.1/24", "10.0.0.11/24"], netns=space.name)
    space.delete()
    wait_until(lambda: not mz.Endpoint.list(host.agent))
    heir = world.container(host, 7, ("10.0.0.2/24", "10.0.0.11/24"))
    assert [each.name for each in mz.Endpoint.list(host.agent, dead=True)] == [heir.endpoint.name]
    host.agent.endpoints[7, "10.0.0.1"] = mz.Remote("192.0.2.2")


@pytest.mark.parametrize("count", [100, 5000])
def test_more_addresses_than_there_is_room_for_are_refused_before_anything_is_made(count: int) -> None:
    with World("vxlan", hosts=1, max_endpoints=count - 1) as world:
        host, space = world.hosts[0], world.namespace("full")
        ips = [f"10.{n >> 8}.{n & 255}.1/8" for n in range(count)]
        with unchanged(host.agent), pytest.raises(mz.CapacityError) as caught:
            mz.Endpoint.create(host.agent, vni=7, ip=ips, netns=space.name)
        assert (caught.value.table, caught.value.used) == ("endpoints", 0)
        made = mz.Endpoint.create(host.agent, vni=7, ip=ips[:99], netns=space.name)
        assert len(made.state().addresses) == 99


def test_a_vm_has_several_addresses(world: World) -> None:
    host = world.hosts[0]
    made = mz.Endpoint.create(host.agent, vni=7, ip=["10.0.0.1/24", "10.0.0.2/24"], kind="macvtap")
    assert [str(each) for each in made.addresses] == ["10.0.0.1/24", "10.0.0.2/24"]
    assert {str(key.ip) for key in host.agent.endpoints} == {"10.0.0.1", "10.0.0.2"}


def test_routes_and_gateways_beyond_the_link_are_made_and_given_back(world: World) -> None:
    host = world.hosts[0]
    routes = (
        mz.Route("10.9.0.0/16", "10.0.0.2"),
        mz.Route("192.0.2.77/32"),
        mz.Route("fd09::/48", "fe80::2"),
    )
    web = world.container(
        host, 7, ("10.0.0.1/32", "fd00::1/64"), gateway=["192.0.2.77", "fe80::1"], routes=routes
    )
    wanted = {
        *routes,
        mz.Route("0.0.0.0/0", "192.0.2.77"),
        mz.Route("::/0", "fe80::1"),
        mz.Route("fd00::/64"),
    }
    assert {*(web.endpoint.state().routes or ())} == wanted
    assert web.endpoint.spec.routes == tuple(
        sorted(routes, key=lambda each: (each.prefix.version, each.prefix))
    )
    assert echo(web.namespace, "192.0.2.77")
    for route in ("10.9.0.0/16", "default"):
        web.namespace.run("ip", "route", "del", route)
    web.namespace.run("ip", "-6", "route", "del", "fd09::/48")
    assert not mz.Endpoint.create(host.agent, web.endpoint.spec).created
    assert {*(web.endpoint.state().routes or ())} == wanted


def test_a_route_that_is_taken_is_named(world: World) -> None:
    host = world.hosts[0]
    space = world.namespace("taken")
    mz.Endpoint.create(
        host.agent,
        vni=8,
        ip="10.8.0.1/24",
        netns=space.name,
        ifname="first",
        routes=[mz.Route("10.9.0.0/16")],
    )
    with unchanged(host.agent), pytest.raises(mz.ExistsError, match=r"10\.9\.0\.0/16"):
        mz.Endpoint.create(
            host.agent,
            vni=7,
            ip="10.0.0.1/24",
            netns=space.name,
            routes=[mz.Route("10.9.0.0/16", "10.0.0.2")],
        )


def test_a_gateway_of_the_network_that_is_the_endpoint_itself_is_no_gateway(world: World) -> None:
    host = world.hosts[0]
    host.agent.networks[7, "10.0.0.0/24"] = mz.Network(gateway="10.0.0.254")
    router = world.container(host, 7, ("10.0.0.1/24", "10.0.0.254/24"))
    assert router.endpoint.spec.gateway == ()
    assert device(router.namespace, "eth0").up


# -- endpoints of one namespace


@pytest.mark.parametrize("ip", ["10.0.0.2/24", "10.0.1.2/16", "fd00::2/64"])
def test_two_endpoints_of_one_subnet_in_one_namespace_are_refused(world: World, ip: str) -> None:
    host = world.hosts[0]
    web = world.container(host, 7, ("10.0.0.1/24", "fd00::1/64"), name="web")
    with unchanged(host.agent), pytest.raises(mz.ExistsError, match=r"ip=\[") as caught:
        mz.Endpoint.create(host.agent, vni=7, ip=[ip], netns=web.namespace.name, ifname="eth1")
    assert caught.value.holder == "web"
    assert links(web.namespace) == ["lo", "eth0"]


def test_an_address_is_not_added_to_a_subnet_of_another_endpoint_of_the_namespace(world: World) -> None:
    host = world.hosts[0]
    web = world.container(host, 7, "10.0.0.1/24", name="web")
    second = world.add(host, web.namespace, vni=7, ip="10.1.0.1/24", ifname="eth1")
    with unchanged(host.agent), pytest.raises(mz.ExistsError) as caught:
        second.endpoint.update(ip=["10.1.0.1/24", "10.0.0.2/24"])
    assert caught.value.holder == "web"
    assert second.endpoint.update(ip=["10.1.0.1/24", "10.1.0.2/24"]) == ("ip",)


def test_two_that_may_both_forward_answer_for_each_other(world: World) -> None:
    first, second = world.hosts
    client = world.container(second, 7, "10.0.0.9/24")
    web = world.container(first, 7, "10.0.0.1/24", name="web", forwarding=True)
    vip = world.tell(
        world.add(first, web.namespace, vni=7, ip="10.0.0.100/24", ifname="vip0", name="vip", forwarding=True)
    )
    assert_ping(client.namespace, web.ip)
    assert_ping(client.namespace, vip.ip)
    with unchanged(first.agent), pytest.raises(mz.ExistsError) as caught:
        vip.endpoint.update(forwarding=False)
    assert caught.value.holder == "web"


def test_subnets_of_other_kinds_do_not_stand_in_the_way(world: World) -> None:
    """Another VNI, another subnet, a link-local one, an address alone, and a VM, which has its own for itself."""
    host = world.hosts[0]
    web = world.container(host, 7, ("10.0.0.1/24", "fe80::1:1/64"))
    world.add(host, web.namespace, vni=8, ip="10.0.0.2/24", ifname="eth1")
    world.add(host, web.namespace, vni=7, ip=("10.1.0.2/24", "fe80::1:2/64"), ifname="eth2")
    world.add(host, web.namespace, vni=7, ip="10.0.0.9", ifname="eth4")
    mz.Endpoint.create(
        host.agent, vni=7, ip="10.0.0.3/24", netns=web.namespace.name, ifname="eth3", kind="macvtap"
    )
