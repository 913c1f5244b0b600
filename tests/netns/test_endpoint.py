# SPDX-License-Identifier: Apache-2.0
"""An endpoint is made once, as asked for, and says what it is."""

from __future__ import annotations

import json
import os
import re
from functools import partial
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import attrs
import pytest

import mizarnet as mz
from mizarnet._kernel.netlink import Session, list_addresses, read_sysctl
from tests.support.icmp import echo
from tests.support.tables import unchanged
from tests.support.traffic import assert_no_ping, assert_ping
from tests.world import UNDERLAY, Container, World, device, links


def test_what_was_left_open_is_filled_in(web: Container) -> None:
    made = web.endpoint
    assert made.created
    assert (made.spec.mtu, made.mac) == (1450, mz.MacAddress.derive(7, made.ip))
    state = made.state()
    assert (state.up, state.mtu, state.mac, state.mode) == (True, 1450, made.mac, mz.MacvlanMode.PRIVATE)
    assert (state.addresses, state.routes) == (made.addresses, (mz.Route(made.addresses[0].network, None),))


def test_creating_it_again_finds_it(web: Container) -> None:
    with unchanged(web.host.agent):
        again = mz.Endpoint.create(web.host.agent, web.endpoint.spec)
    assert not again.created
    assert again.spec == web.endpoint.spec
    assert again.ifindex == web.endpoint.ifindex


def test_ipv6_comes_on_for_its_device_alone_where_new_devices_have_none(world: World) -> None:
    """As a container runtime leaves a namespace that is to have IPv4 only."""
    key = "ipv6/conf/{}/disable_ipv6"
    spaces = [world.namespace(name) for name in ("one", "other")]
    for number, (host, space) in enumerate(zip(world.hosts, spaces, strict=True), 1):
        space.set(**{key.format(which): 1 for which in ("all", "default")})
        ips = (f"10.0.0.{number}/24", f"fd00::{number}/64")
        world.tell(world.add(host, space, vni=7, ip=ips))
        with Session.open(space.name) as session:
            found = {which: read_sysctl(session, key.format(which)) for which in ("eth0", "lo", "default")}
        assert found == {"eth0": "0", "lo": "1", "default": "1"}
    assert echo(spaces[0], "fd00::2")
    assert echo(spaces[0], "10.0.0.2")


@pytest.mark.parametrize("disabled", [0, 1])
def test_a_router_asks_for_its_neighbours_at_once(world: World, disabled: int) -> None:
    """In the name of its link-local address: when it is made, and when it is set up again."""
    space = world.namespace("router")
    space.set(**{"ipv6/conf/default/disable_ipv6": disabled, "ipv6/conf/default/addr_gen_mode": 1})

    def made() -> tuple[bool, dict[str, bool]]:
        agent = world.hosts[0].agent
        mac = "02:00:00:00:00:01"
        mz.Endpoint.create(agent, vni=7, ip="fd00::1/64", netns=space.name, mac=mac, forwarding=True)
        with Session.open(space.name) as session:
            link = device(space, "eth0")
            there = list_addresses(session, ifindex=link.ifindex)
            return link.up, {str(each.interface): each.tentative for each in there}

    usable = {"fd00::1/64": False, "fe80::ff:fe00:1/64": False}
    assert made() == (True, usable)
    space.run("ip", "link", "set", "eth0", "down")
    assert made() == (True, usable)


def test_what_is_left_out_asks_for_its_default(web: Container) -> None:
    lines = {"name": "web", "vni": 7, "ip": "10.0.0.1/24", "netns": web.namespace.name}
    web.endpoint.update(mtu=1300, gateway="10.0.0.254", labels={"app": "shop"}, forwarding=True)
    create: Any = partial(mz.Endpoint.create, web.host.agent, **lines)
    with pytest.raises(mz.ExistsError, match="left out asks for its default") as caught:
        create()
    assert {*caught.value.differences} == {"labels", "forwarding"}
    assert not create(labels={"app": "shop"}, forwarding=True).created


def test_it_is_opened_by_its_name_or_by_an_address(web: Container) -> None:
    agent = web.host.agent
    for found in (mz.Endpoint.open(agent, "web"), mz.Endpoint.open(agent, vni=7, ip="10.0.0.1")):
        assert found.spec == web.endpoint.spec
    opened: Any = mz.Endpoint.open
    for given in ({"vni": 7}, {"vni": 8}, {"ip": "10.0.0.1"}):
        with pytest.raises(mz.InvalidTypeError, match="by name, or by vni= and ip="):
            opened(agent, "web", **given)


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
        ("default_route", "if-none"),
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
    assert not re.search(r"\w\(|[a-z]\.[A-Z]", str(caught.value))
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


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("when", mz.DefaultRoute)
def test_a_second_network_and_the_default_route(world: World, when: mz.DefaultRoute, version: int) -> None:
    """Only one that is always wanted meets the route of the first network, whose gateway stays."""
    first = world.container(
        world.hosts[0], 7, ("10.0.0.1/24", "fd00::1/64"), gateway=["10.0.0.254", "fd00::fe"]
    )
    ip, gateway = {4: ("10.1.0.1/24", "10.1.0.254"), 6: ("fd01::1/64", "fd01::fe")}[version]
    second = {"vni": 8, "ip": ip, "gateway": gateway, "netns": first.namespace.name, "ifname": "eth1"}
    create = partial(mz.Endpoint.create, first.host.agent, **second)
    if when is mz.DefaultRoute.ALWAYS:
        with unchanged(first.host.agent), pytest.raises(mz.ExistsError, match="if-none"):
            create(default_route=when.value)
        return
    made = create(default_route=when)
    assert not create(default_route=when.value).created
    assert mz.Endpoint.open(first.host.agent, made.name).spec == made.spec
    assert defaults(made.state()) == set()
    assert defaults(first.endpoint.state()) == {"10.0.0.254", "fd00::fe"}


@pytest.mark.parametrize("when", mz.DefaultRoute)
def test_a_first_network_and_the_default_route(world: World, when: mz.DefaultRoute) -> None:
    made = world.container(
        world.hosts[0], 7, "10.0.0.1/24", gateway="10.0.0.254", default_route=when
    ).endpoint
    assert made.spec.gateway == (ip_address("10.0.0.254"),)
    assert defaults(made.state()) == (set() if when is mz.DefaultRoute.NEVER else {"10.0.0.254"})


def defaults(state: mz.EndpointState) -> set[str]:
    return {str(route.gateway) for route in state.routes or () if not route.prefix.prefixlen}


def test_a_state_has_what_the_kernel_has_now(world: World, web: Container) -> None:
    """Addresses are read from outside, routes only where the namespace's name still leads to it."""
    web.namespace.run("ip", "addr", "add", "10.0.0.77/25", "dev", "eth0")
    web.namespace.run("ip", "route", "add", "10.9.0.0/16", "via", "10.0.0.3")
    state = web.endpoint.state()
    assert state.addresses == (ip_interface("10.0.0.1/24"), ip_interface("10.0.0.77/25"))
    assert mz.Route(ip_network("10.9.0.0/16"), ip_address("10.0.0.3")) in (state.routes or ())
    on_host = mz.Endpoint.create(web.host.agent, vni=7, ip=["10.0.0.9/24", "fd00::9/64"], ifname="own0")
    assert on_host.state().addresses == on_host.addresses
    assert {str(each.prefix) for each in on_host.state().routes or ()} == {"10.0.0.0/24", "fd00::/64"}


TAKEN_AWAY = {
    "an address": ("addr", "flush", "dev", "eth0"),
    "an IPv6 address": ("-6", "addr", "flush", "dev", "eth0", "scope", "global"),
    "up": ("link", "set", "eth0", "down"),
    "its MTU": ("link", "set", "eth0", "mtu", "1300"),
    "the default route": ("route", "del", "default"),
    "the IPv6 default route": ("-6", "route", "del", "default"),
    "the on-link route": ("route", "del", "10.0.0.0/24"),
}


@pytest.mark.parametrize("what", TAKEN_AWAY)
def test_what_the_namespace_took_away_comes_back_with_the_same_call(world: World, what: str) -> None:
    gateways = ["10.0.0.254", "fd00::fe"]
    made = world.container(world.hosts[0], 7, ("10.0.0.1/24", "fd00::1/64"), gateway=gateways)
    peer = world.container(world.hosts[1], 7, ("10.0.0.2/24", "fd00::2/64"))
    world.tell(made)
    before = made.endpoint.state()
    made.namespace.run("ip", *TAKEN_AWAY[what])
    assert made.endpoint.state() != before
    again = mz.Endpoint.create(made.host.agent, made.endpoint.spec)
    assert (again.created, again.ifindex) == (False, made.endpoint.ifindex)
    state = again.state()
    assert set(state.routes or ()) == set(before.routes or ())
    assert attrs.evolve(state, routes=None) == attrs.evolve(before, routes=None)
    for address in peer.endpoint.addresses:
        made.namespace.run("ping", "-c", "1", "-W", "5", str(address.ip))


CHANGED = {
    "another default route": "route replace default via 10.0.0.99",
    "no way out": "route replace blackhole default",
    "a route by a gateway": "route replace 10.0.0.0/24 via 10.0.0.99 onlink dev eth0",
    "a longer prefix": "-6 addr del fd00::1/64 dev eth0; -6 addr add fd00::1/128 dev eth0 nodad",
    "a metric": "route del default; route add default via 10.0.0.99 metric 100",
}


@pytest.mark.parametrize("what", CHANGED)
def test_what_the_container_has_put_in_its_place_stays(world: World, what: str) -> None:
    web = world.container(world.hosts[0], 7, ("10.0.0.1/24", "fd00::1/64"), gateway="10.0.0.254")
    for change in CHANGED[what].split("; "):
        web.namespace.run("ip", *change.split())
    show = [("ip", family, kind, "show") for family in ("-4", "-6") for kind in ("route", "addr")]
    before = [web.namespace.run(*each) for each in show]
    for _ in range(2):
        assert not mz.Endpoint.create(web.host.agent, web.endpoint.spec).created
    after = [web.namespace.run(*each) for each in show]
    if what == "a longer prefix":
        assert "fd00::1/128" in after[3] and "fd00::1/64" not in after[3]
    else:
        assert after == before


@pytest.mark.parametrize("ip", ["169.254.3.1/16", "fe80::5/64", "fec0::1/64", "10.0.0.1/31", "fd00::2/127"])
def test_the_same_call_again_finds_any_kind_of_address(world: World, ip: str) -> None:
    web = world.container(world.hosts[0], 7, ip)
    assert not mz.Endpoint.create(web.host.agent, web.endpoint.spec).created
    assert ip_interface(ip) in web.endpoint.state().addresses


@pytest.mark.parametrize("on_host", [False, True], ids=["container", "host"])
@pytest.mark.parametrize("given", ["given", "network's"])
@pytest.mark.parametrize("when", mz.DefaultRoute)
def test_a_default_route_with_a_metric_is_one(
    world: World, when: mz.DefaultRoute, given: str, on_host: bool
) -> None:
    """As those of DHCP clients: one without a metric beside it would win."""
    host = world.hosts[0]
    namespace = host.namespace if on_host else world.namespace("web")
    device = UNDERLAY if on_host else "lo"
    if not on_host:
        namespace.run("ip", "addr", "add", "192.0.2.9/24", "dev", "lo")
    namespace.run("ip", "route", "add", "default", "via", "192.0.2.77", "dev", device, "metric", "100")
    host.agent.networks[7, "10.0.0.0/24"] = mz.Network(gateway="10.0.0.254")
    create = partial(
        mz.Endpoint.create, host.agent, vni=7, ip="10.0.0.1/24", ifname="own0", default_route=when
    )
    create = partial(create, netns=None if on_host else namespace.name)
    if given == "given":
        create = partial(create, gateway="10.0.0.254")
    if given == "given" and when is mz.DefaultRoute.ALWAYS:
        with pytest.raises(mz.ExistsError, match="has a default route"):
            create()
    else:
        assert create().created
        assert not create().created
    assert f"via 192.0.2.77 dev {device}" in namespace.run("ip", "route", "show", "default")
    assert "10.0.0.254" not in namespace.run("ip", "route", "show", "default")


def test_the_default_route_comes_back_to_the_endpoint_that_had_it(world: World) -> None:
    agent, namespace = world.hosts[0].agent, world.namespace("web")
    specs = [
        mz.EndpointSpec(vni=7, ip=f"10.{n}.0.1/24", netns=namespace.name, ifname=f"eth{n}",
                        gateway=f"10.{n}.0.254", default_route="if-none")
        for n in range(2)
    ]  # fmt: skip
    mz.Endpoint.create_many(agent, specs)
    namespace.run("ip", "link", "set", "eth0", "down")
    for spec in reversed(specs):
        mz.Endpoint.create(agent, spec)
    assert "10.0.0.254 dev eth0" in namespace.run("ip", "route", "show", "default")


def test_a_namespace_is_entered_by_the_name_that_is_given(world: World) -> None:
    """The name that the endpoint was made by may be gone."""
    agent, namespace = world.hosts[0].agent, world.namespace("web")
    fd = os.open(f"/run/netns/{namespace.name}", os.O_RDONLY)
    made = mz.Endpoint.create(agent, vni=7, ip="10.0.0.1/24", netns=f"/proc/{os.getpid()}/fd/{fd}")
    os.close(fd)
    namespace.run("ip", "link", "set", "eth0", "down")
    assert not mz.Endpoint.create(agent, vni=7, ip="10.0.0.1/24", netns=namespace.name).created
    assert made.state().up


def test_routes_of_a_namespace_out_of_reach_are_unknown(world: World) -> None:
    namespace = world.namespace("reached")
    fd = os.open(f"/run/netns/{namespace.name}", os.O_RDONLY)
    path = f"/proc/{os.getpid()}/fd/{fd}"
    made = mz.Endpoint.create(world.hosts[0].agent, vni=7, ip="10.0.0.1/24", netns=path)
    assert made.state().routes == (mz.Route(ip_network("10.0.0.0/24"), None),)
    os.close(fd)
    state = made.state()
    assert (state.addresses, state.routes) == (made.addresses, None)


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


def test_the_device_has_the_address_that_was_asked_for(web: Container) -> None:
    assert web.endpoint.addresses == (ip_interface("10.0.0.1/24"),)
    assert device(web.namespace, "eth0").mac == str(web.endpoint.mac)
