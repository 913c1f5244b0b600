# SPDX-License-Identifier: Apache-2.0
"""Forty things that end a packet's way, one at a time: the explanation names the host and the cause.

The first twenty are those of tests/netns/check/test_breakages.py that lose the packet; what is left of these is in
test_arrives.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest

import mizarnet as mz
from mizarnet import Verdict
from tests.netns.explain.conftest import PORT, Scene
from tests.support.depth import some
from tests.support.namespace import SOCKET_SECONDS
from tests.support.traffic import assert_ping, ping
from tests.support.wait import wait_until
from tests.world import TUNNEL, UNDERLAY, mac_of


@attrs.frozen
class Broken:
    """One of them.

    Attributes:
        do: Does it.
        at: Number of the host that the packet's way ends on.
        says: Part of the cause.
        verdict: Drop reason; None: no program refuses it.
        ask: The packet, if it is no ping from ``web`` to ``db``.
        pings: Whether a ping shows the loss.
        says_udp: Whether a datagram from ``web`` to ``db`` shows it.
    """

    do: Callable[[Scene], object]
    at: int
    says: str
    verdict: Verdict | None = None
    ask: dict[str, Any] = attrs.field(factory=dict)
    pings: bool = True
    says_udp: bool = False


def _ip(scene: Scene, where: str, *words: str) -> None:
    space = (
        getattr(scene, where).namespace if where in ("web", "db") else scene.world.spaces[int(where[1]) - 1]
    )
    space.run("ip", *words)


def _tell(scene: Scene, ip: str, host: str, *, on: int = 1) -> None:
    scene.agents[on - 1].endpoints[7, ip] = mz.Remote(host)


def _forget(scene: Scene, ip: str, *, on: int = 1, warm: bool = False) -> None:
    if warm:
        assert_ping(scene.web.namespace, scene.db.ip)
    del scene.agents[on - 1].endpoints[7, ip]


def _dead_host(scene: Scene) -> None:
    _tell(scene, "10.0.0.2", "192.0.2.77")
    assert not ping(scene.web.namespace, scene.db.ip, timeout=0.2)


def _other_vni(scene: Scene) -> None:
    scene.db.endpoint.delete()
    mz.Endpoint.create(scene.agents[1], vni=8, ip="10.0.0.2/24", name="db", netns=scene.db.namespace.name)


def _other_address(scene: Scene) -> None:
    _ip(scene, "web", "-4", "address", "flush", "dev", "eth0")
    _ip(scene, "web", "address", "add", "10.0.0.66/24", "dev", "eth0")


def _other_port(scene: Scene) -> None:
    scene.world.hosts[1].tunnel.delete(force=True)
    space = scene.world.spaces[1]
    tunnel = mz.Tunnel.create(TUNNEL, encap="vxlan", underlay=UNDERLAY, port=8472, netns=space.name)
    with tunnel, mz.TransitAgent.attach(tunnel) as agent:
        mz.Endpoint.create(agent, vni=7, ip="10.0.0.2/24", name="db", netns=scene.db.namespace.name)
    scene.agents[1].reopen()


def _second_address(scene: Scene) -> None:
    _ip(scene, "h2", "address", "add", "192.0.2.22/24", "dev", UNDERLAY)
    _tell(scene, "10.0.0.2", "192.0.2.22")


def _wrong_neighbour(scene: Scene) -> None:
    words = ("neighbour", "replace", "192.0.2.2", "lladdr", "02:de:ad:be:ef:00", "dev", UNDERLAY)
    _ip(scene, "h1", *words, "nud", "permanent")


def _mac_of_the_tunnel_there(scene: Scene) -> None:
    scene.web.endpoint.delete()
    space, mac = scene.web.namespace.name, mac_of(scene.world.spaces[1], TUNNEL)
    mz.Endpoint.create(scene.agents[0], vni=7, ip="10.0.0.1/24", name="web", mac=mac, netns=space)


def _no_tunnel_address(scene: Scene) -> None:
    _warm(scene)
    scene.agents[1].update(shortcut="off")  # which goes past what drops the packet
    _ip(scene, "h2", "address", "del", "192.0.2.2/24", "dev", UNDERLAY)


def _no_carrier_there(scene: Scene) -> None:
    _warm(scene)
    scene.world.hub.run("ip", "link", "set", "h2", "down")


def _route_through_the_tunnel(scene: Scene) -> None:
    _warm(scene)
    _ip(scene, "h1", "route", "add", "192.0.2.2", "dev", TUNNEL)


def _way_back_by_another(scene: Scene, where: str, to: str) -> None:
    """A strict reverse path filter, and a route to where packets come from by a device that they do not come by."""
    _warm(scene)
    scene.agents[1].update(shortcut="off")
    _ip(scene, where, "link", "add", "other", "type", "veth", "peer", "name", "rehto")
    for name in ("other", "rehto"):
        _ip(scene, where, "link", "set", name, "up")
    _ip(scene, where, "route", "add", to, "dev", "other")
    _filter(scene, where, 1)


def _no_way_back(scene: Scene) -> None:
    _warm(scene)
    _ip(scene, "db", "route", "del", "10.0.0.0/24", "dev", "eth0")
    _filter(scene, "db", 2)


def _filter(scene: Scene, where: str, level: int) -> None:
    space = scene.db.namespace if where == "db" else scene.world.spaces[1]
    space.set(**{"ipv4/conf/all/rp_filter": level})


def _warm(scene: Scene) -> None:
    assert scene.hears(timeout=SOCKET_SECONDS)


def _both_have_it(scene: Scene) -> None:
    del scene.agents[1].endpoints[7, "10.0.0.1"]
    space = scene.world.namespace("twin")
    mz.Endpoint.create(scene.agents[1], vni=7, ip="10.0.0.1/24", name="twin", netns=space.name)


def _router(scene: Scene, *, forwards: bool, routed: bool) -> None:
    space = scene.world.namespace("router")
    router = scene.world.add(
        scene.world.hosts[1], space, vni=7, ip="10.0.0.3/24", name="router", forwarding=True
    )
    scene.world.tell(router)
    for agent in scene.agents:
        agent.networks[7, "10.9.0.0/16"] = mz.Network(via="10.0.0.3")
    space.set(**{"ipv4/conf/eth0/forwarding": int(forwards), "ipv4/conf/all/forwarding": int(forwards)})
    if routed:
        space.run("ip", "route", "add", "blackhole", "10.8.0.0/16")


BEYOND: dict[str, Any] = {"to": "10.9.0.9"}
IPV6: dict[str, Any] = {"to": "fd00::2"}
SAID: dict[str, Any] = {"ask": {"protocol": "udp", "port": PORT}, "pings": False, "says_udp": True}
CASES: dict[str, Broken] = {
    "1 peer not allowed": Broken(
        lambda s: [s.agents[1].peers.discard(each) for each in list(s.agents[1].peers)],
        2,
        "192.0.2.1 is in none of the prefixes of peers",
        Verdict.FOREIGN_PEER,
    ),
    "2 entry missing, cold": Broken(
        lambda s: _forget(s, "10.0.0.2"), 1, "no entry (7, 10.0.0.2)", Verdict.NEIGHBOUR_UNKNOWN
    ),
    "3 entry missing, warm": Broken(
        lambda s: _forget(s, "10.0.0.2", warm=True), 1, "no entry (7, 10.0.0.2)", Verdict.NO_DESTINATION
    ),
    "4 reverse entry missing": Broken(
        lambda s: _forget(s, "10.0.0.1", on=2), 2, "answers to 10.0.0.1", Verdict.NEIGHBOUR_UNKNOWN
    ),
    "6 dead host": Broken(_dead_host, 1, "neighbour 192.0.2.77 does not answer"),
    "7 no route to the host": Broken(
        lambda s: _tell(s, "10.0.0.2", "203.0.113.5"), 1, "no route to 203.0.113.5"
    ),
    "8 in another VNI": Broken(_other_vni, 2, "db has 10.0.0.2 in VNI 8", Verdict.NO_DESTINATION),
    "9 changed its MAC": Broken(
        lambda s: _ip(s, "web", "link", "set", "eth0", "address", "02:00:00:00:00:09"),
        1,
        "the MAC of eth0 is 02:00:00:00:00:09",
        Verdict.UNKNOWN_SENDER,
    ),
    "10 changed its address": Broken(
        _other_address, 1, "eth0 does not have 10.0.0.1, but 10.0.0.66/24", Verdict.FOREIGN_SOURCE
    ),
    "11 longer than the device takes": Broken(
        lambda s: None, 1, "eth0 takes 1450 bytes, and the packet has 1468", ask={"size": 1468}, pings=False
    ),
    "12 underlay MTU here": Broken(
        lambda s: _ip(s, "h1", "link", "set", UNDERLAY, "mtu", "1400"),
        1,
        f"mtu 1400 of {UNDERLAY} does not take 1478",
        ask={"size": 1428},
    ),
    "15 another UDP port": Broken(_other_port, 2, "vxlan port 8472"),
    "16 device down": Broken(lambda s: _ip(s, "db", "link", "set", "eth0", "down"), 2, "eth0 of db"),
    "17 lost its address": Broken(
        lambda s: _ip(s, "db", "-4", "address", "flush", "dev", "eth0"), 2, "eth0 does not have 10.0.0.2"
    ),
    "18 underlay down": Broken(
        lambda s: _ip(s, "h1", "link", "set", UNDERLAY, "down"), 1, f"{UNDERLAY} is down"
    ),
    "19 no route in the container": Broken(
        lambda s: _ip(s, "web", "route", "del", "default"), 1, "no route to 10.9.0.9", ask=BEYOND, pings=False
    ),
    "22 tunnel down": Broken(
        lambda s: _ip(s, "h2", "link", "set", TUNNEL, "down"), 2, f"{TUNNEL}: its device is down"
    ),
    "23 another address of the host": Broken(
        _second_address, 2, "sent to 192.0.2.22, and the tunnel's address is 192.0.2.2", Verdict.FOREIGN_LOCAL
    ),
    "24 device deleted by hand": Broken(
        lambda s: _ip(s, "db", "link", "delete", "eth0"), 2, "the device eth0 of db is gone"
    ),
    "25 wrong neighbour": Broken(_wrong_neighbour, 1, "has the MAC 02:de:ad:be:ef:00 for 192.0.2.2"),
    "26 IPv6 entry missing": Broken(
        lambda s: _forget(s, "fd00::2"), 1, "no entry (7, fd00::2)", Verdict.NEIGHBOUR_UNKNOWN, ask=IPV6
    ),
    "27 IPv6 address lost": Broken(
        lambda s: _ip(s, "db", "-6", "address", "del", "fd00::2/64", "dev", "eth0"),
        2,
        "eth0 does not have fd00::2",
        ask=IPV6,
    ),
    "28 no transit switch": Broken(
        lambda s: s.agents[0].networks.update({(7, "10.9.0.0/16"): mz.Network()}),
        1,
        "network 10.9.0.0/16 has no transit switch",
        Verdict.NO_SWITCH,
        ask=BEYOND,
    ),
    "29 next hop unknown": Broken(
        lambda s: s.agents[0].networks.update({(7, "10.9.0.0/16"): mz.Network(via="10.0.0.3")}),
        1,
        "goes by 10.0.0.3, which has no entry",
        Verdict.NO_NEXT_HOP,
        ask=BEYOND,
    ),
    "30 router does not forward": Broken(
        lambda s: _router(s, forwards=False, routed=True), 2, "does not forward", ask=BEYOND
    ),
    "31 router has no route": Broken(
        lambda s: _router(s, forwards=True, routed=False), 2, "has no route to 10.9.0.9", ask=BEYOND
    ),
    "32 hosts disagree": Broken(
        lambda s: (_tell(s, "10.0.0.8", "192.0.2.2"), _tell(s, "10.0.0.8", "192.0.2.1", on=2)),
        2,
        "-> 192.0.2.1, which sent it here",
        Verdict.BOUNCED_BACK,
        ask={"to": "10.0.0.8"},
    ),
    "33 both hosts have the sender": Broken(
        _both_have_it, 2, "is an endpoint of this host, too: twin", Verdict.SOURCE_IS_LOCAL
    ),
    "34 route by another device": Broken(
        lambda s: _ip(s, "web", "route", "add", "10.0.0.2", "dev", "lo"), 1, "leave by lo, and not by eth0"
    ),
    "35 no address at all": Broken(
        lambda s: _tell(s, "10.0.0.9", "192.0.2.2"),
        2,
        "no entry (7, 10.0.0.9) and no network that contains it",
        Verdict.NO_DESTINATION,
        ask={"to": "10.0.0.9"},
    ),
    "36 the MAC of the tunnel there": Broken(
        _mac_of_the_tunnel_there,
        2,
        f"{TUNNEL} drops a frame that comes from its own MAC",
    ),
    "37 the receiver changed its MAC": Broken(
        lambda s: _ip(s, "db", "link", "set", "eth0", "address", "02:00:00:00:00:09"),
        2,
        "endpoint: the MAC of eth0 is 02:00:00:00:00:09",
    ),
    "38 a receiver in mode source": Broken(
        lambda s: _ip(s, "db", "link", "set", "eth0", "type", "macvlan", "mode", "source"),
        2,
        "eth0 is in mode source",
    ),
    "39 a sender in mode source": Broken(
        lambda s: _ip(s, "web", "link", "set", "eth0", "type", "macvlan", "mode", "source"),
        1,
        "eth0 is in mode source",
    ),
    "40 tunnel's address lost": Broken(
        _no_tunnel_address, 2, "this host cannot use 192.0.2.2, which the packet is sent to", **SAID
    ),
    "41 no carrier there": Broken(_no_carrier_there, 2, f"{UNDERLAY} has no carrier", **SAID),
    "42 a route into the tunnel": Broken(
        _route_through_the_tunnel, 1, f"the route to 192.0.2.2 leads into {TUNNEL} itself"
    ),
    "43 way back by another device": Broken(
        lambda s: _way_back_by_another(s, "db", "10.0.0.1"),
        2,
        "source: the way back to 10.0.0.1 goes by other, and not by eth0",
        **SAID,
    ),
    "44 no way back": Broken(_no_way_back, 2, "the way back to 10.0.0.1 is not there", **SAID),
    "45 way back to the host by another": Broken(
        lambda s: _way_back_by_another(s, "h2", "192.0.2.1"),
        2,
        "underlay: the way back to 192.0.2.1 goes by other, and not by eth0",
        **SAID,
    ),
}


def test_there_are_forty() -> None:
    assert len(CASES) == 40
    assert len([name for name in CASES if int(name.split()[0]) <= 25]) == 20


@pytest.mark.parametrize("name", some(list(CASES), 5))
def test_the_cause_and_its_host_are_named(scene: Scene, name: str) -> None:
    case = CASES[name]
    case.do(scene)

    def named() -> bool:
        found = scene.explain(**case.ask)
        return not found.ok and case.says in found.cause

    wait_until(named, lambda: f"not named:\n{scene.explain(**case.ask)}")
    found = scene.explain(**case.ask)
    assert (found.at, found.verdict) == (scene.name(case.at), case.verdict)
    assert found.remedy
    assert found.page == ("" if case.verdict is None else case.verdict.page)
    to = case.ask.get("to", scene.db.ip)
    if case.pings and ":" not in to:
        assert not ping(scene.web.namespace, to, size=case.ask.get("size", 84) - 28, timeout=0.2)
    if case.says_udp:
        assert not scene.hears()
