# SPDX-License-Identifier: Apache-2.0
"""What is unusual and works is no finding, and what somebody chose is not undone."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

import mizarnet as mz
from mizarnet import FindingKind as K
from mizarnet._kernel.bpf import Program, XdpHook
from mizarnet._model.specs import XdpMode
from tests.netns.check.conftest import Scene
from tests.world import TUNNEL, UNDERLAY


def test_a_host_that_is_a_switch_of_its_own_network(scene: Scene) -> None:
    scene.agent.networks[7, "10.9.0.0/24"] = mz.Network(switches=["192.0.2.1", "192.0.2.2"])
    mz.TransitSwitch.attach(scene.agent)
    assert scene.check() == []


def test_a_route_that_is_chosen_by_protocol_and_port(scene: Scene) -> None:
    scene.ip("route", "add", "192.0.2.0/24", "dev", UNDERLAY, "table", "77")
    scene.ip("rule", "add", "ipproto", "udp", "dport", str(scene.host.tunnel.port), "lookup", "77")
    scene.ip("route", "delete", "192.0.2.0/24", "dev", UNDERLAY)
    scene.assert_works()
    assert scene.check() == []


def test_an_address_that_is_not_on_the_underlay_which_is_down(scene: Scene) -> None:
    scene.ip("address", "delete", "192.0.2.1/24", "dev", UNDERLAY)
    scene.ip("address", "add", "192.0.2.1/32", "dev", "lo")
    scene.ip("link", "set", UNDERLAY, "down")
    assert {each.kind for each in scene.check()} == {K.NO_ROUTE}


def test_routes_of_the_container_in_place_of_ours(scene: Scene) -> None:
    space = scene.app.namespace
    space.run("ip", "link", "add", "own", "type", "veth", "peer", "name", "other")
    space.run("ip", "link", "set", "own", "up")
    space.run("ip", "address", "add", "10.77.0.1/24", "dev", "own")
    space.run("ip", "route", "replace", "default", "via", "10.77.0.2", "dev", "own")
    space.run("ip", "route", "add", "10.0.0.0/25", "dev", "eth0")
    space.run("ip", "route", "add", "10.0.0.128/25", "dev", "eth0")
    space.run("ip", "route", "delete", "10.0.0.0/24", "dev", "eth0")
    assert scene.check() == []
    assert scene.app.endpoint.check() == []
    space.run("ip", "route", "delete", "10.0.0.128/25", "dev", "eth0")
    assert {each.kind for each in scene.check()} == {K.ROUTE_LOST}


@pytest.mark.parametrize(
    ("route", "prefix", "gateways"),
    [
        ("10.5.0.0/16 via 240.0.0.1 dev eth0 onlink", "10.5.0.0/16", ["240.0.0.1"]),
        ("10.5.0.0/16 via inet6 fe80::99 dev eth0", "10.5.0.0/16", ["fe80::99"]),
        (
            "10.5.0.0/16 nexthop via 10.0.0.7 dev eth0 nexthop via 10.0.0.8 dev eth0",
            "10.5.0.0/16",
            ["10.0.0.7", "10.0.0.8"],
        ),
        ("::ffff:0:0/96 dev eth0", "::ffff:0:0/96", [None]),
        ("fd05::/64 via ::ffff:1.2.3.4 dev eth0 onlink", "fd05::/64", ["::ffff:1.2.3.4"]),
    ],
)
def test_routes_of_the_container_that_no_endpoint_may_ask_for(
    scene: Scene, route: str, prefix: str, gateways: list[str | None]
) -> None:
    app = scene.app
    app.namespace.run("ip", "-6" if ":" in prefix else "-4", "route", "add", *route.split())
    assert scene.check() == []
    found = app.endpoint.state().routes or ()
    ways = [each.gateway for each in found if each.prefix == ip_network(prefix)]
    assert ways == [None if each is None else ip_address(each) for each in gateways]
    assert mz.Endpoint.state_all(scene.agent)[app.endpoint.name].routes == found
    assert not mz.Endpoint.create(scene.agent, app.endpoint.spec).created
    assert app.endpoint.update(labels={"of": "the container"}) == ("labels",)


@pytest.mark.parametrize(
    ("prefix", "instead"),
    [
        ("10.0.0.0/24", ["dev", "own"]),
        ("10.0.0.0/24", ["dev", "own", "metric", "5"]),
        ("10.0.0.0/24", ["type", "unreachable"]),
        ("fd00::/64", ["dev", "own"]),
        ("fd00::/64", ["type", "unreachable"]),
        ("default", ["type", "blackhole"]),
        ("::/0", ["type", "blackhole"]),
    ],
)
def test_a_route_of_the_container_by_another_device(scene: Scene, prefix: str, instead: list[str]) -> None:
    """As that of a bridge or a VPN of its own, or of somebody who wants no packets to go there."""
    space, endpoint = scene.app.namespace, scene.app.endpoint
    space.run("ip", "link", "add", "own", "type", "veth", "peer", "name", "other")
    space.run("ip", "link", "set", "own", "up")
    space.run("ip", "route", "delete", prefix, "dev", "eth0")
    assert {each.kind for each in scene.check()} == {K.ROUTE_LOST}
    match instead:
        case ["type", kind]:
            space.run("ip", "route", "add", kind, prefix)
        case _:
            space.run("ip", "route", "add", prefix, *instead)
    before = space.run("ip", "route"), space.run("ip", "-6", "route")
    assert scene.check() == endpoint.check() == []
    assert scene.seen.repair()
    assert (space.run("ip", "route"), space.run("ip", "-6", "route")) == before


def test_an_address_and_a_route_of_the_tenants_own(scene: Scene) -> None:
    scene.web.namespace.run("ip", "address", "add", "172.16.0.1/24", "dev", "eth0")
    scene.web.namespace.run("ip", "route", "add", "172.17.0.0/16", "dev", "eth0")
    assert scene.check() == []


def test_equal_names_on_two_tunnels_are_told_and_mended_apart(scene: Scene) -> None:
    with (
        mz.Tunnel.create(
            "tunnel9", encap="vxlan", underlay=UNDERLAY, port=7999, netns=scene.space.name
        ) as tunnel,
        mz.TransitAgent.attach(tunnel) as agent,
    ):
        space = scene.app.namespace.name
        mz.Endpoint.create(agent, name="web", vni=9, ip="10.9.0.1/24", netns=space, ifname="eth9")
        assert scene.check() == []
        scene.app.namespace.run("ip", "link", "set", "eth9", "mtu", "900")
        (found,) = scene.check()
        assert (found.tunnel, str(found.object)) == ("tunnel9", "endpoint web")
        assert scene.seen.repair([found])
        assert scene.check() == []
        tunnel.delete(force=True)


def test_a_tunnel_that_was_lowered_with_its_underlay_stays_low(scene: Scene) -> None:
    scene.ip("link", "set", TUNNEL, "mtu", "1350")
    scene.ip("link", "set", UNDERLAY, "mtu", "1400")
    (found,) = scene.check()
    assert (found.kind, found.repairable) == (K.MTU_DIFFERS, False)
    assert "raise the underlay's MTU first: ip link set eth0 mtu 1500" in found.message
    assert scene.seen.health().ok
    assert not scene.seen.repair()
    assert scene.host.tunnel.state().mtu == 1350
    assert scene.web.endpoint.state().mtu == 1350


def test_a_lost_claim_is_mended_and_not_collected(scene: Scene) -> None:
    for key in scene.record("web").pack_addresses():
        scene.maps.addresses.delete(key)
    assert scene.seen.gc()
    scene.assert_works()
    assert scene.seen.repair()
    assert scene.check() == []


# -- the device of somebody else ---------------------------------------------------------------------------


def test_a_switch_whose_device_has_another_program_by_now_is_left(scene: Scene) -> None:
    mz.TransitSwitch.attach(scene.agent, mode="generic")
    scene.ip("link", "set", UNDERLAY, "xdpgeneric", "off")
    with (
        mz.Tunnel.create(
            "tunnel9", encap="vxlan", underlay=UNDERLAY, port=7999, netns=scene.space.name
        ) as tunnel,
        mz.TransitAgent.attach(tunnel) as agent,
    ):
        switch = mz.TransitSwitch.attach(agent, mode="generic")
        (found,) = scene.check()
        assert (found.kind, found.tunnel) == (K.SWITCH_GONE, TUNNEL)
        report = scene.seen.repair([found])
        assert report.left == (found,)
        assert f"is on {UNDERLAY} by now" in report.errors[found]
        assert switch.state().attached
        assert switch.state().forwarding
        tunnel.delete(force=True)
    assert scene.seen.repair()
    assert mz.TransitSwitch.open(scene.agent).state().forwarding


def test_an_xdp_program_on_the_tunnel_is_told(scene: Scene, passing: Program) -> None:
    hook, session = XdpHook(scene.host.tunnel.ifindex), scene.host.tunnel._host
    session.run(hook.attach, passing, mode=XdpMode.GENERIC)
    (found,) = scene.check()
    assert (found.kind, found.severity) == (K.PROGRAM_AHEAD, mz.Severity.CRITICAL)
    assert not scene.seen.health().ok
    session.run(hook.detach, passing, mode=XdpMode.GENERIC)
    assert scene.check() == []
