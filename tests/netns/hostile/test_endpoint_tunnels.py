# SPDX-License-Identifier: Apache-2.0
"""An endpoint sends tunnel packets of its own and knocks at the hosts: to its neighbours that is data, else nothing."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from mizarnet._kernel.netlink import write_sysctl
from tests.netns.hostile.endpoint.net import Neighbourhood
from tests.netns.hostile.endpoint.trial import PacketSocket, assert_all_refused, assert_delivered, shots_of
from tests.netns.hostile.endpoint.tunnels import KINDS, PORTS, tunnel_packet
from tests.support.flood import flood, frame_count
from tests.support.onlookers import HostOnlooker


@pytest.fixture(scope="module")
def listeners(hood: Neighbourhood) -> Iterator[list[HostOnlooker]]:
    """Sockets on every address of both hosts."""
    made = []
    for host in hood.world.hosts:
        write_sysctl(host.agent._datapath.host, "ipv6/conf/lo/disable_ipv6", "0")
        made.append(HostOnlooker(host.namespace, (host.address, "127.0.0.1")))
    yield made
    for each in made:
        each.close()


@pytest.mark.parametrize("name", KINDS)
def test_nothing_reaches_the_hosts(hood: Neighbourhood, listeners: list[HostOnlooker], name: str) -> None:
    sender = PacketSocket(hood.sender.endpoint, hood.sender.namespace)
    assert_all_refused(hood, sender, shots_of(KINDS[name], hood, sender.endpoint))
    assert [each.reached() for each in listeners] == [[], []]


def test_the_listeners_would_have_heard_it(listeners: list[HostOnlooker]) -> None:
    for each in listeners:
        each.assert_reachable()


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize("whose", ["near", "far"])
def test_a_tunnel_packet_to_a_neighbour_is_data(hood: Neighbourhood, whose: str, port: int) -> None:
    """And is not opened on its way, though it is complete and names the other tenant's endpoint next door."""
    neighbour, count, data = getattr(hood, whose), frame_count(routed=True), tunnel_packet(hood, port)
    with (
        neighbour.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        hood.sender.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        receiver.bind((neighbour.ip, port))
        sender.connect((neighbour.ip, port))
        assert_delivered(hood, whose, lambda: flood(sender.fileno(), [data], count), count)
        receiver.settimeout(0)
        assert {receiver.recv(2000) for _ in range(min(count, 100))} == {data}
    hood.assert_awake()
