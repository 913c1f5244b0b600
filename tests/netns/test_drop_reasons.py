# SPDX-License-Identifier: Apache-2.0
"""Why an endpoint's frames were dropped: each reason is counted for the endpoint that it concerns, and for no other."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

import mizarnet as mz
from mizarnet import Counter, Verdict
from mizarnet._model.codec import no_traffic, u32
from mizarnet._model.enumerations import Limit
from tests.frames import datagram, ethernet
from tests.support.traffic import send_frame, send_raw
from tests.support.wait import wait_until
from tests.world import BLUE, Container, EncapName, World, quiet

NOBODY = "10.0.0.99"
PAYLOAD = b"refused"
LENGTH = 14 + 20 + 8 + len(PAYLOAD)
NOTHING = mz.EndpointStats(Counter(), Counter(), Counter())
EACH = 2_000
"""Frames that each of two CPUs sends."""


@pytest.fixture(scope="module")
def world(encap: EncapName) -> Iterator[World]:
    with World(encap, hosts=2) as made:
        yield made


@pytest.fixture(scope="module")
def pair(world: World) -> tuple[Container, Container]:
    """Two containers that say nothing unasked, on one host."""
    one, other = (world.container(world.hosts[0], BLUE, f"10.0.0.{n}/24") for n in (1, 2))
    return one, other


def to_nobody(sender: Container, times: int = 1) -> None:
    for _ in range(times):
        send_frame(sender.namespace, sender.endpoint.ifname, frame_of(sender.endpoint))


def from_another(sender: Container) -> None:
    send_frame(sender.namespace, sender.endpoint.ifname, frame_of(sender.endpoint, source="10.0.0.77"))


def frame_of(sender: mz.Endpoint, *, source: str = "", to: str = NOBODY) -> bytes:
    mac = sender.mac.packed
    return datagram(mac, source or str(sender.ip), to, destination_mac=mac, payload=PAYLOAD)


def risen(now: mz.EndpointStats, before: mz.EndpointStats) -> dict[Verdict, Counter]:
    return {
        reason: counter - before.reasons.get(reason, Counter())
        for reason, counter in now.reasons.items()
        if counter != before.reasons.get(reason)
    }


def assert_explained(stats: mz.EndpointStats) -> None:
    assert stats.unexplained == Counter()
    assert sum(stats.reasons.values(), Counter()) == stats.dropped + stats.undelivered


# -- for whom ----------------------------------------------------------------------------------------------


@pytest.mark.vm
def test_each_reason_is_counted_for_its_sender_and_for_nobody_else(pair: tuple[Container, Container]) -> None:
    one, other = pair
    before, beside = one.endpoint.stats(), other.endpoint.stats()
    to_nobody(one, 3)
    from_another(one)
    now = one.endpoint.stats()
    wanted = {
        Verdict.NO_DESTINATION: Counter(3, 3 * LENGTH),
        Verdict.FOREIGN_SOURCE: Counter(1, LENGTH),
    }
    assert risen(now, before) == wanted
    assert now.dropped - before.dropped == Counter(4, 4 * LENGTH)
    assert now.undelivered == before.undelivered
    assert other.endpoint.stats() == beside
    assert_explained(now)
    assert mz.Endpoint.stats_all(one.host.agent)[one.endpoint.name] == now


def test_what_nobody_is_known_to_have_sent_is_counted_for_no_endpoint(
    pair: tuple[Container, Container],
) -> None:
    one, _ = pair
    before = mz.Endpoint.stats_all(one.host.agent)
    total = one.host.agent.stats()
    frame = ethernet(one.mac, b"\2\0\0\0\0\x77", 0x88CC, b"from a MAC of nobody's")
    send_frame(one.namespace, one.endpoint.ifname, frame)
    assert one.host.agent.stats().since(total).dropped.packets == 1
    assert mz.Endpoint.stats_all(one.host.agent) == before


@pytest.mark.vm
def test_what_the_guard_refuses_is_counted_for_the_endpoint_that_it_was_for(
    world: World, pair: tuple[Container, Container]
) -> None:
    """Two hosts have one address: what the other one sends comes in a local endpoint's name."""
    one, other = pair
    space = world.namespace("double")
    quiet(space)
    double = mz.Endpoint.create(
        world.hosts[1].agent, vni=BLUE, ip=other.endpoint.addresses, netns=space.name, mac="02:00:00:00:00:22"
    )
    before, beside = one.endpoint.stats(), other.endpoint.stats()
    send_frame(space, double.ifname, frame_of(double, to=one.ip))
    wait_until(
        lambda: one.endpoint.stats().undelivered != before.undelivered,
        lambda: f"the guard refused nothing: {one.host.agent.stats()}",
    )
    now = one.endpoint.stats()
    assert risen(now, before) == {Verdict.SOURCE_IS_LOCAL: Counter(1, LENGTH)}
    assert now.undelivered - before.undelivered == Counter(1, LENGTH)
    assert (now.dropped, now.received) == (before.dropped, before.received)
    assert now.drops[Verdict.SOURCE_IS_LOCAL] == now.reasons[Verdict.SOURCE_IS_LOCAL]
    assert other.endpoint.stats() == beside
    assert_explained(now)
    double.delete()
    space.delete()


# -- for how long ------------------------------------------------------------------------------------------


def test_a_later_endpoint_inherits_nothing(encap: EncapName) -> None:
    """With room for one endpoint the next one has the same index, and here the same name as well."""
    with World(encap, hosts=1, max_local=1) as world:
        for address in ("10.0.0.1/24", "10.0.0.1/24", "10.0.0.2/24"):
            made = world.container(world.hosts[0], BLUE, address)
            assert made.endpoint.stats() == NOTHING
            to_nobody(made)
            assert set(made.endpoint.stats().reasons) == {Verdict.NO_DESTINATION}
            assert_explained(made.endpoint.stats())
            world.containers.remove(made)
            made.delete()


@pytest.mark.parametrize("taken", [False, True], ids=["lost", "taken meanwhile"])
def test_an_index_that_is_claimed_again_has_the_endpoints_own_counters(encap: EncapName, taken: bool) -> None:
    with World(encap, hosts=1) as world:
        made = world.container(world.hosts[0], BLUE, "10.0.0.1/24")
        to_nobody(made)
        before, maps = made.endpoint.stats(), made.host.agent._datapath.maps
        index = u32(made.endpoint._record.slot)
        maps.slots.delete(index)
        if taken:
            cpus = maps.traffic.slot_size // maps.traffic.value_size
            maps.traffic.update(index, cpus * no_traffic(made.endpoint._record.instance + 1))
            maps.drops.delete_many([*maps.drops.keys()])
        assert not mz.Endpoint.create(made.host.agent, made.endpoint.spec).created
        assert made.endpoint.stats() == (NOTHING if taken else before)
        to_nobody(made)
        assert_explained(made.endpoint.stats())


def test_a_reason_that_made_room_for_others_is_missed(encap: EncapName) -> None:
    with World(encap, hosts=1) as world:
        made = world.container(world.hosts[0], BLUE, "10.0.0.1/24")
        total = world.hosts[0].agent.stats
        on_cpu(min(os.sched_getaffinity(0)), lambda: to_nobody(made, 3))
        before = made.endpoint.stats()
        assert_explained(before)
        on_cpu(min(os.sched_getaffinity(0)), lambda: crowd_out(made))
        now = made.endpoint.stats()
        assert now.reasons == {}
        assert now.unexplained == now.dropped == before.dropped == Counter(3, 3 * LENGTH)
        assert total().drops[Verdict.NO_DESTINATION].packets == 3 + Limit.DROPS + Limit.DROPS // 4 - 1
        to_nobody(made)
        assert made.endpoint.stats().reasons == {Verdict.NO_DESTINATION: Counter(1, LENGTH)}
        assert made.endpoint.stats().unexplained == before.dropped
        assert mz.Endpoint.stats_all(made.host.agent)[made.endpoint.name] == made.endpoint.stats()
        made.delete()
        world.containers.remove(made)


def crowd_out(sender: Container) -> None:
    """Drop something of more endpoints than there is room for reasons, all of them with the index of one.

    The kernel keeps what a program has looked at longer than what was only written.
    """
    maps, index = sender.host.agent._datapath.maps, u32(sender.endpoint._record.slot)
    own, cpus = maps.traffic.lookup(index), maps.traffic.slot_size // maps.traffic.value_size
    frame = frame_of(sender.endpoint)
    with sender.packet_socket() as raw:
        for instance in range(1, Limit.DROPS + Limit.DROPS // 4):
            maps.traffic.update(index, cpus * no_traffic(instance))
            send_raw(raw, frame)
    assert own is not None
    maps.traffic.update(index, own)


def on_cpu(cpu: int, work: Callable[[], object]) -> None:
    """Do work on a thread that stays on a CPU."""

    def run() -> None:
        os.sched_setaffinity(0, {cpu})  # of this thread alone
        work()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(run).result()


# -- side by side ------------------------------------------------------------------------------------------


def test_no_drop_is_lost_where_cpus_share_a_reason(pair: tuple[Container, Container]) -> None:
    one, _ = pair
    before = one.endpoint.stats()
    frame = frame_of(one.endpoint)
    cpus = sorted(os.sched_getaffinity(0))[:2]
    assert len(cpus) == 2, "one CPU has nothing to share"
    ready = threading.Barrier(len(cpus))

    def send() -> None:
        with one.packet_socket() as raw:
            ready.wait()
            for _ in range(EACH):
                send_raw(raw, frame)

    with ThreadPoolExecutor(len(cpus)) as pool:
        for done in [pool.submit(on_cpu, cpu, send) for cpu in cpus]:
            done.result()
    now = one.endpoint.stats()
    sent = len(cpus) * EACH
    assert risen(now, before) == {Verdict.NO_DESTINATION: Counter(sent, sent * LENGTH)}
    assert_explained(now)
