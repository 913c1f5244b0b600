# SPDX-License-Identifier: Apache-2.0
"""What the guard is for: without it the attacks from the wire succeed, and the onlookers of the other tests see it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.onlookers import PORT
from tests.support.packets import BROADCAST, datagram, ethernet, ipv4, udp
from tests.support.tenants import RED, Net
from tests.support.topology import TUNNEL, Container, EncapName, World
from tests.support.wait import wait_until
from tests.support.wire import HOST, PEER, STRANGER, STRANGERS_IP, Wire

UNKNOWN_VNI = 4711

pytestmark = pytest.mark.vm


@pytest.fixture(scope="module")
def unguarded(encap: EncapName) -> Iterator[Net]:
    """Hosts and tenants as elsewhere, but the first host's guard is taken off."""
    with World(encap, hook="clsact") as world:
        net = Net.on(world)
        net.first.namespace.run("tc", "filter", "del", "dev", TUNNEL, "ingress")
        yield net


@pytest.fixture
def wire(unguarded: Net) -> Iterator[Wire]:
    with Wire(unguarded) as made:
        yield made


def seen_by(wire: Wire) -> set[Container]:
    """Containers that received a frame; more than one, or a disagreement of their onlookers, is a failure."""
    seen = {container: onlooker.seen() for container, onlooker in wire.endpoints.items()}
    assert set(seen.values()) <= {(0, 0), (1, 1)}
    return {container for container, counts in seen.items() if counts == (1, 1)}


def test_any_vni_reaches_any_endpoint(wire: Wire) -> None:
    wire.send([wire.packet(None, wire.legal(wire.net.blue1), vni=UNKNOWN_VNI)], 1)
    wait_until(lambda: seen_by(wire) == {wire.net.blue1})


def test_a_broadcast_reaches_every_tenant(wire: Wire) -> None:
    frame = datagram(STRANGER, STRANGERS_IP, "255.255.255.255", destination_mac=BROADCAST)
    wire.send([wire.packet(None, frame)], 1)
    net = wire.net
    wait_until(lambda: seen_by(wire) == {net.blue1, net.blue2, net.green1, net.red1})


def test_a_nested_tunnel_packet_is_decapsulated_twice(wire: Wire) -> None:
    ledger = wire.ledger()
    tunnel = wire.outer(wire.tunnel(RED, wire.legal(wire.net.red1)))[14:]
    wire.send([wire.packet(None, ethernet(wire.tunnel_mac, STRANGER, 0x0800, tunnel))], 1)
    wait_until(lambda: seen_by(wire) == {wire.net.red1})
    since = wire.ledger().since(ledger)
    assert (since.arrived, since.decapsulated) == (2, 2)


def test_a_datagram_reaches_a_socket_of_the_host(wire: Wire) -> None:
    inner = ipv4(PEER, HOST, udp(4242, PORT, b"frame"))
    wire.send([wire.packet(None, ethernet(wire.tunnel_mac, STRANGER, 0x0800, inner))], 1)
    wait_until(lambda: wire.host.reached() == [f"('{HOST}', {PORT})"])
