# SPDX-License-Identifier: Apache-2.0
"""A device of the underlay that is moved to another namespace takes its programs along, which do nothing there."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import attrs
import pytest

import mizarnet as mz
from mizarnet import FindingKind, Verdict
from mizarnet._kernel.bpf import has_tcx
from tests.support.counting import counted, wait_for
from tests.support.namespace import Namespace
from tests.support.traffic import assert_ping
from tests.world import TUNNEL, UNDERLAY, Container, EncapName, Host, Subnet, World, device, mac_of

NET = Subnet(7, 1)
DATAGRAMS = 20


@attrs.frozen
class Scene:
    """A host whose underlay device comes and goes, and two containers, of which one sends to the other by that host."""

    world: World
    host: Host
    away: Namespace
    sender: Container
    receiver: Container

    @classmethod
    def of(cls, world: World, host: Host, sender: Container, receiver: Container) -> Scene:
        """In the other namespace another device has the tunnel's index."""
        away = world.namespace("away")
        index = str(device(host.namespace, TUNNEL).ifindex)
        away.run("ip", "link", "add", "index", index, "name", "other", "type", "veth", "peer", "name", "end")
        mac = mac_of(host.namespace, UNDERLAY).hex(":")
        words = ("neigh", "replace", host.address, "lladdr", mac, "dev", UNDERLAY, "nud", "permanent")
        world.hosts[0].namespace.run("ip", *words)
        return cls(world, host, away, sender, receiver)

    def move(self, here: Namespace, there: Namespace) -> None:
        """Move the device."""
        here.run("ip", "link", "set", UNDERLAY, "netns", there.name)
        there.run("ip", "address", "add", f"{self.host.address}/24", "dev", UNDERLAY)
        there.run("ip", "link", "set", UNDERLAY, "up")

    def send(self) -> None:
        """Datagrams from one container to the other."""
        with self.sender.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as sending:
            for _ in range(DATAGRAMS):
                sending.sendto(b"", (self.receiver.ip, 9))

    def assert_idle(self, program: str, verdict: Verdict) -> None:
        """While the device is away its program passes all packets, and has none of ``verdict``."""
        self.move(self.host.namespace, self.away)
        before = self.host.agent.stats()
        self.send()
        wait_for(self.host.agent, Verdict.PASSED, before, program=program, packets=DATAGRAMS)
        assert getattr(self.host.agent.stats().since(before), program)[verdict].packets == 0
        self.move(self.away, self.host.namespace)

    def assert_mended(self, program: str, verdict: Verdict) -> None:
        """Back again, the program is told to be idle until it is repaired."""

        def ping() -> None:
            assert_ping(self.sender.namespace, self.receiver.ip)

        assert getattr(counted(self.host.agent, ping), program)[verdict].packets == 0
        with mz.Host.open(netns=self.host.namespace.name) as seen:
            lost = {
                str(each.object): each for each in seen.check() if each.kind is FindingKind.LIFELINE_MISSING
            }
            assert f"{program} {UNDERLAY}" in lost
            assert seen.repair(lost.values())
            assert FindingKind.LIFELINE_MISSING not in {each.kind for each in seen.check()}
        assert getattr(counted(self.host.agent, ping), program)[verdict].packets > 0


@pytest.fixture
def world(encap: EncapName) -> Iterator[World]:
    with World(encap, hosts=3, shortcut="auto") as made:
        yield made


@pytest.mark.vm
@pytest.mark.skipif(not has_tcx(), reason="this kernel has no tcx, and so no shortcut")
def test_a_shortcut(world: World) -> None:
    first, second, _ = world.hosts
    world.network(NET)
    far, near = world.member(first, NET, 2), world.member(second, NET, 3)
    world.inform(first, second)
    scene = Scene.of(world, second, far, near)
    assert_ping(far.namespace, near.ip)
    scene.assert_idle("shortcut", Verdict.ACCEPTED)
    scene.assert_mended("shortcut", Verdict.ACCEPTED)


@pytest.mark.vm
def test_a_transit_switch(world: World) -> None:
    first, second, third = world.hosts
    world.network(NET, switches=[third])
    a, b = world.member(first, NET, 2), world.member(second, NET, 3)
    world.inform(third)
    mz.TransitSwitch.attach(third.agent, mode="generic")
    scene = Scene.of(world, third, a, b)
    assert_ping(a.namespace, b.ip)
    scene.assert_idle("switch", Verdict.BOUNCED)
    scene.assert_mended("switch", Verdict.BOUNCED)
