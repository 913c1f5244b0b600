# SPDX-License-Identifier: Apache-2.0
"""Calls on another thread: which one, with what, and what is left of them."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import weakref
from collections.abc import Iterator

import pytest

import mizarnet as mz
from mizarnet._kernel import runners
from mizarnet._kernel.jobs import Job, carried, is_whole, stopping, whole
from tests.support.process import in_child
from tests.support.wait import wait_until


@whole
def where() -> threading.Thread:
    return threading.current_thread()


def _alive() -> int:
    return sum(thread.name == runners.NAME for thread in threading.enumerate())


@pytest.fixture(autouse=True)
def one_at_most() -> Iterator[None]:
    """Whatever a test does: in the end, one thread is there at most."""
    yield
    wait_until(lambda: _alive() <= 1, lambda: f"{_alive()} threads are left")


def test_calls_of_the_main_thread_share_another() -> None:
    first = where()
    assert first is not threading.main_thread()
    assert [where() for _ in range(20)] == [first] * 20


def test_a_call_of_another_thread_stays_there() -> None:
    seen: list[object] = []
    thread = threading.Thread(target=lambda: seen.append(where()))
    thread.start()
    thread.join()
    assert seen == [thread]


def test_a_call_within_the_call_stays_there() -> None:
    outer = whole(lambda: (threading.current_thread(), where()))
    assert len(set(outer())) == 1


def test_a_call_of_a_signal_handler_during_a_call_has_a_thread_of_its_own() -> None:
    inner: list[threading.Thread] = []
    answered = threading.Event()

    def handler(number: int, frame: object) -> None:
        inner.append(where())
        answered.set()

    @whole
    def outer() -> threading.Thread:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert answered.wait(10)
        return threading.current_thread()

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        assert outer() not in [threading.main_thread(), *inner]
    finally:
        signal.signal(signal.SIGUSR1, before)


class Stop(Exception):
    """What a handler raises."""


def test_what_a_second_signal_leaves_running_ends_by_itself_and_is_closed() -> None:
    go, closed = threading.Event(), threading.Event()

    class Handle:
        def close(self) -> None:
            closed.set()

    def handler(number: int, frame: object) -> None:
        raise Stop

    @whole
    def slow() -> Handle:
        os.kill(os.getpid(), signal.SIGUSR1)
        wait_until(stopping)
        os.kill(os.getpid(), signal.SIGUSR1)
        assert go.wait(10)
        return Handle()

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with pytest.raises(Stop):
            slow()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert where().is_alive()  # the next call does not wait for that one
    assert not closed.is_set()
    go.set()
    assert closed.wait(10)


def test_nothing_of_a_call_is_kept() -> None:
    class Thing:
        pass

    @whole
    def give(thing: Thing) -> Thing:
        return thing

    @whole
    def fail(error: Stop) -> None:
        raise error

    gc.disable()  # no cycle, either
    try:
        thing, error = Thing(), Stop()
        left = [weakref.ref(thing), weakref.ref(error)]
        assert give(thing) is thing
        with pytest.raises(Stop):
            fail(error)
        error.__traceback__ = None
        del thing, error
        assert [ref() for ref in left] == [None, None]
    finally:
        gc.enable()


def test_the_context_is_the_callers_and_a_change_of_it_the_calls_own() -> None:
    number = contextvars.ContextVar("number", default=0)

    @whole
    def read_and_set() -> int:
        found = number.get()
        number.set(99)
        return found

    number.set(1)
    assert read_and_set() == 1
    number.set(2)
    assert read_and_set() == 2
    assert number.get() == 2


def test_a_thread_that_is_unlike_the_callers_is_not_used() -> None:
    """A new thread has the scheduling, the capabilities and the namespaces of the one that starts it."""
    before, first = os.sched_getaffinity(0), where()
    other = set([*before][:1]) if len(before) > 1 else before
    os.sched_setaffinity(0, other)
    try:
        assert whole(os.sched_getaffinity)(0) == other
        assert (where() is first) == (other == before)
    finally:
        os.sched_setaffinity(0, before)


def test_a_child_made_by_fork_starts_its_own() -> None:
    where()

    def check() -> None:
        assert where() is not threading.current_thread()
        assert whole(lambda: 7)() == 7

    in_child(check)


def test_a_job_that_was_abandoned_before_it_began_never_begins() -> None:
    began: list[bool] = []
    job: Job[None] = Job()
    job.abandon()
    ended = threading.Event()
    job.begin(lambda: began.append(True), ended.set)
    assert ended.wait(10)
    assert not began


@pytest.mark.parametrize("when", ["atexit", "module"])
def test_calls_at_the_end_of_the_interpreter(when: str) -> None:
    """Handlers of the exit may make calls, and finalisers after it, when no other thread runs any more."""
    program = """
        import atexit, os, sys
        from mizarnet._kernel.jobs import whole

        call = whole(os.write)
        call(1, b"during ")

        class Last:
            def __del__(self, call=call, finalizing=sys.is_finalizing, write=os.write):
                call(1, b"after " if finalizing() else b"too early ")

        if sys.argv[1] == "atexit":
            atexit.register(call, 1, b"at exit")
        else:
            last = Last()
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), when], capture_output=True, text=True, timeout=60
    )
    expected = {"atexit": "during at exit", "module": "during after "}[when]
    assert (done.returncode, done.stdout, done.stderr) == (0, expected, "")


def test_what_a_call_works_under_is_of_its_thread_and_of_those_that_work_for_it() -> None:
    """A context is copied by whoever makes a task or a callback, and kept long after the call."""
    contexts: list[contextvars.Context] = []
    elsewhere: list[bool] = []

    @whole
    def call() -> None:
        contexts.append(contextvars.copy_context())
        for work in (is_whole, carried(is_whole)):
            thread = threading.Thread(target=lambda work=work: elsewhere.append(work()))
            thread.start()
            thread.join()

    call()
    assert elsewhere == [False, True]
    assert not is_whole()
    assert not contexts[0].run(is_whole)


def test_calls_from_asyncio_may_use_asyncio_themselves() -> None:
    """More of them than there are threads: the inner ones need none of the places that the outer ones have."""

    def facade() -> int:
        return asyncio.run(mz.aio.call(os.getpid))

    async def main() -> list[int]:
        return await asyncio.gather(*(mz.aio.call(facade) for _ in range(2 * mz.aio.MOST)))

    assert asyncio.run(asyncio.wait_for(main(), 30)) == [os.getpid()] * 2 * mz.aio.MOST
