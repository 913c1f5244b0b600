# SPDX-License-Identifier: Apache-2.0
"""Tunnel packets with nothing wrong but their sender: 65,536 hosts, of which the guard knows none, or one."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import closing
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest

import mizarnet as mz
from mizarnet import Verdict
from tests.support.fabric import Fabric, LabNamespace
from tests.support.flood import flood
from tests.support.onlookers import EndpointOnlooker, assert_seen, assert_silence
from tests.support.packets import GENEVE_PORT, VXLAN_PORT, datagram, ethernet, geneve, ipv4, udp, vxlan
from tests.support.tenants import BLUE
from tests.support.topology import UNDERLAY, Container, EncapName, mac_of, quiet
from tests.support.wait import wait_until
from tests.support.wire import STRANGER, STRANGERS_IP, passed

HOSTS = {4: ip_network("198.18.0.0/16"), 6: ip_network("2001:db8::/112")}


@pytest.fixture(params=[4, 6], ids=["ipv4", "ipv6"])
def version(request: pytest.FixtureRequest) -> int:
    found: int = request.param
    return found


@pytest.fixture
def fabric(encap: EncapName, version: int) -> Iterator[Fabric]:
    """Two hosts; the kernel of the first takes packets from senders that it has no route to."""
    with Fabric(encap, hosts=2, ipv6=version == 6) as made:
        for which in ("all", UNDERLAY):
            made.hosts[0].namespace.run("sysctl", "-q", "-w", f"net.ipv4.conf.{which}.rp_filter=0")
        yield made


@pytest.fixture
def target(fabric: Fabric) -> Container:
    space = LabNamespace(fabric.lab.container("target"))
    quiet(space)
    return fabric.add(fabric.hosts[0], space, vni=BLUE, ip="10.0.0.1/24")


@pytest.mark.parametrize("count", [pytest.param(256, marks=pytest.mark.vm), 65_536])
def test_of_so_many_hosts_only_the_peer_is_heard(
    fabric: Fabric, target: Container, version: int, count: int
) -> None:
    hosts = [HOSTS[version][number] for number in range(count)]
    cable = [mac_of(host.namespace, UNDERLAY) for host in fabric.hosts]
    prepared = [ethernet(*cable, *outer(target, host)) for host in hosts]
    peer = hosts[count * 2 // 3]
    with closing(EndpointOnlooker(target)) as onlooker:
        assert guard_counts(fabric, prepared) == {Verdict.FOREIGN_PEER: count}
        assert_silence([onlooker])
        target.host.agent.peers.add(str(peer))
        assert guard_counts(fabric, prepared) == {Verdict.FOREIGN_PEER: count - 1, Verdict.ACCEPTED: 1}
        assert_seen([onlooker], {onlooker.label: 1})
        assert onlooker.received() == [peer.packed]


def outer(to: Container, source: IPv4Address | IPv6Address) -> tuple[int, bytes]:
    """The type and the payload of a frame on the cable; the datagram in the innermost says who sent it."""
    inner = datagram(STRANGER, STRANGERS_IP, to.ip, destination_mac=to.mac, payload=source.packed)
    if to.host.tunnel.encap is mz.Encap.VXLAN:
        tunnel = udp(4242, VXLAN_PORT, vxlan(BLUE, inner))
    else:
        tunnel = udp(4242, GENEVE_PORT, geneve(BLUE, inner))
    if source.version == 4:
        return 0x0800, ipv4(str(source), to.host.address, tunnel)
    header = struct.pack("!IHBB", 6 << 28, len(tunnel), socket.IPPROTO_UDP, 64)
    return 0x86DD, header + source.packed + ip_address(to.host.address).packed + tunnel


def guard_counts(fabric: Fabric, prepared: list[bytes]) -> dict[Verdict, int]:
    """What the first host's guard counts when each packet is sent once."""
    first, second = fabric.hosts
    before = first.agent.stats()
    with second.namespace.packet_socket(UNDERLAY) as raw:
        flood(raw.fileno(), prepared, len(prepared))

    def counted() -> dict[Verdict, int]:
        return passed(first.agent.stats().since(before).guard)

    wait_until(lambda: sum(counted().values()) == len(prepared), lambda: str(counted()))
    return counted()
