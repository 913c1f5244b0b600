# SPDX-License-Identifier: Apache-2.0
"""Tunnel packets in great numbers, from the underlay, with one thing wrong: none arrives anywhere."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing

import pytest

from mizarnet import Verdict
from mizarnet._kernel.bpf import has_tcx
from tests.frames import BROADCAST, VIRTUAL, datagram, geneve, geneve_option
from tests.netns.hostile.wire import inner, nested, outer
from tests.support.counting import counted
from tests.support.depth import FULL
from tests.support.flood import frame_count
from tests.support.source_macs import OtherSources
from tests.support.traffic import send_frame
from tests.support.wait import wait_until
from tests.support.wire import STRANGER, STRANGERS_IP, Kind, Packet, Wire, judged
from tests.world import BLUE, GREEN, EncapName, World

KINDS: dict[str, Kind] = {**inner.KINDS, **nested.KINDS, **outer.KINDS}
MIXTURES = {"inner": inner.KINDS, "nested": nested.KINDS, "outer": outer.KINDS}
DONT_FRAGMENT = 0x4000


@pytest.fixture(scope="module", params=["off", "auto"] if has_tcx() else ["off"], ids="shortcut-{}".format)
def shared_world(request: pytest.FixtureRequest, encap: EncapName) -> Iterator[World]:
    """Two hosts, without the shortcut and with it."""
    with World(encap, shortcut=request.param) as made:
        yield made


@pytest.mark.parametrize("name", KINDS)
def test_none_of_many_arrives(wire: Wire, name: str) -> None:
    few = (
        wire.has_shortcut and not FULL
    )  # the rules are the guard's, and in great numbers it has its own turn
    wire.assert_refused(list(KINDS[name](wire)), count=frame_count(routed=few))


@pytest.mark.vm
@pytest.mark.parametrize("name", MIXTURES)
def test_none_arrives_when_they_come_mixed(wire: Wire, name: str) -> None:
    wire.assert_refused([packet for kind in MIXTURES[name].values() for packet in kind(wire)], count=2_000)


def test_the_vni_alone_says_whose_a_packet_is(wire: Wire) -> None:
    """The blue endpoint's MAC and address in the green VNI: the green endpoint with that address has it, all of it."""
    count = frame_count()
    wire.send([wire.packet(Verdict.ACCEPTED, wire.legal(wire.net.blue1), vni=GREEN)], count)
    wire.assert_seen({wire.net.green1: count})


def assert_accepted(wire: Wire, packet: Packet) -> None:
    """It is let in, and the datagram in it arrives at the blue endpoint, and nowhere else."""
    blue = wire.endpoints[wire.net.blue1]
    since = counted(wire.net.first.agent, lambda: wire.send([packet], 1))
    assert judged(since)[Verdict.ACCEPTED] == 1
    wire.assert_seen({wire.net.blue1: 1})
    arrived: list[bytes] = []
    wait_until(lambda: arrived or arrived.extend(blue.received()), "it did not arrive")
    assert arrived == [b"frame"]


@pytest.mark.vm
def test_the_endpoint_is_found_by_its_address_and_not_by_the_mac(wire: Wire) -> None:
    net = wire.net
    inner = datagram(STRANGER, STRANGERS_IP, net.blue1.ip, destination_mac=net.red1.mac)
    assert_accepted(wire, wire.packet(Verdict.ACCEPTED, inner))


def macs_from_afar(wire: Wire) -> Iterator[Packet]:
    """Of the endpoint itself, its neighbours, a stranger, the other tenants, the hosts, a group, and nobody."""
    net = wire.net
    known = [each.mac for each in (net.blue1, net.blue2, net.blue3, net.green1, net.red1)]
    random_ones = [bytes([0x02, *random.Random(number).randbytes(5)]) for number in range(64)]
    for source in (*known, STRANGER, VIRTUAL, bytes(6), BROADCAST, *wire.cable, *random_ones):
        inner = datagram(source, STRANGERS_IP, net.blue1.ip, destination_mac=net.blue1.mac)
        yield wire.packet(Verdict.ACCEPTED, inner)


@pytest.mark.vm
def test_no_mac_from_the_wire_reaches_an_endpoint(wire: Wire) -> None:
    """Two hosts may have the same MAC: that of a frame from afar is not looked at, and goes no further."""
    packets, count = list(macs_from_afar(wire)), frame_count()
    with closing(OtherSources(wire.net.blue1, VIRTUAL)) as others:
        wire.send(packets, count)
        wire.assert_seen({wire.net.blue1: count})
        assert others.count() == 0
        neighbour, to = wire.net.blue2, wire.net.blue1
        near = datagram(neighbour.mac, neighbour.ip, to.ip, destination_mac=to.mac)
        send_frame(neighbour.namespace, "eth0", near)
        wait_until(lambda: others.count() == 1, "a neighbour's frame has the neighbour's MAC")


OPTIONS = {
    "one that nobody knows": [geneve_option(1, bytes(8))],
    "all lengths, to the last byte": [
        geneve_option(1), geneve_option(2, bytes(124)), geneve_option(3, bytes(116))
    ],
}  # fmt: skip


@pytest.mark.vm
@pytest.mark.parametrize("what", OPTIONS)
def test_options_that_need_not_be_understood(wire: Wire, what: str) -> None:
    """Only Geneve has options."""
    if wire.net.world.encap == "geneve":
        tunnel = geneve(BLUE, wire.legal(wire.net.blue1), options=b"".join(OPTIONS[what]))
        assert_accepted(wire, Packet(wire.outer(tunnel), Verdict.ACCEPTED))


@pytest.mark.vm
def test_a_peer_may_forbid_fragments(wire: Wire) -> None:
    """Newer kernels say so in the flags of the tunnel key, beside those that are a reason to refuse."""
    tunnel = wire.tunnel(BLUE, wire.legal(wire.net.blue1))
    assert_accepted(wire, Packet(wire.outer(tunnel, flags=DONT_FRAGMENT), Verdict.ACCEPTED))
