# SPDX-License-Identifier: Apache-2.0
"""Twenty-five things that break, or nearly break, the way from ``web`` to ``db``: which host's check names each one.

For the rest the table says why no single host can: it takes both hosts' tables, or rules that mizarnet does not read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import attrs
import pytest

import mizarnet as mz
from mizarnet import FindingKind as K
from tests.netns.check.conftest import Scene, of_host
from tests.support.traffic import ping
from tests.support.wait import wait_until
from tests.world import TUNNEL, UNDERLAY, World

HERE, THERE = 0, 1
OTHER = {HERE: "host 192.0.2.2", THERE: "host 192.0.2.1"}


@attrs.frozen
class Breakage:
    """One of them.

    Attributes:
        do: Does it.
        at: Host whose check names it.
        kind: Kind of the finding.
        object: What it is about.
    """

    do: Callable[[Scene], object]
    at: Literal[0, 1]
    kind: K
    object: str


def _dead_host(scene: Scene) -> None:
    scene.agent.endpoints[7, scene.db.ip] = mz.Remote("192.0.2.77")
    assert not ping(scene.web.namespace, scene.db.ip, timeout=0.2)


def _in(scene: Scene, which: Literal["web", "db"], *words: str) -> None:
    getattr(scene, which).namespace.run("ip", *words)


def _at_db(scene: Scene, *words: str) -> None:
    scene.world.spaces[1].run("ip", *words)


def _other_address(scene: Scene) -> None:
    _in(scene, "web", "address", "flush", "dev", "eth0")
    _in(scene, "web", "address", "add", "10.0.0.66/24", "dev", "eth0")


NAMED: dict[str, Breakage] = {
    "1 peer not allowed": Breakage(
        lambda s: [s.db.host.agent.peers.discard(each) for each in list(s.db.host.agent.peers)],
        THERE,
        K.PEER_MISSING,
        OTHER[THERE],
    ),
    "6 entry points to a dead address": Breakage(_dead_host, HERE, K.NEIGHBOUR_FAILED, "host 192.0.2.77"),
    "7 entry off-link, no route": Breakage(
        lambda s: s.agent.endpoints.update({(7, s.db.ip): mz.Remote("203.0.113.5")}),
        HERE,
        K.NO_ROUTE,
        "host 203.0.113.5",
    ),
    "9 changed its MAC": Breakage(
        lambda s: _in(s, "web", "link", "set", "eth0", "address", "02:00:00:00:00:09"),
        HERE,
        K.MAC_DIFFERS,
        "endpoint web",
    ),
    "10 changed its address": Breakage(_other_address, HERE, K.ADDRESS_LOST, "endpoint web"),
    "12 underlay MTU here": Breakage(
        lambda s: s.ip("link", "set", UNDERLAY, "mtu", "1400"), HERE, K.UNDERLAY_MTU, f"underlay {UNDERLAY}"
    ),
    "13 underlay MTU there": Breakage(
        lambda s: _at_db(s, "link", "set", UNDERLAY, "mtu", "1400"),
        THERE,
        K.UNDERLAY_MTU,
        f"underlay {UNDERLAY}",
    ),
    "16 device down": Breakage(
        lambda s: _in(s, "db", "link", "set", "eth0", "down"), THERE, K.DEVICE_DOWN, "endpoint db"
    ),
    "17 lost its address": Breakage(
        lambda s: _in(s, "db", "address", "flush", "dev", "eth0"),
        THERE,
        K.ADDRESS_LOST,
        "endpoint db",
    ),
    "18 underlay down": Breakage(
        lambda s: s.ip("link", "set", UNDERLAY, "down"), HERE, K.UNDERLAY_DOWN, f"underlay {UNDERLAY}"
    ),
    "20 qdisc on the tunnel": Breakage(
        lambda s: s.space.run("tc", "qdisc", "add", "dev", TUNNEL, "root", "pfifo"),
        HERE,
        K.QDISC_DIFFERS,
        f"tunnel {TUNNEL}",
    ),
    "22 tunnel down": Breakage(
        lambda s: _at_db(s, "link", "set", TUNNEL, "down"), THERE, K.TUNNEL_DOWN, f"tunnel {TUNNEL}"
    ),
    "24 device deleted by hand": Breakage(
        lambda s: _in(s, "db", "link", "delete", "eth0"), THERE, K.DEVICE_GONE, "endpoint db"
    ),
}
NOT_NAMED = {
    "2 entry missing, cold": "this host was never told of the other endpoint: NO_DESTINATION counts it",
    "3 entry missing, warm": "the same",
    "4 reverse entry missing": "the same, on the other host",
    "5 entry points to a third host": "that host exists and answers: only it knows that the endpoint is not there",
    "8 in another VNI": "the tables of each host agree with its devices: only both together tell",
    "11 container MTU 9000": "the kernel refuses an MTU above the tunnel's: nothing changes",
    "14 firewall drops the tunnel's port": "rules of a firewall are not read",
    "15 another UDP port": "the port of another host is not known here; Udp.NoPorts grows in health().counters there",
    "19 no route in the container": "nobody asked for one",
    "21 firewall in the container": "rules of a firewall are not read",
    "23 entry names another address of the host": "it is reachable and a peer: only the other host knows its tunnel's",
    "25 wrong neighbour, permanent": "an administrator may know better: the kernel does not ask, and counts nothing",
}


def test_there_are_twenty_five() -> None:
    numbers = sorted(int(name.split()[0]) for name in (*NAMED, *NOT_NAMED))
    assert numbers == list(range(1, 26))


@pytest.mark.parametrize("name", NAMED)
def test_a_breakage_is_named_with_its_remedy_on_one_of_the_hosts(scene: Scene, name: str) -> None:
    breakage = NAMED[name]
    breakage.do(scene)
    with mz.Host.open(netns=scene.world.spaces[breakage.at].name) as seen:

        def named() -> list[mz.Finding]:
            found = of_host(seen.check())
            return [
                each for each in found if (each.kind, str(each.object)) == (breakage.kind, breakage.object)
            ]

        wait_until(named, "a check names it")
        assert all("; " in each.message for each in named())


@pytest.mark.parametrize("version", [4, 6])
def test_a_renumbered_or_lowered_underlay_is_told_by_check_and_health(version: int) -> None:
    with World("vxlan", ipv6=version == 6) as world:
        host = world.hosts[0]
        with mz.Host.open(netns=host.namespace.name) as seen:
            for words, kind in (
                (["link", "set", UNDERLAY, "mtu", "1400"], K.UNDERLAY_MTU),
                (["address", "flush", "dev", UNDERLAY, "scope", "global"], K.UNDERLAY_ADDRESS),
            ):
                host.namespace.run("ip", *words)
                told = next(each for each in seen.check() if each.kind is kind)
                assert (
                    "ip link set eth0 mtu" in told.message or f"ip address add {host.address}" in told.message
                )
                health = seen.health()
                assert not health.ok
                assert kind in {each.kind for each in health.reasons}
