# SPDX-License-Identifier: Apache-2.0
"""What can be known to be wrong is refused by name, before the kernel is asked for anything."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

import mizarnet as mz
from mizarnet import EndpointKey, EndpointSpec, MacAddress, Network, NetworkKey, Remote, Route
from mizarnet.tables import EndpointTable, NetworkTable, PeerSet

Value, Type = mz.InvalidValueError, mz.InvalidTypeError
BadCall = Callable[[], object]


def spec(**changes: Any) -> EndpointSpec:
    return EndpointSpec(**{"vni": 7, "ip": "10.0.0.5/24", **changes})


def tunnel(name: Any = "tunnel0", **changes: Any) -> mz.Tunnel:
    return mz.Tunnel.create(name, **{"encap": "vxlan", "underlay": "eth0", **changes})


def gateway(**changes: Any) -> mz.Gateway:
    given = {"vni": 7, "egress": "eth0", "ip": "10.0.0.1/24", **changes}
    return mz.Gateway.create(cast("mz.TransitAgent", None), **given)


def published(*given: Any) -> mz.Publish:
    return mz.Publish(*(*given, *("tcp", 80, "10.0.0.5", 80)[len(given) :]))


def endpoint(**changes: Any) -> mz.Endpoint:
    """The agent is judged last: here it is always wrong, and never reached."""
    return mz.Endpoint.create(cast("mz.TransitAgent", None), **{"vni": 7, "ip": "10.0.0.5/24", **changes})


for name in mz.__all__:  # loaded with their first use, which is not what is watched here
    getattr(mz, name)


NO_STORE: Any = SimpleNamespace(local=ip_address("192.0.2.1"))
"""The tables judge what they are given before they look at the agent's maps."""


def endpoints() -> EndpointTable:
    return EndpointTable(NO_STORE, "nowhere")


def networks() -> NetworkTable:
    return NetworkTable(NO_STORE, "nowhere")


def peers() -> PeerSet:
    return PeerSet(NO_STORE, "nowhere")


# (what is wrong, the error's class, the argument it names, the call)
CASES: list[tuple[str, type[Exception], str, BadCall]] = [
    ("VNI zero", Value, "vni", lambda: spec(vni=0)),
    ("gateway of VNI zero", Value, "vni", lambda: gateway(vni=0)),
    ("gateway without an address", Value, "ip", lambda: gateway(ip=[])),
    ("egress with a slash", Value, "egress", lambda: gateway(egress="a/b")),
    ("egress with a quote", Value, "egress", lambda: gateway(egress='eth"')),
    ("egress that stands for many", Value, "egress", lambda: gateway(egress="eth*")),
    ("egress None", Type, "egress", lambda: gateway(egress=None)),
    ("nat as a number", Type, "nat", lambda: gateway(nat=1)),
    ("host_access None", Type, "host_access", lambda: gateway(host_access=None)),
    ("forward_all_ipv6 as a number", Type, "forward_all_ipv6", lambda: gateway(forward_all_ipv6=1)),
    ("gateway's name empty", Value, "name", lambda: gateway(name="")),
    ("publish as text", Type, "publish", lambda: gateway(publish="tcp")),
    ("publish of pairs", Type, "publish", lambda: gateway(publish=[(80, 80)])),
    ("a port twice", Value, "publish", lambda: gateway(publish=[published(), published()])),
    ("a target of no own family", Value, "publish", lambda: gateway(publish=[published("tcp", 1, "fd00::5")])),
    ("protocol unknown", Value, "protocol", lambda: published("sctp")),
    ("protocol None", Type, "protocol", lambda: published(None)),
    ("port zero", Value, "port", lambda: published("tcp", 0)),
    ("port as text", Type, "port", lambda: published("tcp", "80")),
    ("port of 17 bits", Value, "port", lambda: published("tcp", 65536)),
    ("target unspecified", Value, "ip", lambda: published("tcp", 80, "0.0.0.0")),
    ("target's port zero", Value, "to_port", lambda: published("tcp", 80, "10.0.0.5", 0)),
    ("VNI negative", Value, "vni", lambda: spec(vni=-1)),
    ("VNI of 25 bits", Value, "vni", lambda: spec(vni=1 << 24)),
    ("VNI that Python cannot write", Value, "vni", lambda: spec(vni=10**5000)),
    ("VNI True", Type, "vni", lambda: spec(vni=True)),
    ("VNI as text", Type, "vni", lambda: spec(vni="7")),
    ("VNI as float", Type, "vni", lambda: spec(vni=7.0)),
    ("VNI None", Type, "vni", lambda: spec(vni=None)),
    ("no address", Value, "ip", lambda: spec(ip=[])),
    ("empty address", Value, "ip", lambda: spec(ip="")),
    ("address None", Type, "ip", lambda: spec(ip=None)),
    ("address as a number", Type, "ip", lambda: spec(ip=167772165)),
    ("address as bytes", Type, "ip", lambda: spec(ip=b"\x0a\0\0\5")),
    ("no address at all", Value, "ip", lambda: spec(ip="ten")),
    ("octet 256", Value, "ip", lambda: spec(ip="10.0.0.256/24")),
    ("prefix length 33", Value, "ip", lambda: spec(ip="10.0.0.5/33")),
    ("network address", Value, "ip", lambda: spec(ip="10.0.0.0/24")),
    ("broadcast address", Value, "ip", lambda: spec(ip="10.0.0.255/24")),
    ("loopback", Value, "ip", lambda: spec(ip="127.0.0.1/8")),
    ("multicast", Value, "ip", lambda: spec(ip="224.0.0.1/24")),
    ("unspecified", Value, "ip", lambda: spec(ip="0.0.0.0/0")),
    ("class E", Value, "ip", lambda: spec(ip="250.0.0.1/24")),
    ("IPv4-mapped", Value, "ip", lambda: spec(ip="::ffff:10.0.0.5/120")),
    ("scoped", Value, "ip", lambda: spec(ip="fe80::1%eth0/64")),
    ("IPv6 multicast", Value, "ip", lambda: spec(ip="ff02::1/64")),
    ("an address twice", Value, "ip", lambda: spec(ip=["10.0.0.5/24", "10.0.0.6/24", "10.0.0.5/16"])),
    ("a network as address", Type, "ip", lambda: spec(ip=ip_network("10.0.0.0/24"))),
    ("MAC too short", Value, "mac", lambda: spec(mac="02:00:00:00:01")),
    ("MAC with dashes", Value, "mac", lambda: spec(mac="02-00-00-00-00-01")),
    ("MAC not hexadecimal", Value, "mac", lambda: spec(mac="02:00:00:00:00:0g")),
    ("MAC multicast", Value, "mac", lambda: spec(mac="01:00:5e:00:00:01")),
    ("MAC broadcast", Value, "mac", lambda: spec(mac="ff:ff:ff:ff:ff:ff")),
    ("MAC zero", Value, "mac", lambda: spec(mac=bytes(6))),
    ("MAC that agents answer with", Value, "mac", lambda: spec(mac="02:6d:7a:6e:00:01")),
    ("MAC of five bytes", Value, "mac", lambda: spec(mac=bytes(5))),
    ("MAC as a number", Type, "mac", lambda: spec(mac=2)),
    ("MAC of five bytes and spaces", Value, "mac", lambda: MacAddress.parse("02:  :00:00:00:01")),
    ("MAC with tabs", Value, "mac", lambda: MacAddress.parse("02:00:00:00:01:\t\t")),
    ("MAC in full-width digits", Value, "mac", lambda: MacAddress.parse("０2:00:00:00:00:01")),
    ("device name of 16 bytes", Value, "ifname", lambda: spec(ifname="a" * 16)),
    ("device name of 16 bytes in 8 characters", Value, "ifname", lambda: spec(ifname="é" * 8)),
    ("device name empty", Value, "ifname", lambda: spec(ifname="")),
    ("device name with slash", Value, "ifname", lambda: spec(ifname="a/b")),
    ("device name with colon", Value, "ifname", lambda: spec(ifname="eth0:1")),
    ("device name with blank", Value, "ifname", lambda: spec(ifname="eth 0")),
    ("device name pattern", Value, "ifname", lambda: spec(ifname="eth%d")),
    ("device name ..", Value, "ifname", lambda: spec(ifname="..")),
    ("device name with NUL", Value, "ifname", lambda: spec(ifname="eth\0")),
    ("device name None", Type, "ifname", lambda: spec(ifname=None)),
    ("endpoint name of 192 bytes", Value, "name", lambda: spec(name="n" * 192)),
    ("endpoint name empty", Value, "name", lambda: spec(name="")),
    ("endpoint name with newline", Value, "name", lambda: spec(name="a\nb")),
    ("endpoint name as bytes", Type, "name", lambda: spec(name=b"web")),
    ("namespace empty", Value, "netns", lambda: spec(netns="")),
    ("namespace of tunnels empty", Value, "netns", lambda: mz.Tunnel.list(netns="")),
    ("namespace ..", Value, "netns", lambda: spec(netns="..")),
    ("namespace path too long", Value, "netns", lambda: spec(netns="/" + "x" * 300)),
    ("namespace as a number", Type, "netns", lambda: spec(netns=1)),
    ("namespace path in bytes", Type, "netns", lambda: spec(netns=b"ns1")),
    ("unknown kind", Value, "kind", lambda: spec(kind="ipvlan")),
    ("kind as a number", Type, "kind", lambda: spec(kind=1)),
    ("MTU below 68", Value, "mtu", lambda: spec(mtu=67)),
    ("MTU below 1280 with IPv6", Value, "mtu", lambda: spec(mtu=1279, ip="fd00::5/64")),
    ("MTU above 65535", Value, "mtu", lambda: spec(mtu=65536)),
    ("MTU True", Type, "mtu", lambda: spec(mtu=True)),
    ("MTU as text", Type, "mtu", lambda: spec(mtu="1450")),
    ("gateway of another family", Value, "gateway", lambda: spec(gateway="fd00::1")),
    ("gateway is the endpoint", Value, "gateway", lambda: spec(gateway="10.0.0.5")),
    (
        "gateway is a further address",
        Value,
        "gateway",
        lambda: spec(ip=["10.0.0.5/24", "10.0.0.6/24"], gateway="10.0.0.6"),
    ),
    ("a route as text", Type, "routes", lambda: spec(routes=["10.1.0.0/16"])),
    ("one route, and no sequence", Type, "routes", lambda: spec(routes=Route("10.1.0.0/16"))),
    ("a route with host bits", Value, "prefix", lambda: Route("10.1.0.1/16")),
    ("a route through a multicast address", Value, "gateway", lambda: Route("10.1.0.0/16", "224.0.0.1")),
    ("two routes to a prefix", Value, "routes", lambda: spec(routes=[Route("10.1.0.0/16")] * 2)),
    ("a default route", Value, "routes", lambda: spec(routes=[Route("0.0.0.0/0", "10.0.0.1")])),
    ("a route of another family", Value, "routes", lambda: spec(routes=[Route("fd01::/64")])),
    ("a route to the own prefix", Value, "routes", lambda: spec(routes=[Route("10.0.0.0/24")])),
    ("a route of two families", Value, "routes", lambda: spec(routes=[Route("10.1.0.0/16", "fe80::1")])),
    ("a route through itself", Value, "routes", lambda: spec(routes=[Route("10.1.0.0/16", "10.0.0.5")])),
    ("two gateways of a family", Value, "gateway", lambda: spec(gateway=["10.0.0.1", "10.0.0.2"])),
    ("gateway as a number", Type, "gateway", lambda: spec(gateway=1)),
    ("forwarding as a number", Type, "forwarding", lambda: spec(forwarding=1)),
    ("tunnel name of 16 bytes", Value, "name", lambda: tunnel("t" * 16)),
    ("tunnel name None", Type, "name", lambda: tunnel(None)),
    ("tunnel name 'all'", Value, "name", lambda: tunnel("all")),
    ("unknown encapsulation", Value, "encap", lambda: tunnel(encap="gre")),
    ("encapsulation None", Type, "encap", lambda: tunnel(encap=None)),
    ("underlay empty", Value, "underlay", lambda: tunnel(underlay="")),
    ("port zero", Value, "port", lambda: tunnel(port=0)),
    ("port 65536", Value, "port", lambda: tunnel(port=65536)),
    ("port as text", Type, "port", lambda: tunnel(port="4789")),
    ("local unspecified", Value, "local", lambda: tunnel(local="0.0.0.0")),
    ("local multicast", Value, "local", lambda: tunnel(local="ff02::1")),
    ("local no address", Value, "local", lambda: tunnel(local="eth0")),
    ("tunnel MTU 0", Value, "mtu", lambda: tunnel(mtu=0)),
    ("host namespace with newline", Value, "netns", lambda: tunnel(netns="a\n")),
    ("open a tunnel by a number", Type, "name", lambda: mz.Tunnel.open(cast("str", 5))),
    ("probe a number", Type, "netns", lambda: mz.probe(cast("str", 5))),
    ("attach to a name", Type, "tunnel", lambda: mz.TransitAgent.attach(cast("mz.Tunnel", "tunnel0"))),
    ("endpoint with a bad VNI", Value, "vni", lambda: endpoint(vni=0)),
    ("endpoint without an agent", Type, "agent", lambda: endpoint()),
    ("endpoint by specification and keywords", Type, "spec",
     lambda: cast("Any", mz.Endpoint.create)(None, spec(), mtu=1400)),
    ("no specifications", Type, "specs",
     lambda: mz.Endpoint.create_many(cast("mz.TransitAgent", None), cast("Any", None))),
    ("no names", Type, "names",
     lambda: mz.Endpoint.delete_many(cast("mz.TransitAgent", None), cast("Any", None))),
    ("delete a name that is none", Type, "name",
     lambda: mz.Endpoint.delete_many(cast("mz.TransitAgent", None), cast("Any", [5]))),
    ("create without an agent", Type, "agent",
     lambda: mz.Endpoint.create_many(cast("mz.TransitAgent", None), [spec()])),
    ("delete without an agent", Type, "agent",
     lambda: mz.Endpoint.delete_many(cast("mz.TransitAgent", None), ["web"])),
    ("list by a number", Type, "prefix",
     lambda: mz.Endpoint.list(cast("mz.TransitAgent", None), prefix=cast("str", 5))),
    ("list without an agent", Type, "agent", lambda: mz.Endpoint.list(cast("mz.TransitAgent", None))),
    ("host of an entry: a name", Value, "host", lambda: Remote("host2")),
    ("host of an entry: unspecified", Value, "host", lambda: Remote("::")),
    ("host of an entry: None", Type, "host", lambda: Remote(cast("str", None))),
    ("host of an entry: an interface of a loopback", Value, "host", lambda: Remote(ip_address("127.0.0.1"))),
    ("switches as text", Type, "switches", lambda: Network(switches=cast("Any", "192.0.2.9"))),
    ("a switch twice", Value, "switches", lambda: Network(switches=["192.0.2.9", "192.0.2.9"])),
    ("17 switches", Value, "switches", lambda: Network(switches=[f"192.0.2.{n}" for n in range(1, 18)])),
    ("gateway of a network: multicast", Value, "gateway", lambda: Network(gateway="224.0.0.1")),
    ("next hop of a network: unspecified", Value, "via", lambda: Network(via="0.0.0.0")),
    ("next hop of a network: two", Type, "via", lambda: Network(via=cast("str", ["10.0.0.1", "10.0.0.2"]))),
    ("next hop and gateway", Value, "via", lambda: Network(via="10.0.0.1", gateway="10.0.0.254")),
    ("next hop and switches", Value, "via", lambda: Network(via="10.0.0.1", switches=["192.0.2.9"])),
    ("key that is no pair", Type, "key", lambda: EndpointKey.parse("10.0.0.5")),
    ("key of three", Type, "key", lambda: EndpointKey.parse((7, "10.0.0.5", 1))),
    ("key that Python cannot write", Type, "key", lambda: EndpointKey.parse(10**5000)),
    ("key with VNI 0", Value, "vni", lambda: EndpointKey.parse((0, "10.0.0.5"))),
    ("prefix with host bits", Value, "prefix", lambda: NetworkKey.parse((7, "10.0.0.5/24"))),
    ("prefix that is an address object", Type, "prefix",
     lambda: NetworkKey.parse((7, cast("Any", ip_interface("10.0.0.5/24"))))),
    ("mapped prefix", Value, "prefix", lambda: NetworkKey.parse((7, "::ffff:0:0/96"))),
    ("no entries", Type, "entries", lambda: endpoints().update(cast("Any", None))),
    ("entries as text", Type, "remotes", lambda: endpoints().sync(cast("Any", "10.0.0.5"))),
    ("entries that are no pairs", Type, "entries", lambda: endpoints().update(cast("Any", [7]))),
    ("entries of three", Type, "entries", lambda: endpoints().update(cast("Any", [(7, "10.0.0.5", None)]))),
    ("an entry without a value", Type, "value", lambda: endpoints().update({(7, "10.0.0.5"): cast("Any", None)})),
    ("a feed that is no text", Type, "feed", lambda: endpoints().update({}, feed=cast("Any", None))),
    ("a feed that cannot be printed", Value, "feed", lambda: endpoints().sync({}, feed="plan\n")),
    ("a feed with a zero", Value, "feed", lambda: endpoints().sync({}, feed="a\0b")),
    ("a feed of half a character", Value, "feed", lambda: endpoints().sync({}, feed="\ud800")),
    ("a feed of 32 bytes", Value, "feed", lambda: networks().sync({}, feed="x" * 32)),
    ("a feed of 31 characters that are 32 bytes", Value, "feed", lambda: peers().sync([], feed="x" * 30 + "ä")),
    ("a feed like one that nobody knows", Value, "feed", lambda: peers().apply([], feed="?1")),
    ("a half taken entry", Type, "take", lambda: networks().apply({}, take=cast("Any", 1))),
    ("an entry to be put and gone", Value, "gone",
     lambda: endpoints().apply({(7, "10.0.0.5"): mz.Remote("192.0.2.2")}, [(7, "10.0.0.5")])),
    ("keys that are no keys", Type, "gone", lambda: endpoints().apply({}, cast("Any", 7))),
    ("a key that is none", Type, "key", lambda: networks().apply({}, cast("Any", ["10.0.0.0/24"]))),
    ("prefixes that are none", Type, "gone", lambda: peers().apply([], "192.0.2.0/24")),
    ("no networks", Type, "entries", lambda: networks().update(cast("Any", None))),
    ("no peers", Type, "prefixes", lambda: peers().update(cast("Any", None))),
    ("one peer as text", Type, "prefixes", lambda: peers().update("192.0.2.0/24")),
    ("a field that there is not", Type, "vin", lambda: spec(vin=7)),
    ("a specification without an address", Type, "ip", lambda: EndpointSpec(**cast("Any", {"vni": 7}))),
    ("an endpoint without a VNI", Type, "vni", lambda: endpoint(vni=None)),
    ("an argument that there is not", Type, "ifnam", lambda: endpoint(ifnam="eth1")),
    ("a specification and more", Type, "spec",
     lambda: mz.Endpoint.create(cast("Any", None), spec(), **cast("Any", {"ifname": "eth1"}))),
    ("a default route in between", Value, "default_route", lambda: spec(default_route="sometimes")),
    ("a tunnel without an underlay", Type, "underlay",
     lambda: mz.Tunnel.create("tunnel0", **cast("Any", {"encap": "vxlan"}))),
    ("too many by position", Type, "", lambda: cast("Any", mz.Tunnel.open)("tunnel0", "h1")),
    ("an argument of a lab", Type, "host", lambda: mz.Lab(**cast("Any", {"host": 2}))),
    ("an argument of a method", Type, "forced", lambda: cast("Any", endpoints()).sync({}, forced=True)),
    ("nothing to delete", Type, "thing", lambda: cast("Any", mz.deleting)()),
    ("an argument of a probe", Type, "net", lambda: cast("Any", mz.probe)(net="h1")),
    ("an argument of an inherited method", Type, "", lambda: cast("Any", Remote("192.0.2.1")).to_dict(1)),
    ("an argument of a view", Type, "limit", lambda: cast("Any", endpoints()).snapshot(limit=5)),
    ("a key in parts", Type, "ip", lambda: cast("Any", EndpointKey)(7)),
    ("delete what cannot be deleted", Type, "thing", lambda: mz.deleting(cast("Any", 5)).__enter__()),
]  # fmt: skip

_events: list[str] | None = None


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if _events is not None and event.split(".")[0] in {
        "open",
        "socket",
        "subprocess",
        "os",
        "fcntl",
        "_thread",
    }:
        _events.append(f"{event} {arguments}")


sys.addaudithook(_hook)


@contextmanager
def recorded() -> Iterator[list[str]]:
    """What the interpreter asks the operating system for, meanwhile."""
    global _events
    _events = []
    try:
        yield _events
    finally:
        _events = None


@pytest.mark.parametrize(
    ("error", "argument", "call"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_bad_input_is_named_before_any_system_call(
    error: type[Exception], argument: str, call: BadCall
) -> None:
    with recorded() as events, pytest.raises(error) as caught:
        call()
    assert type(caught.value) is error
    assert isinstance(caught.value, (Value, Type))
    assert caught.value.argument == argument
    assert str(caught.value)
    assert events == []


def test_the_recorder_sees_system_calls() -> None:
    with recorded() as events:
        Path("/proc/self/status").read_text()
    assert any(event.startswith("open") for event in events)


def test_a_bad_value_is_a_value_error_and_a_bad_type_a_type_error() -> None:
    with pytest.raises(ValueError, match="vni 0"):
        spec(vni=0)
    with pytest.raises(TypeError, match="vni must be an int"):
        spec(vni="7")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: spec(vni=0), "vni 0 is not from 1 to 16777215; VNI 0 is not a network of its own"),
        (lambda: spec(vni=-1), "vni -1 is not from 1 to 16777215"),
        (lambda: spec(vni=1 << 24), "vni 16777216 is not from 1 to 16777215"),
        (lambda: spec(vni=1 << 5000), "vni of 5001 bits is not from 1 to 16777215"),
        (
            lambda: Network(switches=["192.0.2.9", "192.0.2.8", "192.0.2.9"]),
            "switch 192.0.2.9 is given twice",
        ),
        (
            lambda: Network(switches=[f"192.0.2.{n}" for n in range(1, 18)]),
            "17 switches are given, a network has at most 16",
        ),
        (lambda: EndpointKey.parse((7, "10.0.0.5", 1)), "a key is (vni, ip), not a tuple of 3"),
    ],
)
def test_the_message_says_what_is_wrong_and_nothing_else(call: BadCall, message: str) -> None:
    with pytest.raises((Value, Type)) as caught:
        call()
    assert str(caught.value) == message


@pytest.mark.parametrize("vni", [1, 0xFFFFFF])
def test_the_bounds_of_a_vni_are_good(vni: int) -> None:
    assert spec(vni=vni).vni == vni


@pytest.mark.parametrize("ip", ["10.0.0.0/31", "10.0.0.1/31", "10.0.0.5", "fd00::5", "fd00::/127"])
def test_addresses_without_a_network_address_are_good(ip: str) -> None:
    assert str(spec(ip=ip).ip[0].ip) == ip.split("/")[0]
