# SPDX-License-Identifier: Apache-2.0
"""A hostile VM, which writes whatever it likes into its descriptor, next to containers and to another tenant's VM."""

from __future__ import annotations

import time
from collections.abc import Iterator

import attrs
import pytest

import mizarnet as mz
from mizarnet import Verdict
from tests.netns.hostile.endpoint import lengths, neighbours, shapes, sources, tunnels
from tests.netns.hostile.endpoint.net import Neighbourhood, addresses
from tests.netns.hostile.endpoint.trial import (
    Kind,
    Tap,
    assert_all_refused,
    facts_of,
    shots_of,
    verdicts,
)
from tests.support.flood import frame_count
from tests.support.namespace import Namespace
from tests.support.onlookers import Onlooker
from tests.support.vmm import Vmm
from tests.world import BLUE, GREEN, Container

HOSTILE, VICTIM = 11, 12
OF_NEIGHBOURS = ("ARP in others' names", "ARP replies", "ND in others' names", "ND from others' addresses")
OF_SHAPES = ("VLAN tags", "headers cut short", "unknown ethertypes", "storms")
KINDS: dict[str, Kind] = {
    **sources.KINDS,
    **{name: neighbours.KINDS[name] for name in OF_NEIGHBOURS},
    **{name: shapes.KINDS[name] for name in OF_SHAPES},
    **tunnels.KINDS,
}
LONG_KINDS = {**lengths.FRAMES, **lengths.SUPER_FRAMES}


def add_vm(hood: Neighbourhood, vni: int, number: int) -> Container:
    """A VM's endpoint on the sender's host."""
    made = mz.Endpoint.create(hood.first.agent, vni=vni, ip=addresses(number), kind="macvtap")
    return hood.world.tell(Container(hood.first, Namespace.adopt(made.netns or ""), made))


@pytest.fixture(scope="module")
def victim(hood: Neighbourhood) -> Iterator[Container]:
    """The other tenant's VM."""
    made = add_vm(hood, GREEN, VICTIM)
    yield made
    made.endpoint.delete()


@pytest.fixture(scope="module")
def vmm(victim: Container) -> Iterator[Vmm]:
    """What it reads."""
    with victim.endpoint.open_tap() as tap:
        yield Vmm(victim.endpoint, tap.fds[0])


@pytest.fixture(scope="module")
def crowd(hood: Neighbourhood, victim: Container, vmm: Vmm) -> Iterator[Neighbourhood]:
    """The neighbourhood with that VM in it."""
    onlooker = Onlooker("vm", victim.namespace, victim.endpoint.ifname)
    yield attrs.evolve(hood, vms=(victim,), onlookers=(*hood.onlookers, onlooker))
    onlooker.close()


@pytest.fixture(scope="module")
def sender(hood: Neighbourhood) -> Iterator[Tap]:
    """The hostile one."""
    vm = add_vm(hood, BLUE, HOSTILE)
    with vm.endpoint.open_tap() as tap:
        yield Tap(vm.endpoint, tap.fds[0])
    vm.endpoint.delete()


def assert_refused_from(crowd: Neighbourhood, vmm: Vmm, sender: Tap, kind: Kind, count: int) -> None:
    """And the other VM reads nothing but the one honest frame that ends each trial."""
    assert vmm.pending() == []
    assert_all_refused(crowd, sender, shots_of(kind, crowd, sender.endpoint), count=count)
    assert [frame[6:12] for frame in vmm.pending()] == [crowd.other.mac]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.vm] * (name == "another tenant's MAC")) for name in KINDS]
)
def test_what_a_vm_writes(crowd: Neighbourhood, vmm: Vmm, sender: Tap, name: str) -> None:
    assert_refused_from(crowd, vmm, sender, KINDS[name], frame_count())


@pytest.mark.parametrize("name", LONG_KINDS)
def test_long_frames_of_a_vm(crowd: Neighbourhood, vmm: Vmm, sender: Tap, name: str) -> None:
    """A tenth of them, for their length. A tap takes all of them, where a packet socket refuses most."""
    assert_refused_from(crowd, vmm, sender, LONG_KINDS[name], frame_count(routed=True))


def test_a_flood_of_long_frames_is_answered_a_hundred_times_a_second(
    crowd: Neighbourhood, vmm: Vmm, sender: Tap
) -> None:
    """To the VM itself, which reads them, and to nobody else."""
    frames, count = lengths.told_frames(facts_of(crowd, sender.endpoint)), frame_count(routed=True)
    vm = Vmm(sender.endpoint, sender.fd)
    vm.pending()
    crowd.forget()
    knowledge, traffic, before = crowd.knowledge(), crowd.traffic(), crowd.first.agent.stats()
    begun = time.monotonic_ns()
    for number in range(count):
        vm.write(frames[number % len(frames)])
        if number % 20 == 0:
            vm.pending()
    seconds = time.monotonic_ns() // 10**9 - begun // 10**9 + 1
    since = crowd.first.agent.stats().since(before)
    told = since.agent[Verdict.OVERSIZED_ANSWERED].packets
    assert 100 <= told <= 100 * seconds
    assert verdicts(since.agent) == {Verdict.OVERSIZED_ANSWERED: told, Verdict.OVERSIZED: count - told}
    assert verdicts(since.guard) == {Verdict.ACCEPTED_LOCALLY: told}
    crowd.assert_silence()
    assert (crowd.knowledge(), crowd.traffic(), vmm.pending()) == (knowledge, traffic, [])
