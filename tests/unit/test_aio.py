# SPDX-License-Identifier: Apache-2.0
"""Calls from asyncio: who runs when, what a cancellation waits for, and what becomes of a result."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pytest

import mizarnet as mz
from mizarnet._kernel.jobs import calling_frame, stopping
from tests.support.process import in_child
from tests.support.wait import wait_until

T = TypeVar("T")


class Slow:
    """A call that goes on until it is let go, and counts how many do so at a time."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.began: list[int] = []
        self.ended: list[int] = []
        self.most = 0
        self.stopped = False
        self._lock = threading.Lock()

    def __call__(self, number: int = 0) -> int:
        with self._lock:
            self.began.append(number)
            self.most = max(self.most, len(self.began) - len(self.ended))
        assert self.go.wait(30)
        self.stopped = stopping()
        with self._lock:
            self.ended.append(number)
        return number


class Handle:
    """What a call returns and nobody gets."""

    def __init__(self) -> None:
        self.closed = threading.Event()

    def close(self) -> None:
        self.closed.set()


def until_stopped(result: T) -> T:
    """A long call that ends early, as ``create_many`` does."""
    wait_until(stopping)
    return result


async def soon(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


async def start(work: Coroutine[Any, Any, T], condition: Callable[[], object]) -> asyncio.Task[T]:
    task = asyncio.create_task(work)
    await soon(condition)
    return task


def test_it_returns_what_the_call_returns_from_another_thread() -> None:
    def name(*args: int, function: str) -> tuple[object, ...]:
        return threading.current_thread() is threading.main_thread(), args, function

    assert asyncio.run(mz.aio.call(name, 1, 2, function="x")) == (False, (1, 2), "x")


def test_errors_come_out_as_they_are() -> None:
    error = mz.ExistsError("it is there", holder="web")

    def refuse() -> None:
        raise error

    async def main() -> None:
        with pytest.raises(mz.ExistsError) as raised:
            await mz.aio.call(refuse)
        assert raised.value is error

    asyncio.run(main())


async def coroutine_function() -> None:
    raise AssertionError


@pytest.mark.parametrize("wrong", [None, "stats", coroutine_function])
def test_what_does_not_block_is_refused_at_once(wrong: Any) -> None:
    with pytest.raises(mz.InvalidTypeError, match="must be one that blocks") as raised:
        mz.aio.call(wrong)
    assert raised.value.argument == "function"
    with pytest.raises(mz.InvalidTypeError):
        mz.aio.call()  # type: ignore[call-arg]


def test_the_context_is_the_tasks() -> None:
    number = contextvars.ContextVar("number", default=0)

    async def main() -> tuple[int, int]:
        number.set(7)
        await mz.aio.call(number.set, 8)
        return await mz.aio.call(number.get), number.get()

    assert asyncio.run(main()) == (7, 7)


def test_a_warning_of_the_call_is_about_the_line_that_asked_for_it() -> None:
    async def main() -> None:
        direct = await mz.aio.call(_asking)
        [gathered] = await asyncio.gather(mz.aio.call(_asking))
        assert direct == gathered == "main"

    asyncio.run(main())


def _asking() -> str:
    frame = calling_frame()
    while frame is not None and "/mizarnet/" in frame.f_code.co_filename:
        frame = frame.f_back
    return frame.f_code.co_name if frame is not None else ""


def test_a_few_run_at_a_time_and_the_rest_in_order() -> None:
    slow = Slow()

    async def main() -> list[int]:
        everything = asyncio.gather(*(mz.aio.call(slow, number) for number in range(50)))
        await soon(lambda: len(slow.began) == mz.aio.MOST)
        slow.go.set()
        return await everything

    assert asyncio.run(main()) == [*range(50)]
    assert slow.most == mz.aio.MOST
    assert sorted(slow.began[: mz.aio.MOST]) == [*range(mz.aio.MOST)]


def test_all_loops_of_a_process_share_the_room() -> None:
    slow = Slow()

    async def main() -> int:
        return len(await asyncio.gather(*(mz.aio.call(slow, number) for number in range(100))))

    with ThreadPoolExecutor(4) as pool:
        counts = [pool.submit(asyncio.run, main()) for _ in range(4)]
        wait_until(lambda: len(slow.began) == mz.aio.MOST)
        slow.go.set()
        assert [count.result() for count in counts] == [100] * 4
    assert slow.most == mz.aio.MOST
    assert asyncio.run(fill_the_room()) == mz.aio.MOST


def test_a_loop_that_was_stopped_keeps_no_place_from_others() -> None:
    slow = Slow()

    async def begin() -> list[asyncio.Task[int]]:
        tasks = [asyncio.create_task(mz.aio.call(slow, number)) for number in range(2 * mz.aio.MOST)]
        await soon(lambda: len(slow.began) == mz.aio.MOST)
        return tasks

    stopped = asyncio.new_event_loop()
    tasks = stopped.run_until_complete(begin())
    slow.go.set()
    wait_until(lambda: len(slow.ended) == mz.aio.MOST)
    assert asyncio.run(fill_the_room()) == mz.aio.MOST
    stopped.run_until_complete(asyncio.wait(tasks, timeout=30))
    assert [task.result() for task in tasks] == [*range(2 * mz.aio.MOST)]
    stopped.close()


async def fill_the_room() -> int:
    """How many calls run at the same time: each place was given back."""
    slow = Slow()
    everything = asyncio.gather(*(mz.aio.call(slow, number) for number in range(2 * mz.aio.MOST)))
    await soon(lambda: len(slow.began) >= mz.aio.MOST)
    slow.go.set()
    await everything
    return slow.most


def test_a_cancelled_task_ends_when_its_call_has_ended() -> None:
    async def main() -> None:
        slow = Slow()
        task = await start(mz.aio.call(slow), lambda: slow.began)
        task.cancel()
        await asyncio.sleep(0.01)
        assert not task.done()
        task.cancel()  # once more changes nothing
        await asyncio.sleep(0.01)
        assert not task.done()
        slow.go.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert slow.ended == [0]
        assert slow.stopped

    asyncio.run(main())


def test_a_call_that_waits_for_its_turn_never_begins_when_it_is_cancelled() -> None:
    async def main() -> None:
        slow = Slow()
        running = [asyncio.create_task(mz.aio.call(slow, number)) for number in range(mz.aio.MOST)]
        await soon(lambda: len(slow.began) == mz.aio.MOST)
        waiting = [asyncio.create_task(mz.aio.call(slow, number)) for number in range(100, 110)]
        await asyncio.sleep(0.01)
        for task in waiting[::2]:
            task.cancel()
        await asyncio.wait(waiting[::2])
        assert all(task.cancelled() for task in waiting[::2])
        slow.go.set()
        await asyncio.gather(*running, *waiting[1::2])
        assert sorted(slow.began[mz.aio.MOST :]) == [*range(101, 110, 2)]
        assert await fill_the_room() == mz.aio.MOST

    asyncio.run(main())


def test_a_turn_that_comes_together_with_the_cancellation_is_passed_on() -> None:
    async def main() -> None:
        slow = Slow()
        running = [asyncio.create_task(mz.aio.call(slow, number)) for number in range(mz.aio.MOST)]
        await soon(lambda: len(slow.began) == mz.aio.MOST)
        waiting = [asyncio.create_task(mz.aio.call(slow, number)) for number in range(100, 103)]
        await asyncio.sleep(0.01)
        slow.go.set()
        wait_until(lambda: len(slow.ended) == mz.aio.MOST)  # the loop does not run meanwhile
        wait_until(lambda: mz.aio._room._free == mz.aio.MOST)
        waiting[0].cancel()
        asyncio.get_running_loop().call_soon(
            waiting[1].cancel
        )  # when the turn has come, and the task not yet run
        await asyncio.wait([*running, *waiting])
        assert slow.began[mz.aio.MOST :] == [102]
        assert await fill_the_room() == mz.aio.MOST

    asyncio.run(main())


def test_a_timeout_is_a_timeout_after_the_call() -> None:
    ended: list[bool] = []

    def long() -> None:
        until_stopped(None)
        ended.append(True)

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await mz.aio.call(long)
        assert ended == [True]

    asyncio.run(main())


def test_a_handle_that_nobody_gets_is_closed() -> None:
    async def main() -> None:
        handle = Handle()
        task = asyncio.create_task(mz.aio.call(until_stopped, handle))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert handle.closed.is_set()

    asyncio.run(main())


def test_the_cancellation_wins_over_an_error_of_the_call() -> None:
    def refuse() -> None:
        until_stopped(None)
        raise mz.ExistsError("it is there", holder="web")

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await mz.aio.call(refuse)

    asyncio.run(main())


def test_the_end_of_the_loop_waits_for_the_call() -> None:
    said: list[str] = []

    def long() -> None:
        said.append("began")
        until_stopped(None)
        said.append("ended")

    async def main() -> asyncio.Task[None]:
        return await start(mz.aio.call(long), lambda: said)

    assert asyncio.run(main()).cancelled()
    assert said == ["began", "ended"]


def test_a_loop_that_is_closed_under_a_call_leaves_it_to_end_by_itself() -> None:
    """The task cannot wait any more, so the call is told to end, and its result is closed."""
    handle = Handle()
    loop = asyncio.new_event_loop()
    work = mz.aio.call(until_stopped, handle)
    task = loop.create_task(work)
    loop.run_until_complete(asyncio.sleep(0.02))
    loop.close()
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    work.close()
    assert handle.closed.wait(10)
    assert asyncio.run(fill_the_room()) == mz.aio.MOST


def test_nothing_of_a_call_is_kept() -> None:
    class Thing:
        pass

    class Stop(Exception):
        pass

    def fail(error: Exception) -> None:
        raise error

    async def main() -> list[object]:
        thing, error = Thing(), Stop()
        left = [weakref.ref(thing), weakref.ref(error)]
        assert await mz.aio.call(lambda given: given, thing) is thing
        with pytest.raises(Stop):
            await mz.aio.call(fail, error)
        error.__traceback__ = None
        del thing, error
        return [ref() for ref in left]

    gc.disable()  # no cycle, either
    try:
        assert asyncio.run(main()) == [None, None]
    finally:
        gc.enable()


def test_a_child_made_by_fork_has_room_of_its_own() -> None:
    async def main() -> None:
        slow = Slow()
        everything = asyncio.gather(*(mz.aio.call(slow, number) for number in range(2 * mz.aio.MOST)))
        await soon(lambda: len(slow.began) == mz.aio.MOST)
        in_child(lambda: asyncio.run(fill_the_room()))
        slow.go.set()
        await everything

    asyncio.run(main())
