# SPDX-License-Identifier: Apache-2.0
"""Tunnel packets with nothing wrong but their sender: 65,536 hosts, of which the guard knows none, or one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest

from mizarnet import Verdict
from tests.frames import PORTS, datagram, frame, packet, tunnel, udp
from tests.support.flood import flood
from tests.support.onlookers import EndpointOnlooker, assert_seen, assert_silence
from tests.support.wait import wait_until
from tests.support.wire import STRANGER, STRANGERS_IP, passed
from tests.world import BLUE, UNDERLAY, Container, EncapName, World, mac_of

HOSTS = {4: ip_network("198.18.0.0/16"), 6: ip_network("2001:db8::/112")}


@pytest.fixture
def world(encap: EncapName, version: int) -> Iterator[World]:
    """Two hosts; the kernel of the first takes packets from senders that it has no route to."""
    with World(encap, hosts=2, ipv6=version == 6) as made:
        for which in ("all", UNDERLAY):
            made.hosts[0].namespace.run("sysctl", "-q", "-w", f"net.ipv4.conf.{which}.rp_filter=0")
        yield made


@pytest.fixture
def target(world: World) -> Container:
    return world.container(world.hosts[0], BLUE, "10.0.0.1/24")


@pytest.mark.parametrize("count", [pytest.param(256, marks=pytest.mark.vm), 65_536])
def test_of_so_many_hosts_only_the_peer_is_heard(
    world: World, target: Container, version: int, count: int
) -> None:
    hosts = [HOSTS[version][number] for number in range(count)]
    cable = [mac_of(host.namespace, UNDERLAY) for host in world.hosts]
    prepared = [frame(*cable, outer(target, host)) for host in hosts]
    peer = hosts[count * 2 // 3]
    with closing(EndpointOnlooker(target)) as onlooker:
        assert guard_counts(world, prepared) == {Verdict.FOREIGN_PEER: count}
        assert_silence([onlooker])
        target.host.agent.peers.add(str(peer))
        assert guard_counts(world, prepared) == {Verdict.FOREIGN_PEER: count - 1, Verdict.ACCEPTED: 1}
        assert_seen([onlooker], {onlooker.label: 1})
        assert onlooker.received() == [peer.packed]


def outer(to: Container, source: IPv4Address | IPv6Address) -> bytes:
    """The packet on the cable; the datagram in the innermost says who sent it."""
    inner = datagram(STRANGER, STRANGERS_IP, to.ip, destination_mac=to.mac, payload=source.packed)
    encap = to.host.tunnel.encap.value
    return packet(str(source), to.host.address, udp(4242, PORTS[encap], tunnel(encap, BLUE, inner)))


def guard_counts(world: World, prepared: list[bytes]) -> dict[Verdict, int]:
    """What the first host's guard counts when each packet is sent once."""
    first, second = world.hosts
    before = first.agent.stats()
    with second.namespace.packet_socket(UNDERLAY) as raw:
        flood(raw.fileno(), prepared, len(prepared))

    def counted() -> dict[Verdict, int]:
        return passed(first.agent.stats().since(before).guard)

    wait_until(lambda: sum(counted().values()) == len(prepared), lambda: str(counted()))
    return counted()
