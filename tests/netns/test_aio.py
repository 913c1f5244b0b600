# SPDX-License-Identifier: Apache-2.0
"""Endpoints from asyncio: many at once, and a cancellation at any moment leaves nothing half made."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

import mizarnet as mz
from mizarnet._datapath import lock
from mizarnet._kernel.jobs import stopping
from tests.support.agreement import disagreements
from tests.support.depth import SEED, depth
from tests.support.namespace import Namespace
from tests.support.wait import wait_until
from tests.world import TUNNEL, UNDERLAY, Container, Host, World, links

MANY = 100
ROUNDS = depth(60, 1000)
SECONDS = {"create": 0.012, "create_many": 0.06, "delete_many": 0.15, "macvtap": 0.03, "attach": 0.3}
"""How long each call takes at most, more or less: the cancellation comes at a random moment of it."""


def specs_of(namespace: Namespace, count: int) -> list[mz.EndpointSpec]:
    return [
        mz.EndpointSpec(
            name=f"e{n}",
            vni=7,
            ip=[f"10.0.1.{n}", f"fd00::{n:x}"],
            netns=namespace.name,
            ifname=f"e{n}",
        )
        for n in range(1, count + 1)
    ]


def assert_whole(host: Host, namespace: Namespace) -> None:
    """Nobody is in the middle of anything, and what the tables say is what there is."""
    with lock.locked(host.tunnel._host.cookie, timeout=0):
        assert disagreements(host.agent, [namespace.name]) == []


def test_a_hundred_endpoints_at_once(world: World) -> None:
    host, namespace = world.hosts[0], world.namespace("web")

    async def main() -> list[mz.Endpoint]:
        specs = specs_of(namespace, MANY)
        return await asyncio.gather(*(mz.aio.call(mz.Endpoint.create, host.agent, spec) for spec in specs))

    made = asyncio.run(main())
    assert [endpoint.name for endpoint in made] == [f"e{n}" for n in range(1, MANY + 1)]
    assert all(endpoint.created for endpoint in made)
    assert len(links(namespace)) == 1 + MANY
    assert_whole(host, namespace)
    asyncio.run(mz.aio.call(mz.Endpoint.delete_many, host.agent, [endpoint.name for endpoint in made]))
    assert links(namespace) == ["lo"]


def test_a_cancellation_at_any_moment_leaves_nothing_half_made(world: World) -> None:
    host, namespace = world.hosts[0], world.namespace("web")
    chance, cancelled = random.Random(SEED), Counter[str]()
    calls = {name: call for name, call in _calls(host, namespace)}

    async def main() -> None:
        for number in range(ROUNDS):
            name = chance.choice([*calls][:-1]) if number % 10 else "attach"
            try:
                async with asyncio.timeout(chance.uniform(1e-4, SECONDS[name])):
                    await mz.aio.call(calls[name])
            except TimeoutError:
                cancelled[name] += 1
            assert_whole(host, namespace)
            _assert_other_is_whole(host)

    asyncio.run(main())
    assert cancelled.total() > ROUNDS / 5, cancelled
    assert cancelled["create_many"], cancelled


def _calls(host: Host, namespace: Namespace) -> Iterator[tuple[str, Callable[[], object]]]:
    agent, specs = host.agent, specs_of(namespace, 12)
    vm = mz.EndpointSpec(name="vm", vni=7, ip="10.0.0.2/24", kind="macvtap")
    yield "create", lambda: mz.Endpoint.create(agent, specs[0])
    yield "create_many", lambda: mz.Endpoint.create_many(agent, specs)
    yield "delete_many", lambda: mz.Endpoint.delete_many(agent, [spec.name for spec in specs[:6]])
    yield "macvtap", lambda: mz.Endpoint.create(agent, vm).delete()
    yield "attach", lambda: _attach(host)


def _attach(host: Host) -> None:
    with mz.Tunnel.create(
        "other", encap=host.tunnel.encap, underlay=UNDERLAY, port=7777, netns=host.namespace.name
    ) as tunnel:
        mz.TransitAgent.attach(tunnel).close()
        if not stopping():
            tunnel.delete()


def _assert_other_is_whole(host: Host) -> None:
    with suppress(mz.TunnelNotFoundError), mz.Tunnel.open("other", netns=host.namespace.name) as tunnel:
        with mz.TransitAgent.open(tunnel) as agent:
            assert all(agent.state().attached.values())
        tunnel.delete()


def test_many_endpoints_end_after_the_one_that_they_are_at(web: Container) -> None:
    specs = [
        mz.EndpointSpec(vni=7, ip=f"10.1.{n >> 8}.{n & 255}/32", netns=web.namespace.name, ifname=f"e{n}")
        for n in range(10, 2000)
    ]

    async def main() -> None:
        task = asyncio.create_task(mz.aio.call(mz.Endpoint.create_many, web.host.agent, specs))
        while len(links(web.namespace)) < 5:
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    asyncio.run(main())
    made = [each.name for each in mz.Endpoint.list(web.host.agent)]
    assert 2 < len(made) < len(specs)
    assert len(links(web.namespace)) == 1 + len(made)


def test_a_call_that_waits_for_the_hosts_lock_gives_up(host: Host) -> None:
    cookie, took = host.tunnel._host.cookie, []

    def wait_for_it() -> None:
        with lock.locked(cookie, timeout=1e6):
            took.append(True)

    async def main() -> None:
        with lock.locked(cookie), pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await mz.aio.call(wait_for_it)
        await mz.aio.call(wait_for_it)

    asyncio.run(main())
    assert took == [True]


def test_a_call_that_waits_for_an_address_gives_up(bare: Namespace) -> None:
    bare.run("ip", "address", "flush", "dev", UNDERLAY)
    bare.run("ip", "address", "add", "2001:db8::1/64", "dev", UNDERLAY)

    async def main() -> None:
        async with asyncio.timeout(0.1):
            await mz.aio.call(mz.Tunnel.create, TUNNEL, encap="vxlan", underlay=UNDERLAY, netns=bare.name)

    with pytest.raises(TimeoutError):
        asyncio.run(main())
    assert TUNNEL not in links(bare)


def test_a_handle_that_nobody_gets_is_closed(host: Host) -> None:
    handles: list[mz.TransitAgent] = []

    def open_slowly() -> mz.TransitAgent:
        handles.append(mz.TransitAgent.open(host.tunnel))
        wait_until(stopping)
        return handles[0]

    async def main() -> None:
        task = asyncio.create_task(mz.aio.call(open_slowly))
        while not handles:
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(main())
    with pytest.raises(mz.ClosedError):
        handles[0].stats()


def test_errors_are_the_librarys(web: Container) -> None:
    async def main() -> None:
        with pytest.raises(mz.ExistsError, match="belongs to") as raised:
            await mz.aio.call(
                mz.Endpoint.create,
                web.host.agent,
                name="b",
                vni=7,
                ip="10.0.0.1/24",
                netns=web.namespace.name,
            )
        assert raised.value.holder == "web"
        with pytest.raises(mz.InvalidTypeError):
            await mz.aio.call(mz.Endpoint.create, web.host.agent, vni=7)

    asyncio.run(main())
