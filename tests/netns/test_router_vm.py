# SPDX-License-Identifier: Apache-2.0
"""A VM that routes between two VNIs, with a NIC in each: all it has of both is two descriptors."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import attrs
import pytest

import mizarnet as mz
from mizarnet import Verdict
from tests.support.depth import depth
from tests.support.guest_stack import guest
from tests.support.icmp import assert_silence, datagram_error
from tests.support.namespace import Namespace
from tests.support.router import forward, name_next_hop
from tests.support.services import exchange_everything, exchange_file
from tests.support.traffic import Capture
from tests.world import Container, EncapName, Subnet, World, total

LEFT, RIGHT = Subnet(3, 1), Subnet(4, 7)
NICS = ("eth0", "eth1")
MANY = depth(2 << 20, 100 << 20)


@attrs.frozen
class Scene:
    """The VM on the first host, and an endpoint of each VNI on each host.

    Attributes:
        nics: The VM's endpoints, of the left VNI and of the right one.
        left: By host, the first one's first; ``right`` likewise.
    """

    world: World
    vm: Namespace
    nics: tuple[mz.Endpoint, mz.Endpoint]
    left: tuple[Container, ...]
    right: tuple[Container, ...]

    def name_next_hops(self) -> None:
        """Tell all hosts that the other VNI is behind the VM."""
        for nic, beyond in zip(self.nics, (RIGHT, LEFT), strict=True):
            name_next_hop(nic, on=self.world.hosts, prefixes=beyond.prefixes)


@contextmanager
def scene(encap: EncapName, *, forwarding: bool = True) -> Iterator[Scene]:
    """The VM's stack forwards in any case; whether its endpoints may is ``forwarding``."""
    with World(encap, hosts=2) as world:
        first = world.hosts[0]
        for net in (LEFT, RIGHT):
            world.network(net)
        vm = world.namespace("vm")
        forward(vm)
        nics = tuple(
            mz.Endpoint.create(
                first.agent, vni=net.vni, ip=net.interfaces(2), kind="macvtap", forwarding=forwarding
            )
            for net in (LEFT, RIGHT)
        )
        members = [
            tuple(world.member(host, net, 3 + number) for number, host in enumerate(world.hosts))
            for net in (LEFT, RIGHT)
        ]
        world.publish()
        with guest(nics[0], vm, name=NICS[0]), guest(nics[1], vm, name=NICS[1]):
            yield Scene(world, vm, (nics[0], nics[1]), *members)


@pytest.mark.vm
def test_between_two_vnis(encap: EncapName, version: int) -> None:
    with scene(encap) as made:
        assert_silence(made.left[1].namespace, made.right[1].address(version))
        made.name_next_hops()
        before = [nic.stats() for nic in made.nics]
        for one in made.left:
            for other in made.right:
                exchange_everything(one.namespace, other.address(version))
                exchange_everything(other.namespace, one.address(version))
        for nic, earlier in zip(made.nics, before, strict=True):
            since = nic.stats()
            # Twenty datagrams there and back, in both directions, of each of four pairs, and all else.
            assert (since.received - earlier.received).packets > 4 * 80
            assert (since.sent - earlier.sent).packets > 4 * 80


def test_it_is_a_router_on_the_way(encap: EncapName, version: int) -> None:
    with scene(encap) as made:
        made.name_next_hops()
        for members, others, nic in ((made.left, made.right, 0), (made.right, made.left, 1)):
            told = {str(each.ip) for each in made.nics[nic].addresses}
            for one, other in zip(members, reversed(others), strict=True):
                assert datagram_error(one.namespace, other.address(version), hops=1).offender in told
                reached = datagram_error(one.namespace, other.address(version), hops=2)
                assert reached.offender == other.address(version)


def test_what_is_long_passes_in_one_piece(encap: EncapName, version: int) -> None:
    with scene(encap) as made:
        made.name_next_hops()
        mac = made.nics[0].mac.packed
        for one, other in zip(made.left, reversed(made.right), strict=True):
            with Capture(made.vm, NICS[0]) as seen, ThreadPoolExecutor(1) as pool:
                file = pool.submit(exchange_file, one.namespace, other.address(version), size=MANY)
                seen.until(lambda frame: len(frame) > 2 * 1514 and frame[:6] == mac)
                file.result()


def test_a_vm_that_may_not_forward_receives_nothing_for_others(encap: EncapName, version: int) -> None:
    with scene(encap, forwarding=False) as made:
        made.name_next_hops()
        received = [nic.stats().received for nic in made.nics]
        for one, program in zip(made.left, ("agent", "guard"), strict=True):
            refused = total(made.world.hosts[:1], program, Verdict.NO_NEXT_HOP)
            assert_silence(one.namespace, made.right[1].address(version))
            assert total(made.world.hosts[:1], program, Verdict.NO_NEXT_HOP) == refused + 1
        assert [nic.stats().received for nic in made.nics] == received
