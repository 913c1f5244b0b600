# SPDX-License-Identifier: Apache-2.0
"""The way out of a VNI: explained as far as the host decides, whole and broken."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import attrs
import pytest

import mizarnet as mz
from tests.support.depth import some
from tests.support.namespace import Namespace
from tests.support.traffic import assert_ping, ping
from tests.support.wait import wait_until
from tests.world import Container, World, quiet

OUTSIDE = "203.0.113.2"


@attrs.frozen
class Scene:
    """A container on one host, and a gateway on the other that leads to a machine outside.

    Attributes:
        world: The hosts.
        web: The container.
        inside: Namespace of the gateway.
    """

    world: World
    web: Container
    inside: Namespace

    @property
    def agents(self) -> list[mz.TransitAgent]:
        """Agents of the hosts."""
        return [host.agent for host in self.world.hosts]

    @property
    def there(self) -> Namespace:
        """The gateway's host."""
        return self.world.spaces[1]

    def explain(self, to: str = OUTSIDE, **ask: Any) -> mz.Explanation:
        """What becomes of a packet to the outside."""
        return mz.explain_path(self.agents, "web", to, **ask)


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    """Hosts that the tests of the module share, and mend."""
    with World("vxlan") as world:
        first, second = world.hosts
        web = world.container(first, 7, "10.0.0.1/24", name="web", gateway="10.0.0.254")
        outside = world.namespace("outside")
        quiet(outside)
        second.namespace.run("ip", "link", "add", "out", "type", "veth", "peer", "far", "netns", outside.name)
        for space, name, ip in (
            (second.namespace, "out", "203.0.113.1/24"),
            (outside, "far", f"{OUTSIDE}/24"),
        ):
            space.run("ip", "address", "add", ip, "dev", name)
            space.run("ip", "link", "set", name, "up")
        gateway = mz.Gateway.create(second.agent, vni=7, egress="out", ip="10.0.0.254/24")
        first.agent.endpoints[7, "10.0.0.254"] = mz.Remote(second.address)
        first.agent.networks[7, "0.0.0.0/0"] = mz.Network(via="10.0.0.254")
        inside = mz.Endpoint.open(second.agent, gateway.name).netns
        assert inside is not None
        for each in world.hosts:  # what is loaded once is no leak of a test
            each.agent.explain("10.0.0.1", "10.0.0.2", vni=7, outer="192.0.2.9")
        yield Scene(world, web, Namespace.adopt(inside))
        gateway.delete()


def test_a_way_out_that_is_whole(scene: Scene) -> None:
    assert_ping(scene.web.namespace, OUTSIDE)
    found = scene.explain()
    assert found.ok, f"\n{found}"
    assert any(step.looked_at == "gateway" and "by out" in step.matched for step in found.steps)


def test_the_host_itself_and_tunnels_are_not_let_out_to(scene: Scene) -> None:
    host = scene.world.hosts[1]
    gateway = mz.Gateway.open(host.agent, vni=7)
    gateway.update(publish=[mz.Publish("tcp", 8080, "10.0.0.1", 80)])
    own = scene.explain("203.0.113.1")
    assert not ping(scene.web.namespace, "203.0.113.1", timeout=0.2)
    assert (own.ok, own.at) == (False, scene.there.name)
    assert "is an address of the host" in own.cause
    published = scene.explain("203.0.113.1", protocol="tcp", port=8080)
    assert published.ok, f"\n{published}"
    assert any(step.ok is None and "is published" in step.matched for step in published.steps)
    for port in (4789, 6081):
        tunnel = scene.explain(protocol="udp", port=port)
        assert f"no gateway lets out what is for UDP port {port}" in tunnel.cause
    assert scene.explain(protocol="udp", port=53).ok
    gateway.update(publish=[], host_access=True)
    own = scene.explain("203.0.113.1")
    assert_ping(scene.web.namespace, "203.0.113.1")
    assert own.ok, f"\n{own}"
    gateway.update(host_access=False)


BROKEN: dict[str, tuple[Callable[[Scene], object], Callable[[Scene], object], str]] = {
    "egress down": (
        lambda s: s.there.run("ip", "link", "set", "out", "down"),
        lambda s: s.there.run("ip", "link", "set", "out", "up"),
        "gateway: gateway 7: out, which it leads to, is down",
    ),
    "rules gone": (
        lambda s: s.inside.run("nft", "flush", "ruleset"),
        lambda s: None,
        "gateway: gateway 7: the rules in its namespace are not what it needs",
    ),
    "no forwarding": (
        lambda s: s.there.set(**{"ipv4/conf/out/forwarding": 0}),
        lambda s: s.there.set(**{"ipv4/conf/out/forwarding": 1}),
        "gateway: gateway 7: out does not forward IPv4",
    ),
    "another route": (
        lambda s: s.there.run("ip", "route", "add", OUTSIDE, "dev", "eth0"),
        lambda s: s.there.run("ip", "route", "del", OUTSIDE, "dev", "eth0"),
        f"gateway: the host's route to {OUTSIDE} leaves by eth0",
    ),
    "not told of the sender": (
        lambda s: s.agents[1].endpoints.__delitem__((7, "10.0.0.1")),
        lambda s: s.world.tell(s.web),
        "no entry (7, 10.0.0.1), and its network leads to endpoint gateway/7 itself",
    ),
}


@pytest.mark.parametrize("name", some(list(BROKEN), 2))
def test_a_way_out_that_is_broken(scene: Scene, name: str) -> None:
    do, undo, says = BROKEN[name]
    do(scene)
    found = scene.explain()
    lost = not ping(scene.web.namespace, OUTSIDE, timeout=0.2)
    undo(scene)
    with mz.Host.open(netns=scene.there.name) as host:
        host.repair()
    assert lost
    assert not found.ok
    assert says in found.cause
    assert found.at == scene.there.name
    wait_until(lambda: scene.explain().ok, lambda: f"not mended:\n{scene.explain()}")
