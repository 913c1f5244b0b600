# SPDX-License-Identifier: Apache-2.0
"""An endpoint with packet sockets sends what it may not, very many frames of each kind: nobody notices any of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.frames import BROADCAST, ICMPV6, TYPE_ARP, VIRTUAL, arp, ethernet, frame, icmpv6, ipv6
from tests.netns.hostile.endpoint import neighbours, shapes, sources
from tests.netns.hostile.endpoint.net import Neighbourhood, know
from tests.netns.hostile.endpoint.trial import Kind, PacketSocket, assert_all_refused, shots_of
from tests.support.namespace import Namespace
from tests.support.traffic import send_frame
from tests.support.wait import wait_until
from tests.world import calm

KINDS: dict[str, Kind] = {**sources.KINDS, **neighbours.KINDS, **shapes.KINDS}
IN_EMULATION = ("another tenant's MAC", "ND in others' names", "storms")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.vm] * (name in IN_EMULATION)) for name in KINDS]
)
def test_frames_that_may_not_leave(hood: Neighbourhood, name: str) -> None:
    sender = PacketSocket(hood.sender.endpoint, hood.sender.namespace)
    assert_all_refused(hood, sender, shots_of(KINDS[name], hood, sender.endpoint))


@pytest.mark.parametrize("name", ["a MAC that nobody has", "another tenant's MAC", "another's IPv4 address"])
def test_frames_that_bypass_the_queueing_disciplines(hood: Neighbourhood, name: str) -> None:
    sender = PacketSocket(hood.sender.endpoint, hood.sender.namespace, bypass=True)
    assert_all_refused(hood, sender, shots_of(KINDS[name], hood, sender.endpoint))


def test_a_victim_that_believed_a_lie_would_be_noticed(hood: Neighbourhood) -> None:
    """What the victims know can be changed, by those who reach them, and is compared with what they knew."""
    near, far, before = hood.near.namespace, hood.far.ip, hood.knowledge()
    know(near, far, "eth0", hood.sender.mac.hex(":"), "stale")
    assert hood.knowledge() != before
    know(near, far, "eth0", VIRTUAL.hex(":"), "stale")
    assert hood.knowledge() == before


@pytest.fixture
def pair() -> Iterator[tuple[Namespace, Namespace]]:
    """A namespace that believes, and a liar at the other end of its cable: no agent is between them."""
    victim, liar = Namespace("mzn-victim"), Namespace("mzn-liar")
    try:
        for one in (victim, liar):
            calm(one)
        victim.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", liar.name)
        for one, address in ((victim, 1), (liar, 2)):
            one.run("ip", "address", "add", f"10.0.0.{address}/24", "dev", "eth0")
            one.run("ip", "address", "add", f"fd00::{address}/64", "dev", "eth0", "nodad")
            one.run("ip", "link", "set", "eth0", "up")
        yield victim, liar
    finally:
        victim.delete()
        liar.delete()


@pytest.mark.vm
def test_what_the_victims_know_would_give_way_to_a_lie(pair: tuple[Namespace, Namespace]) -> None:
    """The same lies change such entries where no agent stops them."""
    victim, liar = pair
    honest, wrong = VIRTUAL.hex(":"), bytes.fromhex("0600000000aa")
    for address in ("10.0.0.9", "fd00::9"):
        know(victim, address, "eth0", honest, "stale")
    reply = arp(wrong, "10.0.0.9", "10.0.0.9", operation=neighbours.REPLY)
    news = icmpv6("fd00::9", neighbours.ALL_NODES, *neighbours.advertisement("fd00::9", wrong))
    packet = ipv6("fd00::9", neighbours.ALL_NODES, news, protocol=ICMPV6, hops=255)
    wait_until(lambda: "LOWER_UP" in victim.run("ip", "link", "show", "eth0"), "the cable is not up")
    assert victim.run("ip", "neighbour").count(honest) == 2

    def believed() -> bool:  # ARP holds on to an entry in its first second: so again and again
        send_frame(liar, "eth0", ethernet(BROADCAST, wrong, TYPE_ARP, reply))
        send_frame(liar, "eth0", frame(neighbours.ALL_NODES_MAC, wrong, packet))
        return victim.run("ip", "neighbour").count(wrong.hex(":")) == 2

    wait_until(believed, "a lie was not believed")
