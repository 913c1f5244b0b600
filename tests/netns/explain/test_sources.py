# SPDX-License-Identifier: Apache-2.0
"""Where a packet comes from, as the receiver's stack takes it or not: explained, and sent as a tunnel packet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from mizarnet._kernel.netlink import Session, read_sysctl
from tests.frames import VXLAN_PORT, datagram, vxlan
from tests.netns.explain.conftest import PORT, Scene, is_heard
from tests.support.namespace import Namespace

ASKED: dict[str, Any] = {"protocol": "udp", "port": PORT}


def _explained(scene: Scene, sent: bytes) -> bool:
    return scene.agents[1].explain(None, frame=sent, outer="192.0.2.1", vni=7).ok


def _arrives(scene: Scene, sent: bytes, to: str) -> bool:
    host = scene.world.hosts[0].namespace
    with host.socket(2, 2) as by:
        return is_heard(scene.db.namespace, to, lambda: by.sendto(vxlan(7, sent), ("192.0.2.2", VXLAN_PORT)))


@contextmanager
def _set(space: Namespace, **settings: int) -> Iterator[None]:
    with Session.open(space.name) as session:
        before = {key: int(read_sysctl(session, key)) for key in settings}
    space.set(**settings)
    try:
        yield
    finally:
        space.set(**before)


SOURCES = {
    "10.0.0.1": True,
    "0.1.2.3": True,
    "240.0.0.1": True,
    "0.0.0.0": False,
    "224.0.0.9": False,
    "255.255.255.255": False,
    "127.0.0.9": False,
    "fd00::1": True,
    "::": True,
    "::ffff:10.0.0.1": True,
    "::1": False,
    "ff02::9": False,
}


@pytest.mark.parametrize("source", SOURCES)
def test_an_address_that_no_packet_may_come_from(healthy: Scene, source: str) -> None:
    to = healthy.db.ipv6 if ":" in source else healthy.db.ip
    sent = datagram(healthy.web.mac, source, to, destination_mac=healthy.db.mac, port=PORT)
    assert _explained(healthy, sent) is _arrives(healthy, sent, to) is SOURCES[source]


@pytest.mark.parametrize(("routed", "local"), [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize("source", ["127.0.0.1", "127.0.0.9"])
def test_a_loopback_address_as_a_source(healthy: Scene, source: str, routed: int, local: int) -> None:
    to, arrives = healthy.db.ip, bool(routed and (local or source == "127.0.0.9"))
    sent = datagram(healthy.web.mac, source, to, destination_mac=healthy.db.mac, port=PORT)
    keys = {"ipv4/conf/all/route_localnet": routed, "ipv4/conf/eth0/accept_local": local}
    with _set(healthy.db.namespace, **keys):
        assert _explained(healthy, sent) is _arrives(healthy, sent, to) is arrives


@contextmanager
def _way_back(space: Namespace, *route: str) -> Iterator[None]:
    """A route to the sender, and another device that it may lead by."""
    space.run("ip", "link", "add", "other", "type", "veth", "peer", "name", "rehto")
    for name in ("other", "rehto"):
        space.run("ip", "link", "set", name, "up")
    try:
        space.run("ip", "route", "add", "10.0.0.1", *route)
        yield
    finally:
        space.run("ip", "link", "del", "other")
        space.run("ip", "route", "flush", "10.0.0.1/32")


BY_OTHER = ("dev", "other")
SEVERAL = ("nexthop", "dev", "eth0", "nexthop", "dev", "other", "weight", "200")


@pytest.mark.parametrize(
    ("level", "route", "arrives"),
    [(0, BY_OTHER, True), (1, BY_OTHER, False), (2, BY_OTHER, True), (1, ("dev", "eth0"), True)],
    ids=["no filter", "strict", "loose", "strict, by the same device"],
)
def test_the_reverse_path_filter(healthy: Scene, level: int, route: tuple[str, ...], arrives: bool) -> None:
    space = healthy.db.namespace
    with _set(space, **{"ipv4/conf/eth0/rp_filter": level}), _way_back(space, *route):
        found = healthy.explain(**ASKED)
        assert found.ok is healthy.hears() is arrives, f"\n{found}"


def test_the_way_back_by_a_rule_for_the_receivers_own_address(healthy: Scene) -> None:
    space = healthy.db.namespace
    with _set(space, **{"ipv4/conf/eth0/rp_filter": 1}), _way_back(space, *BY_OTHER):
        space.run("ip", "rule", "add", "from", healthy.db.ip, "lookup", "100")
        space.run("ip", "route", "add", "10.0.0.1", "dev", "eth0", "table", "100")
        found, arrives = healthy.explain(**ASKED), healthy.hears()
        space.run("ip", "route", "flush", "table", "100")
        space.run("ip", "rule", "del", "from", healthy.db.ip)
    assert found.ok is arrives is True, f"\n{found}"


def test_a_way_back_that_is_not_known_to_be_the_one_is_said(healthy: Scene) -> None:
    space = healthy.db.namespace
    keys = {"ipv4/conf/eth0/rp_filter": 1}
    for settings, route in ((keys, SEVERAL), (keys | {"ipv4/conf/all/src_valid_mark": 1}, BY_OTHER)):
        with _set(space, **settings), _way_back(space, *route):
            found = healthy.explain(**ASKED)
            arrives = healthy.hears()
        assert arrives is (route is SEVERAL)
        assert found.ok, f"\n{found}"
        assert any(each.looked_at == "source" and each.ok is None for each in found.steps), f"\n{found}"
