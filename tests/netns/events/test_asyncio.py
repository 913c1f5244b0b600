# SPDX-License-Identifier: Apache-2.0
"""Events in an event loop, which leaves nothing behind however it ends."""

from __future__ import annotations

import asyncio
import os
import runpy
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import mizarnet as mz
from mizarnet._model.enumerations import Limit
from mizarnet.events import _IN_TURN
from tests.netns.events.senders import SOON, frame_of, send
from tests.support.process import in_child
from tests.support.traffic import send_raw
from tests.world import Container


async def first(events: mz.Events, count: int) -> list[mz.Event]:
    found: list[mz.Event] = []
    async for event in events:
        found.append(event)
        if len(found) == count:
            break
    return found


def write(events: mz.Events) -> object:
    return events.write_pcapng(os.devnull)


def test_they_come_to_a_loop_as_they_do_to_a_thread(one: Container) -> None:
    async def main() -> None:
        with await mz.aio.call(one.host.agent.events) as events:
            send(one, frame_of(one))
            reading = asyncio.create_task(first(events, 3))
            await asyncio.sleep(0.2)
            assert not reading.done(), "two of three are to come"
            for _ in range(2):
                send(one, frame_of(one))
            found = await asyncio.wait_for(reading, SOON)
            assert [each.endpoint for each in found] == ["one"] * 3

    asyncio.run(main())


def test_a_task_that_waits_ends_when_the_reader_is_closed(one: Container) -> None:
    async def main() -> None:
        with one.host.agent.events() as events:
            reading = asyncio.create_task(first(events, 1))
            await asyncio.sleep(0.1)
        assert await asyncio.wait_for(reading, SOON) == []

    asyncio.run(main())


def test_a_task_that_is_cancelled_leaves_a_reader_that_works(one: Container) -> None:
    async def main() -> None:
        with one.host.agent.events() as events:
            reading = asyncio.create_task(first(events, 1))
            await asyncio.sleep(0.1)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            send(one, frame_of(one))
            assert len(await asyncio.wait_for(first(events, 1), SOON)) == 1

    asyncio.run(main())


def test_what_ends_a_reader_ends_its_task(one: Container) -> None:
    async def main() -> None:
        agent = mz.TransitAgent.open(one.host.tunnel)
        with agent.events() as events:
            reading = asyncio.create_task(first(events, 1))
            await asyncio.sleep(0.1)
            agent.close()
            with pytest.raises(mz.ClosedError):
                await asyncio.wait_for(reading, SOON)

    asyncio.run(main())


def test_a_loop_forgets_the_descriptor_of_a_reader_that_is_closed_with_its_task(one: Container) -> None:
    """The next descriptor of that number is somebody else's."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        events = one.host.agent.events()
        reading = asyncio.create_task(first(events, 1))
        await asyncio.sleep(0.1)
        number = events.fileno()
        reading.cancel()
        events.close()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert not loop.remove_reader(number)

    asyncio.run(main())


def test_a_reader_is_closed_after_its_loop(one: Container) -> None:
    loop, events = asyncio.new_event_loop(), one.host.agent.events()
    waiting = anext(events)
    loop.run_until_complete(begun(waiting))
    loop.close()
    events.close()
    waiting.close()


async def begun(waiting: Coroutine[Any, Any, mz.Event]) -> None:
    """Go on with what waits until it waits for the future of its reader."""
    while (future := waiting.send(None)) is None:
        pass
    assert asyncio.isfuture(future)


def test_each_of_several_tasks_gets_events(one: Container) -> None:
    async def main() -> None:
        with one.host.agent.events() as events:
            reading = [asyncio.create_task(first(events, 1)) for _ in range(3)]
            await asyncio.sleep(0.1)
            for _ in reading:
                send(one, frame_of(one))
            found = await asyncio.wait_for(asyncio.gather(*reading), SOON)
            assert [len(each) for each in found] == [1, 1, 1]

    asyncio.run(main())


def test_other_tasks_have_their_turn_though_there_is_always_more(one: Container) -> None:
    async def main() -> None:
        with one.host.agent.events() as events:
            send(one, frame_of(one))
            turns = 0

            async def count() -> None:
                nonlocal turns
                while True:
                    turns += 1
                    await asyncio.sleep(0)

            counting = asyncio.create_task(count())
            for _ in range(10):
                await anext(events)
                send(one, frame_of(one))
            counting.cancel()
            assert turns >= 9

    asyncio.run(main())


def test_other_tasks_have_their_turn_though_many_are_there(one: Container) -> None:
    many, turns = 3 * _IN_TURN, 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def main() -> None:
        with one.host.agent.events() as events, one.packet_socket() as raw:
            for _ in range(many):
                send_raw(raw, frame_of(one))
            counting = asyncio.create_task(count())
            assert len(await first(events, many)) == many
            counting.cancel()

    asyncio.run(main())
    assert turns >= 3


def test_a_task_ends_when_another_thread_closes_the_reader(one: Container) -> None:
    async def main() -> None:
        events = one.host.agent.events()
        reading = asyncio.create_task(first(events, 1))
        await asyncio.sleep(0.1)
        await mz.aio.call(events.close)
        assert await asyncio.wait_for(reading, SOON) == []

    for debug in (False, True):
        asyncio.run(main(), debug=debug)


@pytest.mark.parametrize("call", [mz.Events.read, next, write])
def test_a_call_that_waits_ends_when_its_task_is_cancelled(
    one: Container, call: Callable[[mz.Events], object]
) -> None:
    async def main() -> None:
        with one.host.agent.events() as events:
            waiting = asyncio.create_task(mz.aio.call(call, events))
            await asyncio.sleep(0.1)
            waiting.cancel()
            await asyncio.wait((waiting,), timeout=SOON)
            assert waiting.cancelled()

    asyncio.run(main())


def test_a_child_that_closes_it_leaves_the_parents_loop_alone(one: Container) -> None:
    async def main() -> None:
        with one.host.agent.events() as events:
            reading = asyncio.create_task(first(events, 1))
            await asyncio.sleep(0.1)
            in_child(events.close)
            send(one, frame_of(one))
            assert len(await asyncio.wait_for(reading, SOON)) == 1

    asyncio.run(main())


def test_the_example_lets_go_of_a_client_that_is_gone_though_nothing_is_dropped(
    one: Container, tmp_path: Path
) -> None:
    example = runpy.run_path(str(Path(__file__).parents[3] / "examples" / "event_stream.py"))

    async def main() -> None:
        serving = await asyncio.start_unix_server(partial(example["stream"], one.host.agent), tmp_path / "x")
        async with serving:
            for _ in range(Limit.READERS + 1):
                lines, client = await asyncio.open_unix_connection(tmp_path / "x")
                assert await asyncio.wait_for(lines.readline(), SOON) == b"listening\n"
                client.close()
                await asyncio.wait_for(lines.read(), SOON)

    asyncio.run(main())
