# SPDX-License-Identifier: Apache-2.0
"""Sixty-four addresses of each family, of a container and of a VM: each receives, speaks, asks and is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from itertools import cycle

import attrs
import pytest

import mizarnet as mz
from mizarnet import Verdict
from tests.frames import VIRTUAL, datagram, ip
from tests.support.station import Station
from tests.support.vmm import Vmm
from tests.world import Container, EncapName, Subnet, World, total

NET = Subnet(7, 1)
COUNT, NEAR, FAR, NOBODY = 64, 201, 202, 203
MANY = [NET.interfaces(number)[family] for family in (0, 1) for number in range(2, 2 + COUNT)]


@attrs.frozen
class Scene:
    """Who has the addresses, and a container next to it and one on the other host."""

    world: World
    many: Station
    near: Container
    far: Container

    def assert_refused(self, verdict: Verdict, action: Callable[[], object], *, times: int) -> None:
        """The agent of the many counts so many frames for ``verdict``."""
        before = total(self.world.hosts[:1], "agent", verdict)
        action()
        assert total(self.world.hosts[:1], "agent", verdict) == before + times


@pytest.fixture(
    scope="module",
    params=[("macvlan", True), ("macvtap", False), ("macvtap", True)],
    ids=["container-over-ipv6", "vm-over-ipv4", "vm-over-ipv6"],
)
def scene(encap: EncapName, request: pytest.FixtureRequest) -> Iterator[Scene]:
    kind, ipv6 = request.param
    with World(encap, ipv6=ipv6) as world, ExitStack() as open_ones:
        first, second = world.hosts
        if kind == "macvlan":
            made = world.container(first, NET.vni, tuple(MANY))
            many = open_ones.enter_context(Station.of_container(made))
        else:
            vm = mz.Endpoint.create(first.agent, vni=NET.vni, ip=MANY, kind="macvtap")
            many = Station.of_vm(Vmm(vm, open_ones.enter_context(vm.open_tap()).fds[0]))
        near = world.container(first, NET.vni, NET.interfaces(NEAR))
        far = world.container(second, NET.vni, NET.interfaces(FAR))
        world.publish()
        yield Scene(world, many, near, far)


def addresses(version: int) -> list[str]:
    return [NET.address(number, version) for number in range(2, 2 + COUNT)]


def assert_receives(many: Station, each: Container, addresses: Sequence[str]) -> None:
    """A datagram to each address arrives."""
    version = 6 if ":" in addresses[0] else 4
    destination = slice(30, 34) if version == 4 else slice(38, 54)
    awaited = {ip(address) for address in addresses}
    with each.udp(ip=each.address(version)) as sender:
        for address in addresses:
            sender.sendto(b"to one of many", (address, 9))
    while awaited:
        # A container's stack has no such port: it says so, and repeats what it received.
        frame = many.read(lambda frame: frame[:6] == many.mac and frame.endswith(b"to one of many"))
        awaited.remove(frame[destination])


def assert_speaks(many: Station, each: Container, addresses: Sequence[str], *, mac: bytes) -> None:
    """A datagram from each address arrives."""
    to = each.address(6 if ":" in addresses[0] else 4)
    with each.udp(9, ip=to) as heard:
        for source in addresses:
            many.write(datagram(many.mac, source, to, destination_mac=mac))
            data, (sender, *_) = heard.recvfrom(100)
            assert (data, sender) == (b"frame", source)


def test_each_receives(scene: Scene, version: int) -> None:
    for each in (scene.near, scene.far):
        assert_receives(scene.many, each, addresses(version))


def test_each_speaks(scene: Scene, version: int) -> None:
    for each, mac in ((scene.near, scene.near.mac), (scene.far, VIRTUAL)):
        assert_speaks(scene.many, each, addresses(version), mac=mac)


def test_no_other_source_is_let_out(scene: Scene, version: int) -> None:
    others = [NET.address(number, version) for number in (1, 2 + COUNT, NEAR, FAR, NOBODY)]
    for each, mac in ((scene.near, scene.near.mac), (scene.far, VIRTUAL)):
        for source in others:
            lie = datagram(scene.many.mac, source, each.address(version), destination_mac=mac)
            scene.assert_refused(Verdict.FOREIGN_SOURCE, partial(scene.many.write, lie), times=1)


def test_each_asks(scene: Scene, version: int) -> None:
    for source in addresses(version):
        for number, mac in ((NEAR, scene.near.mac), (FAR, VIRTUAL)):
            scene.many.assert_told(mac, sender=source, target=NET.address(number, version))


def test_each_is_asked_for(scene: Scene, version: int) -> None:
    for each, mac in ((scene.near, scene.many.mac), (scene.far, VIRTUAL)):
        with Station.of_container(each) as asker:
            for address in addresses(version):
                asker.assert_told(mac, sender=each.address(version), target=address)


def test_questions_about_each_from_each_are_consumed(scene: Scene, version: int) -> None:
    own = addresses(version)

    def ask() -> None:
        for one, other in zip(own, reversed(own), strict=True):
            scene.many.ask(one, other)

    scene.assert_refused(Verdict.OWN_ADDRESS_ASKED, ask, times=COUNT)


def test_nobody_asks_in_the_name_of_another(scene: Scene, version: int) -> None:
    verdict = {4: Verdict.ARP_SPOOFED, 6: Verdict.FOREIGN_SOURCE}[version]
    near, far = (NET.address(number, version) for number in (NEAR, FAR))
    for other in (near, far, NET.address(NOBODY, version)):
        scene.assert_refused(verdict, partial(scene.many.ask, other, near), times=1)
    with Station.of_container(scene.near) as neighbour:
        for address in addresses(version):
            scene.assert_refused(verdict, partial(neighbour.ask, address, far), times=1)


# -- changed in use


def test_a_vm_that_changes_half_of_them_loses_nothing_on_the_others(encap: EncapName, version: int) -> None:
    kept, dropped = addresses(version)[: COUNT // 2], addresses(version)[COUNT // 2 :]
    added = [NET.address(number, version) for number in range(100, 100 + COUNT // 2)]
    length = {4: 24, 6: 64}[version]
    before, after = ([f"{each}/{length}" for each in kept + rest] for rest in (dropped, added))
    with World(encap, ipv6=True) as world:
        first, second = world.hosts
        vm = mz.Endpoint.create(first.agent, vni=NET.vni, ip=before, kind="macvtap")
        far = world.container(second, NET.vni, NET.interfaces(FAR))
        world.publish()
        with vm.open_tap() as tap, ThreadPoolExecutor(1) as pool:
            many = Station.of_vm(Vmm(vm, tap.fds[0]))
            changing = pool.submit(lambda: [vm.update(ip=ips) for ips in 3 * [after, before] + [after]])
            with far.udp(ip=far.address(version)) as sender:
                for number, address in enumerate(cycle(kept)):
                    data = f"number {number} to {address}".encode()
                    sender.sendto(data, (address, 9))
                    many.read(lambda frame, data=data: frame.endswith(data))
                    if number > COUNT and changing.done():
                        break
            assert changing.result() == 7 * [("ip",)]
            world.publish()
            assert_receives(many, far, [*kept, *added])
            assert_speaks(many, far, [*kept, *added], mac=VIRTUAL)
            refused = total([first], "agent", Verdict.FOREIGN_SOURCE)
            for address in dropped:
                many.write(datagram(many.mac, address, far.address(version), destination_mac=VIRTUAL))
            assert total([first], "agent", Verdict.FOREIGN_SOURCE) == refused + len(dropped)
