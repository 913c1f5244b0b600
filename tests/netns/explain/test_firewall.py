# SPDX-License-Identifier: Apache-2.0
"""Rules of nftables on a packet's way: what drops it is named, and what cannot be judged is said."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.netns.explain.conftest import Scene
from tests.support.depth import some
from tests.support.namespace import Namespace
from tests.support.traffic import ping


@contextmanager
def _rules(space: Namespace, rules: str) -> Iterator[None]:
    space.run("nft", rules)
    try:
        yield
    finally:
        space.run("nft", "flush", "ruleset")


def _space(scene: Scene, where: str) -> Namespace:
    spaces = {"web": scene.web.namespace, "db": scene.db.namespace}
    return spaces[where] if where in spaces else scene.world.spaces[int(where[1]) - 1]


def _chain(hook: str, *rules: str, family: str = "ip", policy: str = "accept", more: str = "") -> str:
    head = f"type filter hook {hook} priority 0; policy {policy};"
    return f"table {family} t {{ {more} chain c {{ {head} {'; '.join(rules)}; }}; }}"


def _pings(scene: Scene) -> bool:
    try:
        return ping(scene.web.namespace, scene.db.ip, timeout=0.2)
    except OSError:  # what its own firewall refuses is told to the socket
        return False


DROPS: list[tuple[str, str, str, dict[str, Any]]] = [
    ("db", "ping", _chain("input", "icmp type echo-request drop"), {}),
    ("db", "policy", _chain("input", "ip saddr 10.0.0.9 accept", policy="drop"), {}),
    ("db", "inet", _chain("input", 'iifname "eth0" meta l4proto icmp counter drop', family="inet"), {}),
    ("db", "reject", _chain("input", "ip saddr 10.0.0.0/24 reject"), {}),
    ("db", "jump", _chain("input", "ip daddr 10.0.0.2 jump j", more="chain j { log; drop; };"), {}),
    ("db", "goto", _chain("input", "goto j", policy="drop", more="chain j { counter; };"), {}),
    ("db", "prerouting", _chain("prerouting", "ip ttl > 63 drop"), {}),
    ("db", "TCP port", _chain("input", "tcp dport 80-90 drop"), {"protocol": "tcp", "port": 85}),
    ("db", "UDP port", _chain("input", "udp dport != 54 drop"), {"protocol": "udp", "port": 53}),
    ("db", "IPv6", _chain("input", "icmpv6 type echo-request drop", family="ip6"), {"to": "fd00::2"}),
    ("db", "new", _chain("input", "ct state new drop"), {}),
    ("db", "answer", _chain("output", "ct state established drop"), {}),
    ("db", "echo reply", _chain("output", "icmp type echo-reply drop"), {}),
    ("db", "SYN and ACK", _chain("output", "tcp sport 80 drop"), {"protocol": "tcp", "port": 80}),
    ("db", "unsure drop", _chain("input", "limit rate over 9/second drop", policy="drop"), {}),
    ("web", "own output", _chain("output", "ip daddr 10.0.0.2 drop"), {}),
    ("web", "postrouting", _chain("postrouting", 'oifname "eth0" drop'), {}),
    ("h1", "tunnel out", _chain("output", "udp dport 4789 drop"), {}),
    ("h2", "tunnel in", _chain("input", "udp dport 4789 drop"), {}),
]


@pytest.mark.parametrize(
    ("where", "name", "rules", "ask"),
    [pytest.param(*each, id=f"{each[1]} in {each[0]}") for each in some(DROPS, 3)],
)
def test_what_drops_it_is_named(
    healthy: Scene, where: str, name: str, rules: str, ask: dict[str, Any]
) -> None:
    space = _space(healthy, where)
    with _rules(space, rules):
        found = healthy.explain(**ask)
        lost = ask or not _pings(healthy)
    assert not found.ok, f"\n{found}"
    assert "chain c of table " in found.cause
    assert found.at == healthy.name(2 if where in ("db", "h2") else 1)
    assert found.remedy.startswith("nft list chain ")
    assert lost


PASSES = {
    "another port": _chain("input", "tcp dport 22 drop", "udp dport {53, 54} accept"),
    "another source": _chain("input", "ip saddr 10.0.1.0/24 drop", "ip saddr 10.0.0.5 drop"),
    "accepted first": _chain("input", "icmp type echo-request accept", "drop"),
    "another hook": _chain("forward", "drop"),
    "another family": _chain("input", "drop", family="ip6"),
    "invalid only": _chain("input", "ct state invalid drop"),
    "answers alone": _chain("output", "icmp type echo-reply accept", policy="drop"),
    "no own questions": _chain("output", "icmp type echo-request drop"),
    "returns": _chain("input", "jump j", "accept", more="chain j { return; drop; };", policy="drop"),
}


@pytest.mark.parametrize("name", some(list(PASSES), 3))
def test_what_lets_it_through_is_no_finding(healthy: Scene, name: str) -> None:
    with _rules(healthy.db.namespace, PASSES[name]):
        found = healthy.explain()
        assert ping(healthy.web.namespace, healthy.db.ip)
    assert found.ok, f"\n{found}"
    assert "may drop it" not in str(found)


UNSURE: list[tuple[str, str, str]] = [
    ("db", "set", _chain("input", "icmp type { echo-request, echo-reply } accept", policy="drop")),
    ("db", "set ahead of a rule", _chain("input", "meta mark 0 accept", "drop")),
    ("db", "set for answers", _chain("output", "icmp type { 0, 3 } accept", policy="drop")),
    ("h2", "set of ports", _chain("input", "udp dport { 4789, 6081 } accept", policy="drop")),
    ("h2", "source port", _chain("input", "udp sport < 1024 drop")),
    ("h1", "source port zero", _chain("output", "udp sport 0 drop")),
]


@pytest.mark.parametrize(
    ("where", "rules"), [pytest.param(w, r, id=f"{name} in {w}") for w, name, r in some(UNSURE, 3)]
)
def test_what_hangs_on_a_rule_that_is_unsure_is_not_said_to_drop_it(
    healthy: Scene, where: str, rules: str
) -> None:
    with _rules(_space(healthy, where), rules):
        found = healthy.explain()
        assert _pings(healthy)
    assert found.ok, f"\n{found}"
    assert any(step.looked_at == "firewall" and step.ok is None for step in found.steps), f"\n{found}"


def test_what_cannot_be_judged_is_said(healthy: Scene) -> None:
    rules = _chain("input", "limit rate over 1/day drop", "icmp type { echo-request, echo-reply } accept")
    with _rules(healthy.db.namespace, rules):
        found = healthy.explain()
    assert found.ok
    unsure = next(step for step in found.steps if step.looked_at == "firewall")
    assert unsure.ok is None
    assert "cannot be judged from here: ip t c (limit); ip t c (lookup)" in unsure.matched


# -- connection tracking


def _raw(hook: str, *rules: str, priority: str = "raw", more: str = "") -> str:
    """A chain in front of connection tracking, unless another priority puts it behind."""
    head = f"type filter hook {hook} priority {priority};"
    return f"table ip raw {{ {more} chain r {{ {head} {'; '.join(rules)}; }}; }}"


TUNNELLED = "udp dport 4789 notrack"
JUMPS = _raw("prerouting", "jump j", more=f"chain j {{ {TUNNELLED}; }};")
QUESTIONS = _raw("prerouting", "icmp type echo-request notrack")
UNTRACKED = _chain("input", "ct state untracked accept", policy="drop")
ANSWERS = _chain("output", "ct state established accept", policy="drop")
TRACKING: list[tuple[str, str, tuple[str, ...], bool | None]] = [
    ("h2", "not tracked", (_raw("prerouting", TUNNELLED), UNTRACKED), True),
    ("h1", "not tracked out", (_raw("output", TUNNELLED), _chain("output", "ct state new drop")), True),
    ("h2", "tracked", (_raw("prerouting", "udp dport 53 notrack"), UNTRACKED), False),
    ("h2", "dropped", (_raw("prerouting", TUNNELLED), _chain("input", "ct state untracked drop")), False),
    ("h2", "by a jump", (JUMPS, UNTRACKED), True),
    ("h2", "too late", (_raw("prerouting", TUNNELLED, priority="mangle"), UNTRACKED), False),
    ("h2", "not new yet", (_raw("prerouting", "ct state new drop"),), True),
    ("h2", "invalid so far", (_raw("prerouting", "ct state invalid drop"),), False),
    ("h2", "unsure", (_raw("prerouting", "udp dport { 4789, 53 } notrack"), UNTRACKED), None),
    ("h2", "unsure jump", (_raw("prerouting", "meta mark 0 jump j", more="chain j {};"), UNTRACKED), None),
    ("h2", "sure behind", (_raw("prerouting", "meta mark 1 notrack", TUNNELLED), UNTRACKED), True),
    ("db", "answer to it", (QUESTIONS, ANSWERS), None),
]


@pytest.mark.parametrize(
    ("where", "tables", "passes"),
    [
        pytest.param(where, tables, passes, id=f"{name} in {where}")
        for where, name, tables, passes in TRACKING
    ],
)
def test_the_state_of_a_connection_is_what_its_tracking_makes_of_the_packet(
    healthy: Scene, where: str, tables: tuple[str, ...], passes: bool | None
) -> None:
    with _rules(_space(healthy, where), "; ".join(tables)):
        found, arrives = healthy.explain(), _pings(healthy)
    assert found.ok is (passes is not False), f"\n{found}"
    if passes is None:
        unsure = [step.matched for step in found.steps if step.looked_at == "firewall" and step.ok is None]
        assert any("rule that is unsure" in text for text in unsure), f"\n{found}"
    else:
        assert arrives is passes


def test_a_table_that_is_dormant_drops_nothing(healthy: Scene) -> None:
    rules = "table ip t { flags dormant; chain c { type filter hook input priority 0; policy drop; }; }"
    with _rules(healthy.db.namespace, rules):
        found = healthy.explain()
        assert _pings(healthy)
        healthy.db.namespace.run("nft", "add", "table", "ip", "t")  # awake
        awake = healthy.explain()
        assert not _pings(healthy)
    assert found.ok, f"\n{found}"
    assert "of nftables" not in str(found)
    assert "chain c of table ip t" in awake.cause


# -- IPsec


@contextmanager
def _policy(space: Namespace, way: str, *packets: str) -> Iterator[None]:
    space.run("ip", "xfrm", "policy", "add", *packets, "dir", way, "action", "block")
    try:
        yield
    finally:
        space.run("ip", "xfrm", "policy", "flush")


POLICIES: list[tuple[str, str, tuple[str, ...]]] = [
    ("web", "out", ("src", "10.0.0.1", "dst", "10.0.0.2")),
    ("h1", "out", ("src", "192.0.2.1", "dst", "192.0.2.2", "proto", "udp", "dport", "4789")),
    ("h2", "in", ("src", "192.0.2.1", "dst", "192.0.2.2", "proto", "udp", "dport", "4789")),
    ("db", "in", ("src", "10.0.0.1", "dst", "10.0.0.2")),
    ("db", "out", ("src", "10.0.0.2", "dst", "10.0.0.1")),
]


@pytest.mark.parametrize(("where", "way", "packets"), POLICIES)
def test_ipsec_policies_on_the_way_are_said_to_be_there(
    healthy: Scene, where: str, way: str, packets: tuple[str, ...]
) -> None:
    with _policy(_space(healthy, where), way, *packets):
        found, arrives = healthy.explain(), _pings(healthy)
    assert not arrives
    assert found.ok
    steps = [step for step in found.steps if "IPsec" in step.matched]
    assert [step.ok for step in steps] == [None], f"\n{found}"
    assert f"{_named(healthy, where)} has IPsec policies" in steps[0].matched
    assert steps[0].remedy.startswith("ip xfrm policy")


def _named(scene: Scene, where: str) -> str:
    return "the host" if where[0] == "h" else _space(scene, where).name


@pytest.mark.parametrize(("where", "way"), [("web", "in"), ("h1", "in"), ("h2", "fwd"), ("db", "fwd")])
def test_ipsec_policies_for_another_way_are_none_of_the_packets(healthy: Scene, where: str, way: str) -> None:
    with _policy(_space(healthy, where), way, "src", "198.51.100.1", "dst", "198.51.100.2"):
        found = healthy.explain()
    assert "IPsec" not in str(found)
