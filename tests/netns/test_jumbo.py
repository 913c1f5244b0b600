# SPDX-License-Identifier: Apache-2.0
"""The largest packets pass whole, longer ones are refused at the sender, directly and through a switch (T35, S12)."""

from __future__ import annotations

import errno
import itertools
import socket
from collections.abc import Iterator
from typing import Literal

import attrs
import pytest

from mizarnet import Verdict
from tests.support.icmp import echo, family_of
from tests.support.services import FILE, exchange_datagrams, exchange_file
from tests.world import Container, EncapName, Subnet, World, device, total

NET = Subnet(3, 1)
OVERHEAD = {4: 50, 6: 70}
IP_HEADER = {4: 20, 6: 40}
TCP_HEADER = 20 + 12  # with timestamps
ECHO_HEADER = 8


@attrs.frozen
class Case:
    """How the hosts are joined."""

    way: Literal["direct", "switched"]
    underlay: int
    mtu: int

    def __str__(self) -> str:
        return f"{self.way}-over-ipv{self.underlay}-{self.mtu}"

    @property
    def limit(self) -> int:
        """The longest IP packet of an endpoint."""
        return self.mtu - OVERHEAD[self.underlay]


IN_EMULATION = (Case("direct", 4, 9000), Case("switched", 6, 9000), Case("switched", 4, 1500))
ALL = itertools.starmap(Case, itertools.product(("direct", "switched"), (4, 6), (1500, 9000)))


@pytest.fixture(
    scope="module",
    params=[pytest.param(each, marks=[pytest.mark.vm] if each in IN_EMULATION else []) for each in ALL],
    ids=str,
)
def case(request: pytest.FixtureRequest) -> Case:
    """Every way, the telling ones also in the emulated kernels."""
    found: Case = request.param
    return found


@pytest.fixture(scope="module")
def world(encap: EncapName, case: Case) -> Iterator[World]:
    """Two endpoints on two hosts; a third host is the switch or has nothing to do."""
    with World(encap, hosts=3, mtu=case.mtu, ipv6=case.underlay == 6) as made:
        h1, h2, switch = made.hosts
        made.network(NET, switches=[switch])
        made.member(h1, NET, 2), made.member(h2, NET, 3)
        made.inform(*(made.hosts if case.way == "direct" else [switch]))
        made.switch(switch)
        yield made
        assert (total([switch], "switch", Verdict.BOUNCED) > 0) == (case.way == "switched")


def pair(world: World) -> tuple[Container, Container]:
    one, other = world.containers
    return one, other


def test_t35_a_ping_at_the_limit_passes_and_one_byte_more_is_refused_at_the_sender(
    world: World, case: Case, version: int
) -> None:
    one, other = pair(world)
    size = case.limit - IP_HEADER[version] - ECHO_HEADER
    assert device(one.namespace, "eth0").mtu == world.hosts[0].tunnel.mtu == case.limit
    for here, there in ((one, other), (other, one)):
        assert echo(here.namespace, there.address(version), size=size, whole=True)
        with pytest.raises(OSError, match="Message too long") as refused:
            echo(here.namespace, there.address(version), size=size + 1, whole=True)
        assert refused.value.errno == errno.EMSGSIZE


def test_t35_tcp_uses_full_segments(world: World, case: Case, version: int) -> None:
    one, other = pair(world)
    expected = case.limit - IP_HEADER[version] - TCP_HEADER
    target = other.address(version)
    with one.namespace.socket(family_of(target), socket.SOCK_STREAM) as connection:
        connection.connect((target, FILE))
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) == expected
    exchange_file(one.namespace, target, size=1 << 20)
    exchange_file(other.namespace, one.address(version), size=1 << 20)


def test_datagrams_of_any_length_arrive(world: World, case: Case, version: int) -> None:
    one, other = pair(world)
    full = case.limit - IP_HEADER[version] - 8
    for size in (2, full - 1, full, full + 1, 2 * full, 20_000):  # from "full + 1" on in fragments
        exchange_datagrams(one.namespace, other.address(version), size=size)


def test_s12_nothing_was_refused_for_its_length(world: World) -> None:
    for host in world.hosts:
        stats = host.agent.stats()
        assert stats.drops == {}
