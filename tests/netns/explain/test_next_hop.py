# SPDX-License-Identifier: Apache-2.0
"""An endpoint that is the next hop of what is behind it: what it sends on, and what it does not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

import mizarnet as mz
from mizarnet import Verdict
from mizarnet._model.specs import VIRTUAL_MAC
from tests.frames import UDP, datagram, frame, ipv4, udp
from tests.netns.explain.conftest import PORT, is_heard, say
from tests.support.namespace import Namespace
from tests.support.router import INSIDE, name_next_hop, router
from tests.support.traffic import send_raw
from tests.support.wait import wait_until
from tests.world import Container, Subnet, World

NET = Subnet(7, 0)
DONT_FRAGMENT = 0x4000
UDP_HEADERS = {4: 28, 6: 48}


@attrs.frozen
class Scene:
    """A container on one host, and a router on the other.

    Attributes:
        world: The hosts.
        web: The container.
        router: The router.
        behind: Namespace of the network behind it.
    """

    world: World
    web: Container
    router: Container
    behind: Namespace

    def explain(self, to: str | None, **ask: Any) -> mz.Explanation:
        """What becomes of a packet to an address, or of a frame."""
        return mz.explain_path([host.agent for host in self.world.hosts], "web", to, **ask)

    def hears(self, version: int, *, size: int = 0) -> bool:
        """Whether a datagram of so many bytes comes behind the router."""
        to = INSIDE[version]
        return is_heard(self.behind, to, lambda: say(self.web.namespace, to, size=size))

    def hears_frame(self, sent: bytes) -> bool:
        """Whether the datagram in a frame does."""
        with self.web.packet_socket() as by:
            return is_heard(self.behind, INSIDE[4], lambda: send_raw(by, sent))


@pytest.fixture(scope="module")
def shared() -> Iterator[Scene]:
    """Hosts that the tests of the module share."""
    with World("vxlan") as world:
        first, second = world.hosts
        web = world.container(first, 7, NET.interfaces(5), name="web", gateway=NET.gateways)
        made, behind = router(world, second, NET, 3)
        world.tell(made)
        name_next_hop(made.endpoint, on=world.hosts)
        found = Scene(world, web, made, behind)
        for version in INSIDE:
            wait_until(lambda version=version: found.hears(version), "the router sends on")
        for host in world.hosts:  # what is loaded once is no leak of a test
            host.agent.explain("10.0.0.1", "10.0.0.2", vni=7, outer="192.0.2.9")
        yield found


@pytest.fixture
def scene(shared: Scene) -> Iterator[Scene]:
    """The same, mended after a test."""
    yield shared
    space = shared.router.namespace
    for on in (0, 1):  # a change of the whole namespace is one of all its devices
        space.set(**{"ipv4/ip_forward": on, "ipv6/conf/all/forwarding": on})
    for there, name in ((space, "lan0"), (shared.behind, "eth0")):
        there.run("ip", "link", "set", name, "mtu", "1500")
    space.run("ip", "route", "replace", "172.20.50.0/24", "dev", "lan0")
    space.run("ip", "route", "flush", "default")


UDP_ASKED: dict[str, Any] = {"protocol": "udp", "port": PORT}


@pytest.mark.parametrize(
    ("whole", "device", "forced"), [(0, 1, 0), (1, 0, 0), (0, 0, 1)], ids=["device", "whole", "forced"]
)
def test_ipv6_is_forwarded_by_the_whole_namespace_or_a_forced_device(
    scene: Scene, whole: int, device: int, forced: int
) -> None:
    space = scene.router.namespace
    if forced and not Path("/proc/sys/net/ipv6/conf/all/force_forwarding").exists():
        pytest.skip("this kernel forwards IPv6 of all devices or none")
    space.set(**{"ipv6/conf/all/forwarding": whole})  # which writes both settings of each device
    space.set(**{"ipv6/conf/eth0/forwarding": device})
    if forced:
        space.set(**{"ipv6/conf/eth0/force_forwarding": 1})
    found = scene.explain(INSIDE[6], **UDP_ASKED)
    assert found.ok is scene.hears(6) is bool(whole or forced), f"\n{found}"
    if not found.ok:
        assert "net.ipv6.conf.all.forwarding is 0" in found.cause
        setting, _, _ = found.remedy.removeprefix("sysctl -w ").partition("=")
        space.set(**{setting.removeprefix("net.").replace(".", "/"): 1})
        assert scene.explain(INSIDE[6], **UDP_ASKED).ok
        assert scene.hears(6)


def test_what_is_for_the_router_itself_needs_no_forwarding(scene: Scene) -> None:
    space, own = scene.router.namespace, "172.20.50.1"
    space.set(**{"ipv4/ip_forward": 0})
    found = scene.explain(own, **UDP_ASKED)
    assert is_heard(space, own, lambda: say(scene.web.namespace, own))
    assert found.ok, f"\n{found}"


def test_a_router_that_sends_a_packet_back_by_its_default_route(scene: Scene) -> None:
    space = scene.router.namespace
    space.run("ip", "route", "del", "172.20.50.0/24", "dev", "lan0")
    space.run("ip", "route", "add", "default", "via", NET.gateways[0], "onlink", "dev", "eth0")
    agents = [host.agent for host in scene.world.hosts]
    agents[1].networks[7, NET.prefixes[0]] = mz.Network(gateway=NET.gateways[0])
    found, before = scene.explain(INSIDE[4], **UDP_ASKED), agents[1].stats()
    assert not scene.hears(4)
    del agents[1].networks[7, NET.prefixes[0]]
    assert agents[1].stats().since(before).agent[Verdict.HAIRPIN].packets
    assert (found.ok, found.verdict) == (False, Verdict.HAIRPIN), f"\n{found}"
    assert "sends it back by eth0" in found.cause
    assert found.remedy.startswith("add a route in ")


@pytest.mark.parametrize("hops", [2, 1])
def test_a_packet_whose_hops_are_used_up_at_the_router(scene: Scene, hops: int) -> None:
    sent = datagram(scene.web.mac, scene.web.ip, INSIDE[4], destination_mac=VIRTUAL_MAC.packed, hops=hops)
    found = scene.explain(None, frame=sent)
    assert found.ok is scene.hears_frame(sent) is (hops > 1), f"\n{found}"
    assert found.ok or "the hops of the packet are used up" in found.cause


def test_a_packet_that_is_longer_than_the_device_behind_takes(scene: Scene) -> None:
    for space, name in ((scene.router.namespace, "lan0"), (scene.behind, "eth0")):
        space.run("ip", "link", "set", name, "mtu", "1280")
    for size in (1280, 1281):
        ask: dict[str, Any] = {**UDP_ASKED, "size": size}
        found = scene.explain(INSIDE[6], **ask)
        assert found.ok is scene.hears(6, size=size - UDP_HEADERS[6]) is (size == 1280), f"\n{found}"
    assert "lan0, by which " in found.cause
    found = scene.explain(INSIDE[4], **ask)
    assert found.ok
    assert any(
        "or dropped if these are not allowed" in each.matched and each.ok is None for each in found.steps
    )
    assert not scene.hears(4, size=1281 - UDP_HEADERS[4])  # the kernel's stack allows none
    assert scene.explain(INSIDE[4], protocol="tcp", port=80, size=1280).ok


@pytest.mark.parametrize("flags", [0, DONT_FRAGMENT])
def test_a_frame_that_is_longer_than_the_device_behind_takes(scene: Scene, flags: int) -> None:
    scene.router.namespace.run("ip", "link", "set", "lan0", "mtu", "1280")
    message = udp(PORT, PORT, bytes(1400 - UDP_HEADERS[4]))
    packet = ipv4(scene.web.ip, INSIDE[4], message, protocol=UDP, flags=flags)
    sent = frame(VIRTUAL_MAC.packed, scene.web.mac, packet)
    found = scene.explain(None, frame=sent)
    assert found.ok is scene.hears_frame(sent) is (not flags), f"\n{found}"
    assert "takes 1280 bytes, and the packet has 1400" in str(found)
