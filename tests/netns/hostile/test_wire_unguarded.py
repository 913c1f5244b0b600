# SPDX-License-Identifier: Apache-2.0
"""What the guard is for: without it the attacks from the wire succeed, and the onlookers of the other tests see it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.frames import BROADCAST, datagram, ethernet, ipv4, udp
from tests.support.onlookers import PORT
from tests.support.wait import wait_until
from tests.support.wire import HOST, PEER, STRANGER, STRANGERS_IP, Wire
from tests.world import RED, TUNNEL, EncapName, Tenants, World

UNKNOWN_VNI = 4711

pytestmark = pytest.mark.vm


@pytest.fixture(scope="module")
def net(encap: EncapName) -> Iterator[Tenants]:
    """Hosts and tenants as elsewhere, but the first host's guard is taken off."""
    with World(encap, hook="clsact") as world:
        made = Tenants.on(world)
        made.first.namespace.run("tc", "filter", "del", "dev", TUNNEL, "ingress")
        yield made


def test_any_vni_reaches_any_endpoint(wire: Wire) -> None:
    wire.send([wire.packet(None, wire.legal(wire.net.blue1), vni=UNKNOWN_VNI)], 1)
    wire.assert_seen({wire.net.blue1: 1})


def test_a_broadcast_reaches_every_tenant(wire: Wire) -> None:
    frame = datagram(STRANGER, STRANGERS_IP, "255.255.255.255", destination_mac=BROADCAST)
    wire.send([wire.packet(None, frame)], 1)
    net = wire.net
    wire.assert_seen(dict.fromkeys((net.blue1, net.blue2, net.green1, net.red1), 1))


def test_a_nested_tunnel_packet_is_decapsulated_twice(wire: Wire) -> None:
    ledger = wire.ledger()
    tunnel = wire.outer(wire.tunnel(RED, wire.legal(wire.net.red1)))[14:]
    wire.send([wire.packet(None, ethernet(wire.tunnel_mac, STRANGER, 0x0800, tunnel))], 1)
    wire.assert_seen({wire.net.red1: 1})
    since = wire.ledger().since(ledger)
    assert (since.arrived, since.decapsulated) == (2, 2)


def test_a_datagram_reaches_a_socket_of_the_host(wire: Wire) -> None:
    inner = ipv4(PEER, HOST, udp(4242, PORT, b"frame"))
    wire.send([wire.packet(None, ethernet(wire.tunnel_mac, STRANGER, 0x0800, inner))], 1)
    wait_until(lambda: wire.host.reached() == [f"('{HOST}', {PORT})"])
