# SPDX-License-Identifier: Apache-2.0
"""Packets that arrive, and their explanations: with a remark where something is not as it should be."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

import attrs
import pytest

import mizarnet as mz
from mizarnet import Verdict
from mizarnet._kernel.netlink import Session, wait_for_address
from mizarnet._model.layouts import Config
from mizarnet._model.specs import VIRTUAL_MAC
from mizarnet.agent import datapath_of
from tests.frames import datagram
from tests.netns.explain.conftest import GATEWAY, PORT, Scene, is_heard, say
from tests.netns.explain.test_broken import CASES
from tests.netns.explain.test_reality import MET
from tests.support import digest
from tests.support.namespace import SOCKET_SECONDS
from tests.support.traffic import assert_ping, ping, udp_ask
from tests.support.wait import wait_until
from tests.world import TUNNEL, UNDERLAY, Container, mac_of, quiet

ACCEPTED, LOCALLY = Verdict.ACCEPTED, Verdict.ACCEPTED_LOCALLY
ANSWERED, BY_GATEWAY = Verdict.NEIGHBOUR_ANSWERED, Verdict.GATEWAY_ANSWERED


@pytest.fixture(scope="module")
def more(healthy: Scene) -> dict[str, Container]:
    """A container beside ``web``, a router beside ``db`` with a network behind it, and another ``web`` in VNI 9."""
    world = healthy.world
    app = world.container(world.hosts[0], 7, "10.0.0.4/24", name="app")
    space = world.namespace("router")
    quiet(space)
    router = world.add(world.hosts[1], space, vni=7, ip="10.0.0.3/24", name="router", forwarding=True)
    world.tell(router)
    space.run("ip", "link", "add", "lan", "type", "veth", "peer", "name", "nal")
    space.run("ip", "address", "add", "10.9.0.1/24", "dev", "lan")
    for end in ("lan", "nal"):
        space.run("ip", "link", "set", end, "up")
    space.set(**{"ipv4/conf/eth0/forwarding": 1})
    for agent in healthy.agents:
        agent.networks[7, "10.9.0.0/16"] = mz.Network(via="10.0.0.3")
    other = world.namespace("other")
    quiet(other)
    world.add(world.hosts[0], other, vni=8, ip="10.0.0.7/24", name="other")
    twins: dict[str, Container] = {}
    for host, name, ip in ((world.hosts[1], "web", "10.8.0.1/24"), (world.hosts[0], "beside", "10.8.0.2/24")):
        own = world.namespace(f"{name}-9")
        quiet(own)
        twins[name] = world.add(host, own, vni=9, ip=ip, name=name)
    return {"app": app, "router": router, "twin": twins["web"]}


HEALTHY: list[tuple[str, dict[str, Any], Verdict]] = [
    ("ping", {}, ACCEPTED),
    ("IPv6", {"to": "fd00::2"}, ACCEPTED),
    ("as long as the device takes", {"size": 1450}, ACCEPTED),
    ("TCP super-packet", {"protocol": "tcp", "port": 80, "size": 60000}, ACCEPTED),
    ("UDP by handle", {"to": "handle", "protocol": "udp", "port": 53}, ACCEPTED),
    ("by name", {"to": "db"}, ACCEPTED),
    ("on the same host", {"to": "10.0.0.4"}, LOCALLY),
    ("gateway", {"to": GATEWAY}, BY_GATEWAY),
    ("by a router", {"to": "10.9.0.7"}, ACCEPTED),
    ("ARP", {"protocol": "arp"}, ANSWERED),
    ("neighbour discovery", {"to": "fd00::2", "protocol": "nd"}, ANSWERED),
    ("itself", {"to": "10.0.0.1"}, Verdict.ENCAPSULATED),
]


@pytest.mark.parametrize(("name", "ask", "verdict"), HEALTHY, ids=[each[0] for each in HEALTHY])
def test_nothing_is_found_where_nothing_is_wrong(
    healthy: Scene, more: dict[str, Container], name: str, ask: dict[str, Any], verdict: Verdict
) -> None:
    if ask.get("to") == "handle":
        ask = ask | {"to": healthy.db.endpoint}
    found = healthy.explain(**ask)
    assert found.ok, f"\n{found}"
    assert found.verdict is (None if name == "itself" else verdict)
    assert not found.cause
    remarks = [step.remark for step in found.steps if step.remark and step.looked_at != "socket"]
    # The kernel's table of neighbours is the whole machine's, and other tests may have filled it.
    assert not [remark for remark in remarks if not remark.startswith("all namespaces together")]
    wait_until(lambda: _leaves_all(healthy, ask), "nothing is changed by it")
    if name in ("ping", "on the same host", "gateway"):
        assert_ping(healthy.web.namespace, ask.get("to", healthy.db.ip))


def _leaves_all(scene: Scene, ask: dict[str, Any]) -> bool:
    """Whether explaining leaves all maps; a container that spoke meanwhile is counted, so it is asked again."""
    before = [digest.of_agent(agent) for agent in scene.agents]
    scene.explain(**ask)
    return [digest.of_agent(agent) for agent in scene.agents] == before


def test_the_namespace_itself_ends_the_way_of_a_packet_to_its_own_address(healthy: Scene) -> None:
    found = healthy.explain("10.0.0.1")
    assert [step.looked_at for step in found.steps] == ["endpoint", "route"]
    assert "stays there" in found.steps[-1].matched


@pytest.mark.parametrize(("to", "own"), [("10.0.0.2", "10.0.0.1/32"), ("fd00::2", "fd00::1/128")])
def test_a_receiver_that_has_the_address_of_the_sender_does_not_answer(
    healthy: Scene, to: str, own: str
) -> None:
    space = healthy.db.namespace
    space.run("ip", "address", "add", own, "dev", "lo")
    try:
        if ":" in own:  # the kernel takes its time with the local route
            with Session.open(space.name) as session:
                wait_for_address(session, ip_interface(own))
        found = healthy.explain(to)
        answered = "." in to and ping(healthy.web.namespace, to, timeout=0.2)
    finally:
        space.run("ip", "address", "del", own, "dev", "lo")
    assert not answered
    assert not found.ok, f"\n{found}"
    assert "is an address of " in found.cause
    assert found.at == healthy.name(2)


def test_somebody_who_listens_is_seen(healthy: Scene) -> None:
    asked: dict[str, Any] = {"protocol": "tcp", "port": 4242}
    nobody = healthy.explain(**asked)
    assert nobody.ok
    assert "a reset" in _remarks(nobody)
    with healthy.db.namespace.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind((healthy.db.ip, 4242))
        listener.listen()
        assert _remarks(healthy.explain(**asked)) == ""


def _connects(scene: Scene, to: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in to else socket.AF_INET
    with scene.web.namespace.socket(family, socket.SOCK_STREAM) as client:
        try:
            client.connect((to, port))
        except ConnectionRefusedError:
            return False
    return True


def _v6only(listener: socket.socket, only: int) -> None:
    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)


LISTENERS: list[tuple[str, int, str, str]] = [
    ("0.0.0.0", 0, "10.0.0.2", "somebody"),
    ("127.0.0.1", 0, "10.0.0.2", "nobody"),
    ("::", 0, "fd00::2", "somebody"),
    ("::1", 0, "fd00::2", "nobody"),
    ("fd00::2", 0, "fd00::2", "somebody"),
    ("::ffff:10.0.0.2", 0, "10.0.0.2", "somebody"),
    ("::ffff:127.0.0.1", 0, "10.0.0.2", "nobody"),
    ("0.0.0.0", 0, "fd00::2", "nobody"),
    ("::", 0, "10.0.0.2", "perhaps"),
    ("::", 1, "10.0.0.2", "perhaps"),
]


@pytest.mark.parametrize(("own", "only", "to", "answer"), LISTENERS)
def test_who_listens_on_another_address_does_not_answer(
    healthy: Scene, own: str, only: int, to: str, answer: str
) -> None:
    family = socket.AF_INET6 if ":" in own else socket.AF_INET
    with healthy.db.namespace.socket(family, socket.SOCK_STREAM) as listener:
        if family == socket.AF_INET6:
            _v6only(listener, only)
        listener.bind((own, 4243))
        listener.listen()
        found = healthy.explain(to, protocol="tcp", port=4243)
        connects = _connects(healthy, to, 4243)
    (step,) = (step for step in found.steps if step.looked_at == "socket")
    assert found.ok
    if answer == "perhaps":  # the kernel's table does not say whether it is for IPv6 alone
        assert step.ok is None
        assert connects is not bool(only)
    else:
        assert step.matched.startswith(answer)
        assert connects is (answer == "somebody")
        assert ("a reset" in step.remark) is not connects
        assert (f"but at {own.removeprefix('::ffff:')}" in step.matched) is not connects


def test_a_datagram_to_a_port_of_another_address_is_refused(healthy: Scene) -> None:
    with healthy.db.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as waiting:
        waiting.bind(("127.0.0.1", 4244))
        found = healthy.explain(protocol="udp", port=4244)
        with pytest.raises(ConnectionRefusedError):
            udp_ask(healthy.web.namespace, healthy.db.ip, b"?", port=4244)
    assert "port unreachable" in _remarks(found)


# -- addresses that are no endpoint's


def _assert_refused(scene: Scene, to: str, verdict: Verdict) -> None:
    """The agent counts a datagram as dropped for that reason."""
    before, family = scene.agents[0].stats(), socket.AF_INET6 if ":" in to else socket.AF_INET
    with scene.web.namespace.socket(family, socket.SOCK_DGRAM) as client, suppress(OSError):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        client.sendto(b"?", (to, 53))  # what the agent drops is told to the socket
    wait_until(lambda: scene.agents[0].stats().since(before).verdicts[verdict].packets)


@pytest.mark.parametrize("to", [GATEWAY, "fd00::fe"])
def test_the_own_gateway_answers_echo_alone(healthy: Scene, to: str) -> None:
    found = healthy.explain(to, protocol="udp", port=53)
    assert (found.ok, found.verdict) == (False, Verdict.NO_DESTINATION)
    assert f"{to} is the gateway of endpoint web, which answers echo alone" in found.cause
    assert "mz.Remote" not in found.remedy
    _assert_refused(healthy, to, Verdict.NO_DESTINATION)
    assert healthy.explain(to).ok


def test_a_broadcast_address_is_named_as_one(healthy: Scene) -> None:
    found = healthy.explain("10.0.0.255", protocol="udp", port=53)
    assert (found.ok, found.verdict) == (False, Verdict.MULTICAST)
    assert "10.0.0.255 is a broadcast address" in found.cause
    _assert_refused(healthy, "10.0.0.255", Verdict.MULTICAST)
    stream = healthy.explain("10.0.0.255", protocol="tcp", port=80)
    assert "10.0.0.255 is a broadcast address" in stream.cause
    assert stream.verdict is None
    with healthy.web.namespace.socket(socket.AF_INET, socket.SOCK_STREAM) as client, pytest.raises(OSError):
        client.connect(("10.0.0.255", 80))


# -- what arrives all the same


def _remarks(found: mz.Explanation) -> str:
    return "; ".join(step.remark for step in found.steps if step.remark)


@contextmanager
def _remote(scene: Scene, host: str) -> Iterator[None]:
    table = scene.agents[0].endpoints
    before = table[7, scene.db.ip]
    table[7, scene.db.ip] = mz.Remote(host)
    yield
    table[7, scene.db.ip] = before


@pytest.mark.vm
def test_a_packet_that_goes_by_a_third_host(healthy: Scene) -> None:
    with _remote(healthy, "192.0.2.3"):
        found = healthy.explain()
        assert_ping(healthy.web.namespace, healthy.db.ip)
    assert found.ok
    assert [step.at for step in found.steps if step.verdict is Verdict.BOUNCED] == [healthy.name(3)]
    assert "192.0.2.1 sent it here, and this host sends it on" in _remarks(found)
    assert found.at == healthy.name(2)


def test_a_queue_on_the_tunnel(healthy: Scene) -> None:
    space = healthy.world.spaces[0]
    space.run("tc", "qdisc", "add", "dev", TUNNEL, "root", "pfifo")
    found = healthy.explain()
    space.run("tc", "qdisc", "del", "dev", TUNNEL, "root")
    assert found.ok
    assert "its qdisc is pfifo" in _remarks(found)


def test_an_underlay_there_that_takes_less(healthy: Scene) -> None:
    space = healthy.world.spaces[1]
    space.run("ip", "link", "set", UNDERLAY, "mtu", "1400")
    found = healthy.explain(size=1428)
    space.run("ip", "link", "set", UNDERLAY, "mtu", "1500")
    assert found.ok
    assert "longer than that" in _remarks(found)
    assert "1478 bytes do not fit 1400: sent in fragments" in _remarks(found)


def test_an_address_that_another_device_of_the_receiver_has(scene: Scene) -> None:
    space = scene.db.namespace
    for ip in ("10.0.0.2", "fd00::2"):
        version = "-6" if ":" in ip else "-4"
        space.run("ip", version, "address", "del", f"{ip}/{64 if ':' in ip else 24}", "dev", "eth0")
        space.run("ip", version, "address", "add", ip, "dev", "lo")
        space.run("ip", version, "route", "add", "fd00::/64" if ":" in ip else "10.0.0.0/24", "dev", "eth0")
        if ":" in ip:  # the kernel takes its time with the local route
            with Session.open(space.name) as session:
                wait_for_address(session, ip_interface(ip))
        found = scene.explain(ip)
        assert is_heard(space, ip, lambda ip=ip: say(scene.web.namespace, ip), timeout=SOCKET_SECONDS)
        assert found.ok, f"\n{found}"
        assert f"eth0 does not have {ip}, but another device there does" in _remarks(found)
    assert_ping(scene.web.namespace, scene.db.ip)


def test_a_sender_in_mode_source_sends_what_it_need_not_ask_for(scene: Scene) -> None:
    space = scene.web.namespace
    assert scene.hears(timeout=SOCKET_SECONDS)
    space.run("ip", "link", "set", "eth0", "type", "macvlan", "mode", "source")
    for known in (True, False):
        found = scene.explain(protocol="udp", port=PORT)
        assert found.ok is scene.hears() is known, f"\n{found}"
        space.run("ip", "neighbour", "flush", "dev", "eth0")


@pytest.mark.parametrize("case", [name for name in CASES if name.startswith(("40", "45"))])
def test_what_the_shortcut_goes_past(scene: Scene, case: str) -> None:
    CASES[case].do(scene)
    scene.agents[1].update(shortcut="auto")
    if scene.agents[1].state().shortcut.on:
        found = scene.explain(protocol="udp", port=PORT)
        assert found.ok is scene.hears() is True, f"\n{found}"


@pytest.mark.parametrize("breaks", ["own MAC", "INPUT"])
def test_what_a_transit_switch_sends_on_before_its_host_sees_it(scene: Scene, breaks: str) -> None:
    world, (first, second, third) = scene.world, scene.world.hosts
    space = world.namespace("far")
    far = world.add(third, space, vni=7, ip="10.1.0.2/24", name="far", gateway="10.1.0.1")
    for host, network in ((first, "10.1.0.0/24"), (third, "10.0.0.0/24")):
        host.agent.networks[7, network] = mz.Network(switches=[second.address])
    second.agent.endpoints[7, "10.1.0.2"] = mz.Remote(third.address)
    world.switch(second)
    for host in (first, third):  # its program sends on to neighbours that it knows
        assert_ping(second.namespace, host.address)
    if breaks == "own MAC":
        scene.web.endpoint.delete()
        own = mac_of(second.namespace, TUNNEL)
        made = {"vni": 7, "ip": "10.0.0.1/24", "name": "web", "gateway": GATEWAY, "mac": own}
        mz.Endpoint.create(first.agent, netns=scene.web.namespace.name, **made)
    else:
        rule = "table ip t { chain c { type filter hook input priority 0; udp dport 4789 drop; }; }"
        second.namespace.run("nft", rule)
    found = mz.explain_path(scene.agents, "web", "10.1.0.2", protocol="udp", port=PORT)
    arrives = is_heard(space, far.ip, lambda: say(scene.web.namespace, far.ip), timeout=1)
    assert found.ok is arrives is True, f"\n{found}"
    said = "unless the transit switch sends the packet on before"
    assert any(said in each.matched and each.ok is None for each in found.steps), f"\n{found}"


# -- one half at a time


@attrs.frozen
class Halves:
    """A way whose far half comes from another process.

    Attributes:
        near: Explained on the sender's host.
        far: Explained on the receiver's, and carried over.
    """

    near: mz.Explanation
    far: mz.Explanation


def _halves(scene: Scene) -> Halves:
    near = scene.agents[0].explain("web", "10.0.0.2")
    far = scene.agents[1].explain("10.0.0.1", "db", vni=7, outer="192.0.2.1")
    return Halves(near, mz.Explanation.from_dict(json.loads(json.dumps(far.to_dict()))))


def test_each_half_says_what_it_can_and_both_are_joined(healthy: Scene) -> None:
    halves = _halves(healthy)
    assert halves.near.ok
    assert halves.near.verdict is Verdict.ENCAPSULATED
    assert halves.near.left is not None
    assert str(halves.near.left.destination) == "192.0.2.2"
    assert halves.far.ok
    assert halves.far.verdict is ACCEPTED
    assert halves.far.arrived is not None
    joined = mz.explain_path([healthy.agents[0], halves.far], "web", "10.0.0.2")
    assert [(step.at, step.looked_at) for step in joined.steps] == [
        (step.at, step.looked_at) for step in (*halves.near.steps, *halves.far.steps)
    ]
    assert joined.ok


@pytest.mark.parametrize(
    "other",
    [
        {"vni": 8},
        {"outer": "192.0.2.3"},
        {"source": "10.0.0.4"},
        {"protocol": "tcp", "port": 80},
        {"protocol": "udp"},
        {"size": 1400},
    ],
    ids=str,
)
def test_a_half_of_another_packet_is_not_joined(healthy: Scene, other: dict[str, Any]) -> None:
    ask: dict[str, Any] = {"source": "10.0.0.1", "vni": 7, "outer": "192.0.2.1"}
    source, right = ask["source"], _halves(healthy).far
    ask |= other
    wrong = healthy.agents[1].explain(ask.pop("source", source), "10.0.0.2", **ask)
    found = mz.explain_path([healthy.agents[0], wrong], "web", "10.0.0.2")
    assert found.steps[-1].ok is None
    assert "is another packet" in found.steps[-1].matched
    assert {step.at for step in found.steps} == {healthy.name(1)}
    both = mz.explain_path([healthy.agents[0], wrong, right], "web", "10.0.0.2")
    assert both.steps[-len(right.steps) :] == right.steps


@pytest.mark.parametrize(
    ("to", "ask"),
    [
        ("10.0.0.2", {"size": 1400}),
        ("fd00::2", {"size": 1400}),
        ("10.0.0.2", {"protocol": "udp", "size": 1450}),
        ("10.0.0.2", {"protocol": "tcp", "port": 80, "size": 2000}),
        ("10.0.0.2", {"protocol": "tcp", "port": 80, "size": 60000}),
        ("fd00::2", {"protocol": "tcp", "port": 80, "size": 60000}),
    ],
    ids=str,
)
def test_a_half_is_joined_if_its_packet_is_as_long(healthy: Scene, to: str, ask: dict[str, Any]) -> None:
    source = "fd00::1" if ":" in to else "10.0.0.1"

    def joined(**size: int) -> mz.Explanation:
        asked = ask | size
        there = healthy.agents[1].explain(source, to, vni=7, outer="192.0.2.1", **asked)
        return mz.explain_path([healthy.agents[0], there], "web", to, **ask)

    assert joined().at == healthy.name(2)
    for other in (84, 1449):
        assert "is another packet" in joined(size=other).steps[-1].matched


def test_a_half_of_a_shorter_packet_does_not_stand_for_one_that_is_lost(healthy: Scene) -> None:
    space, to, long = healthy.db.namespace, healthy.db.ip, 1400
    space.run("nft", "table ip t { chain c { type filter hook input priority 0; ip length > 1000 drop; }; }")
    half, lost = _halves(healthy).far, not ping(healthy.web.namespace, to, size=long - 28, timeout=0.2)
    found = mz.explain_path([healthy.agents[0], half], "web", to, size=long)
    whole = healthy.explain(size=long)
    space.run("nft", "flush", "ruleset")
    assert half.ok
    assert lost
    assert not whole.ok
    assert "is another packet" in found.steps[-1].matched, f"\n{found}"


def test_of_endpoints_of_one_name_the_one_that_is_meant_is_walked(
    healthy: Scene, more: dict[str, Container]
) -> None:
    (here, there, _), twin = healthy.agents, more["twin"]
    with pytest.raises(mz.EndpointNotFoundError, match="source: endpoint 'web' of this host is another"):
        here.explain(twin.endpoint, "10.8.0.2")
    assert there.explain(twin.endpoint, "10.8.0.2", vni=9).at == healthy.name(2)
    asked: list[dict[str, Any]] = [{}, {"vni": 9}]
    for ask in asked:
        found = mz.explain_path(healthy.agents, "beside", "web", **ask)
        assert found.at == healthy.name(1)
        assert "(9, 10.8.0.1)" in str(found)
    assert mz.explain_path(healthy.agents, "web", "beside").at == healthy.name(2)
    assert mz.explain_path(healthy.agents, "web", "db").steps[0].at == healthy.name(1)


def test_a_host_that_is_not_given_is_said_to_be_unknown(healthy: Scene) -> None:
    found = mz.explain_path(healthy.agents[:1], "web", "10.0.0.2")
    assert found.ok
    assert found.steps[-1].ok is None
    assert "none of the given hosts has 192.0.2.2" in found.steps[-1].matched


def test_a_peer_that_is_none_and_a_frame_that_it_sends(healthy: Scene) -> None:
    agent = healthy.agents[1]
    stranger = agent.explain("10.0.0.1", "10.0.0.2", vni=7, outer="203.0.113.9")
    assert (stranger.ok, stranger.verdict) == (False, Verdict.FOREIGN_PEER)
    assert stranger.remedy.startswith('agent.peers.add("203.0.113.9")')
    frame = bytes(12) + b"\x88\xcc" + bytes(50)
    assert agent.explain(None, frame=frame, outer="192.0.2.1", vni=7).verdict is Verdict.UNKNOWN_ETHERTYPE


def test_a_packet_that_hosts_send_to_each_other(healthy: Scene) -> None:
    key, hosts = (7, "10.0.0.88"), healthy.world.hosts
    for host, other in zip(hosts, (*hosts[1:], hosts[0]), strict=True):
        host.agent.endpoints[key] = mz.Remote(other.address)
    found = healthy.explain("10.0.0.88")
    for host in hosts:
        del host.agent.endpoints[key]
    assert (found.ok, found.verdict, found.at) == (False, Verdict.SOURCE_IS_LOCAL, healthy.name(1))
    assert [step.at for step in found.steps if step.verdict is Verdict.BOUNCED] == [
        healthy.name(2),
        healthy.name(3),
    ]


REFUSED_BY_GUARD: dict[Verdict, Callable[[Scene], bytes]] = {
    Verdict.TUNNEL_MAC: lambda s: datagram(
        s.db.mac, "10.0.0.1", "10.0.0.2", destination_mac=mac_of(s.world.spaces[1], TUNNEL)
    ),
    Verdict.BAD_ARP: lambda s: bytes(12) + b"\x08\x06" + bytes(46),
    Verdict.MULTICAST: lambda s: datagram(s.db.mac, "10.0.0.1", "224.0.0.1", destination_mac=s.db.mac),
    Verdict.SOURCE_IS_LOCAL: lambda s: datagram(s.db.mac, "10.0.0.2", "10.0.0.2", destination_mac=s.db.mac),
    Verdict.NO_NEXT_HOP: lambda s: datagram(s.db.mac, "10.0.0.1", "10.7.0.1", destination_mac=s.db.mac),
    Verdict.NO_DESTINATION: lambda s: datagram(s.db.mac, "10.0.0.1", "10.6.0.1", destination_mac=s.db.mac),
}


@pytest.mark.parametrize("verdict", REFUSED_BY_GUARD, ids=lambda verdict: verdict.name)
def test_a_frame_from_another_host_that_the_guard_refuses(healthy: Scene, verdict: Verdict) -> None:
    agent = healthy.agents[1]
    agent.networks[7, "10.7.0.0/16"] = mz.Network(via="10.0.0.77")
    found = agent.explain(None, frame=REFUSED_BY_GUARD[verdict](healthy), outer="192.0.2.1", vni=7)
    del agent.networks[7, "10.7.0.0/16"]
    assert (found.ok, found.verdict) == (False, verdict)
    assert found.cause
    assert found.remedy


def test_no_drop_reason_is_forgotten() -> None:
    """Each is explained in a test, or named among those that no read can show."""
    page = (Path(__file__).parents[3] / "docs/explain.md").read_text()
    named = set(re.findall(r"`([A-Z_]+)`", page.partition("## What it cannot tell")[2]))
    broken = {case.verdict for case in CASES.values() if case.verdict is not None}
    here = {Verdict.OVERSIZED, *REFUSED_BY_GUARD}
    drops = {verdict for verdict in Verdict if verdict.dropped}
    assert {each.name for each in drops - MET - broken - here} == named & {each.name for each in drops}


def test_no_secret_is_in_an_explanation(healthy: Scene) -> None:
    packed = datapath_of(healthy.agents[0]).maps.config.lookup(bytes(4)) or b""
    secrets = Config.unpack(packed)
    text = json.dumps(healthy.explain("10.0.0.2").to_dict()) + str(
        healthy.agents[0].explain("web", "10.0.0.4")
    )
    for secret in (secrets.mark_local, secrets.mark_bounced):
        assert str(secret) not in text
        assert f"{secret:x}" not in text
    assert secrets.token_bounced.hex() not in text


def test_a_frame_whose_sender_is_told_why_it_ends_does_not_arrive(healthy: Scene) -> None:
    web, agent = healthy.web, healthy.agents[0]
    hop = datagram(web.mac, "10.0.0.1", "10.8.0.9", destination_mac=VIRTUAL_MAC.packed, hops=1)
    agent.endpoints[7, "10.8.0.9"] = mz.Remote("192.0.2.2")
    expired = agent.explain("web", frame=hop)
    del agent.endpoints[7, "10.8.0.9"]
    assert (expired.ok, expired.verdict) == (False, Verdict.GATEWAY_ANSWERED)
    assert "its hops are used up" in expired.cause
    fine = agent.explain(
        web.endpoint, frame=datagram(web.mac, "10.0.0.1", "10.0.0.2", destination_mac=web.mac)
    )
    assert (fine.ok, fine.verdict) == (True, Verdict.ENCAPSULATED)
    long = agent.explain("web", frame=hop.ljust(1465, b"\0"))
    assert (long.cause, long.verdict) == ("size: the frame has 1465 bytes, and eth0 takes 1464", None)


# -- what is asked for and is not there


def test_what_does_not_exist_is_said_by_name(healthy: Scene) -> None:
    agent = healthy.agents[0]
    with pytest.raises(mz.EndpointNotFoundError, match="source: there is no endpoint 'nobody'"):
        agent.explain("nobody", "10.0.0.2")
    with pytest.raises(mz.EndpointNotFoundError, match="destination: there is no endpoint 'db' on this host"):
        agent.explain("web", "db")
    with pytest.raises(mz.EndpointNotFoundError, match="on any of the given hosts"):
        healthy.explain("nobody")
    elsewhere = agent.explain("10.0.0.2", "10.0.0.1", vni=7)
    assert "it lives on 192.0.2.2" in elsewhere.cause
    nowhere = mz.explain_path(healthy.agents, "10.0.0.99", "10.0.0.1", vni=7)
    assert (nowhere.ok, nowhere.at) == (False, "-")


@pytest.mark.parametrize(
    ("argument", "ask"),
    [
        ("vni", {"vni": 8}),
        ("outer", {"source": "10.0.0.1", "outer": "2001:db8::9", "vni": 7}),
        ("destination", {"to": "fd00::2", "source": "app"}),
        ("size", {"to": "fd00::2", "size": 40}),
        ("destination", {"to": "other"}),
    ],
)
def test_what_does_not_fit_to_the_endpoint_is_refused(
    healthy: Scene, more: dict[str, Container], argument: str, ask: dict[str, Any]
) -> None:
    agent, given = healthy.agents[0], dict(ask)
    source, to = given.pop("source", "web"), given.pop("to", "10.0.0.2")
    with pytest.raises(mz.InvalidValueError) as refused:
        agent.explain(source, to, **given)
    assert refused.value.argument == argument


# -- tables that change meanwhile


def test_tables_that_are_being_changed_are_read_again_and_then_said_to_change(healthy: Scene) -> None:
    agent, over = healthy.agents[0], threading.Event()
    maps = datapath_of(agent).maps

    def write() -> None:
        while not over.is_set():
            maps.stamp()

    found: list[mz.Explanation] = []

    def is_said() -> bool:
        found[:] = [agent.explain("web", "10.0.0.2")]
        return found[0].steps[0].looked_at == "tables"

    with ThreadPoolExecutor(1) as pool:
        writer = pool.submit(write)
        try:
            wait_until(is_said, "a change falls into each round")
        finally:
            over.set()
        writer.result(SOCKET_SECONDS)
    assert found[0].ok
    assert found[0].steps[0].ok is None
    assert "in each of 3 rounds" in found[0].steps[0].matched
    settled = agent.explain("web", "10.0.0.2").steps
    assert [step.looked_at for step in settled] == [step.looked_at for step in found[0].steps[1:]]
