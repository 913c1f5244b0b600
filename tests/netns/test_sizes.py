# SPDX-License-Identifier: Apache-2.0
"""As many as there is room for, and one more; and again and again, with nothing that grows.

The sizes of ``TransitAgent.attach`` by default at full depth, otherwise smaller ones.
"""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import mizarnet as mz
from tests.support.agreement import disagreements
from tests.support.depth import depth
from tests.support.leaks import descriptors
from tests.support.memory import Allocated
from tests.support.tables import unchanged
from tests.support.traffic import assert_ping
from tests.world import World, links, quiet

CYCLES, SIDE_BY_SIDE = depth(128, 20_000), 8
VM_ONE_IN = depth(10, 100)
MOST_LOCAL, SPACES = depth(32, 4096), depth(4, 16)
MOST_ENTRIES = depth(256, 65_536)
KB_OF_GROWTH = 256


def _held(agent: mz.TransitAgent) -> tuple[frozenset[str], int, int]:
    """Descriptors and threads of this process, and memory of the agent's maps."""
    return descriptors(), threading.active_count(), agent.state().memory


def _kb_of(file: str, what: str) -> int:
    lines = Path(file).read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{what}:"))


def test_nothing_grows_with_the_number_of_cycles(world: World) -> None:
    agent, space = world.hosts[0].agent, world.namespace("cycles")
    quiet(space)

    def cycle(number: int) -> None:
        place = (
            {"kind": "macvtap"} if number % VM_ONE_IN == 0 else {"netns": space.name, "ifname": f"e{number}"}
        )
        name, ip = f"n{number}", f"10.0.{number // 250}.{number % 250 + 1}"
        mz.Endpoint.create(agent, name=name, vni=7, ip=ip, **place).delete()

    def cycles(numbers: range) -> None:
        for number in numbers:
            cycle(number)

    def all_of(first: int, end: int) -> list[range]:
        return [range(first + n, end, SIDE_BY_SIDE) for n in range(SIDE_BY_SIDE)]

    # The first half makes what stays: what each thread and the allocator begin with, and, once, twice the room for
    # interned strings, 1 MB. pathlib interns the parts of each path, which die with it, but the table keeps their
    # places until it is made anew, every 15,000 cycles. What is resident goes up or down by all of it then: by 1.8 MB
    # in 40,000 cycles, in which the allocator gave away 0.1 MB more, and Python's objects had 170 blocks more.
    half = CYCLES // 2
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        deque(pool.map(cycles, all_of(0, half)), maxlen=0)
        held, before, slab = _held(agent), Allocated.now(), _kb_of("/proc/meminfo", "SUnreclaim")
        deque(pool.map(cycles, all_of(half, CYCLES)), maxlen=0)
        assert _held(agent) == held
        after, slab = Allocated.now(), _kb_of("/proc/meminfo", "SUnreclaim") - slab
    blocks, grown = after.blocks - before.blocks, after.kb - before.kb
    print(f"{half} cycles: {blocks:+} blocks, {grown:+} kB, {slab:+} kB of the whole machine's slab")
    assert blocks < 256 + half / 20
    assert grown < KB_OF_GROWTH
    assert disagreements(agent, [space.name]) == []


def test_one_endpoint_more_than_there_is_room_for(world: World) -> None:
    host, other = world.hosts[0], world.namespace("rest")
    host.agent.detach()
    with mz.TransitAgent.attach(host.tunnel, max_local=MOST_LOCAL, max_endpoints=MOST_ENTRIES) as agent:
        spaces = [world.namespace(f"many{number}") for number in range(SPACES)]
        for each in (other, *spaces):
            quiet(each)
        specs = [
            mz.EndpointSpec(
                name=f"n{n}",
                vni=7,
                ip=f"10.0.{n // 250}.{n % 250 + 1}",
                netns=spaces[n % SPACES].name,
                ifname=f"e{n}",
            )
            for n in range(MOST_LOCAL)
        ]
        memory = agent.state().memory
        assert all(made.created for made in mz.Endpoint.create_many(agent, specs))
        assert agent.state().memory == memory
        one_more = mz.EndpointSpec(name="more", vni=7, ip="10.0.250.1/16", netns=other.name)
        with unchanged(agent), pytest.raises(mz.CapacityError, match=f"{MOST_LOCAL} endpoints") as caught:
            mz.Endpoint.create(agent, one_more)
        assert (caught.value.capacity, caught.value.used) == (MOST_LOCAL, MOST_LOCAL)
        assert links(other) == ["lo"]
        names = [each.name for each in (other, *spaces)]
        assert disagreements(agent, names) == []
        mz.Endpoint.delete_many(agent, ["n7"])
        assert mz.Endpoint.create(agent, one_more).created
        assert disagreements(agent, names) == []
        assert len(mz.Endpoint.list(agent)) == MOST_LOCAL
        assert len(mz.Endpoint.stats_all(agent)) == MOST_LOCAL
        agent.detach(force=True)
    assert [links(each) for each in spaces] == [["lo"]] * SPACES


def test_one_entry_more_than_there_is_room_for(world: World) -> None:
    host, space = world.hosts[0], world.namespace("web")
    quiet(space)
    far = mz.Remote(world.hosts[1].address)
    host.agent.detach()
    with mz.TransitAgent.attach(host.tunnel, max_endpoints=MOST_ENTRIES) as agent:
        web = mz.EndpointSpec(name="web", vni=8, ip="10.0.0.1/24", netns=space.name)
        keys = [(7, f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}") for n in range(MOST_ENTRIES)]
        agent.endpoints.update((key, far) for key in keys)
        assert len(agent.endpoints) == MOST_ENTRIES
        with unchanged(agent), pytest.raises(mz.CapacityError) as caught:
            agent.endpoints[9, "10.0.0.1"] = far
        assert (caught.value.table, caught.value.capacity) == ("endpoints", MOST_ENTRIES)
        with unchanged(agent), pytest.raises(mz.CapacityError) as caught:
            mz.Endpoint.create(agent, web)
        assert (caught.value.table, caught.value.capacity) == ("endpoints", MOST_ENTRIES)
        assert links(space) == ["lo"]
        del agent.endpoints[keys[0]]
        assert mz.Endpoint.create(agent, web).created
        agent.endpoints.apply({}, keys)
        assert len(agent.endpoints) == 1
        assert_ping(space, "10.0.0.1")
