# SPDX-License-Identifier: Apache-2.0
"""An endpoint is made once, as asked for, and says what it is."""

from __future__ import annotations

import json
from ipaddress import ip_interface
from typing import Any

import pytest

import mizarnet as mz
from tests.support.tables import unchanged
from tests.support.traffic import assert_no_ping, assert_ping
from tests.world import Container, World, device, links


def test_what_was_left_open_is_filled_in(web: Container) -> None:
    made = web.endpoint
    assert made.created
    assert (made.spec.mtu, made.mac) == (1450, mz.MacAddress.derive(7, made.ip))
    state = made.state()
    assert (state.up, state.mtu, state.mac, state.mode) == (True, 1450, str(made.mac), "private")


def test_creating_it_again_finds_it(web: Container) -> None:
    with unchanged(web.host.agent):
        again = mz.Endpoint.create(web.host.agent, web.endpoint.spec)
    assert not again.created
    assert again.spec == web.endpoint.spec
    assert again.ifindex == web.endpoint.ifindex


def test_creating_it_again_with_less_said_finds_it(web: Container) -> None:
    again = mz.Endpoint.create(web.host.agent, name="web", vni=7, ip="10.0.0.1/24", netns=web.namespace.name)
    assert not again.created


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("vni", 8),
        ("ip", "10.0.0.2/24"),
        ("ifname", "eth1"),
        ("mac", "02:00:00:00:00:09"),
        ("mtu", 1400),
        ("gateway", "10.0.0.254"),
        ("forwarding", True),
        ("kind", "macvtap"),
        ("netns", "mzt-another"),
    ],
)
def test_a_given_argument_that_differs_is_named(web: Container, argument: str, value: object) -> None:
    given: dict[str, Any] = {"name": "web", "vni": 7, "ip": "10.0.0.1/24", "netns": web.namespace.name}
    with unchanged(web.host.agent), pytest.raises(mz.ExistsError) as caught:
        mz.Endpoint.create(web.host.agent, **{**given, argument: value})
    assert list(caught.value.differences) == [argument]
    assert caught.value.holder == "web"


def test_both_families_gateway_and_mtu_reach_the_namespace(world: World) -> None:
    namespace = world.namespace("both")
    made = mz.Endpoint.create(
        world.hosts[0].agent,
        vni=7,
        ip=["10.0.0.1/24", "fd00::1/64"],
        netns=namespace.name,
        gateway=["10.0.0.254", "fd00::fe"],
        mtu=1400,
    )
    assert [str(address) for address in made.addresses] == ["10.0.0.1/24", "fd00::1/64"]
    shown = json.loads(namespace.run("ip", "-j", "addr", "show", "dev", "eth0"))[0]
    found = {
        f"{each['local']}/{each['prefixlen']}" for each in shown["addr_info"] if each["scope"] == "global"
    }
    assert found == {"10.0.0.1/24", "fd00::1/64"}
    assert shown["mtu"] == 1400
    for family, gateway in (("-4", "10.0.0.254"), ("-6", "fd00::fe")):
        routes = json.loads(namespace.run("ip", family, "-j", "route", "show", "default"))
        assert [route["gateway"] for route in routes] == [gateway]


def test_the_networks_gateway_is_the_default(world: World) -> None:
    host = world.hosts[0]
    host.agent.networks[7, "10.0.0.0/24"] = mz.Network(gateway="10.0.0.254")
    assert str(world.container(host, 7, "10.0.0.1/24").endpoint.spec.gateway[0]) == "10.0.0.254"
    assert world.container(host, 7, "10.0.1.1/24").endpoint.spec.gateway == ()


def test_an_endpoint_of_the_host_itself(world: World) -> None:
    first, second = world.hosts
    mz.Endpoint.create(first.agent, vni=7, ip="10.0.0.1/24", ifname="mz0")
    second.agent.endpoints[7, "10.0.0.1"] = mz.Remote(first.address)
    other = world.container(second, 7, "10.0.0.2/24")
    assert_ping(first.namespace, other.ip)
    assert_ping(other.namespace, "10.0.0.1")


def test_a_namespace_may_have_several_endpoints(web: Container) -> None:
    agent = web.host.agent
    mz.Endpoint.create(agent, vni=8, ip="10.1.0.1/24", netns=web.namespace.name, ifname="eth1")
    assert links(web.namespace) == ["lo", "eth0", "eth1"]


def test_a_namespace_by_path(world: World) -> None:
    namespace = world.namespace("path")
    mz.Endpoint.create(world.hosts[0].agent, vni=7, ip="10.0.0.1/24", netns=namespace.path)
    assert links(namespace) == ["lo", "eth0"]


# -- what it says ------------------------------------------------------------------------------------------


def test_it_counts_what_it_sent_received_and_was_refused(world: World, web: Container) -> None:
    other = world.container(world.hosts[1], 7, "10.0.0.2/24")
    assert_ping(web.namespace, other.ip)
    before = web.endpoint.stats()
    assert_ping(web.namespace, other.ip, size=100)
    assert_no_ping(web.namespace, "10.0.0.77")
    after = web.endpoint.stats()
    assert (after.sent - before.sent) == mz.Counter(1, 14 + 20 + 8 + 100)
    assert (after.received - before.received) == mz.Counter(1, 14 + 20 + 8 + 100)
    assert (after.dropped - before.dropped).packets >= 1


def test_counters_begin_at_zero_in_each_life(world: World, web: Container) -> None:
    neighbour = world.container(web.host, 7, "10.0.0.2/24")
    assert_ping(web.namespace, neighbour.ip)
    web.endpoint.delete()
    assert mz.Endpoint.create(web.host.agent, web.endpoint.spec).stats().received == mz.Counter()


def test_its_text_is_one_line(web: Container) -> None:
    assert repr(web.endpoint) == f"<Endpoint 'web': 10.0.0.1 of VNI 7 in {web.namespace.name}>"
    assert "<table" in web.endpoint._repr_html_()


def test_the_device_has_the_address_that_was_asked_for(web: Container) -> None:
    assert web.endpoint.addresses == (ip_interface("10.0.0.1/24"),)
    assert device(web.namespace, "eth0").mac == str(web.endpoint.mac)
