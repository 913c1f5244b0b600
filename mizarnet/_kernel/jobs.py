# SPDX-License-Identifier: Apache-2.0
"""Calls that no signal ends halfway.

Python runs signal handlers on the main thread, between any two steps of its code. The exception of one (Ctrl-C, or a
SIGTERM handler that raises) could come between a change in the kernel and the note of it: a lock that nobody lets go, a
device that no record names. So a call that changes something runs on another thread, where no handler runs, and the
main thread waits for its end, whatever signals it gets meanwhile.
"""

from __future__ import annotations

import functools
import inspect
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from types import FrameType
from typing import Any, Generic, ParamSpec, TypeVar

import attrs

from mizarnet._kernel.runners import runner
from mizarnet._kernel.threads import fulfil
from mizarnet.errors import KernelError

P = ParamSpec("P")
T = TypeVar("T")

_LATE = 0.1
"""Time in seconds by which a signal's handler may be late during a call, at most."""


@attrs.frozen
class _Order:
    """What a call on another thread knows of the one that waits for it.

    Attributes:
        caller: Frame that the call came through, for warnings.
        stop: Set when the caller waits for nothing but its end.
    """

    caller: FrameType | None
    stop: threading.Event


class _Here(threading.local):
    """What the calling thread works under: of the thread, and not of a context, which others may copy and keep."""

    order: _Order | None = None


_here = _Here()


def _under(order: _Order | None, work: Callable[[], T]) -> T:
    before, _here.order = _here.order, order
    try:
        return work()
    finally:
        _here.order = before


def _ordered(
    work: Callable[[], T], caller: FrameType | None, stop: threading.Event | None = None
) -> Callable[[], T]:
    """``work`` as it is to be called, in a copy of the caller's context."""
    order = _Order(caller, stop or threading.Event())
    return partial(_under, order, partial(copy_context().run, work))


def carried(work: Callable[[], T]) -> Callable[[], T]:
    """``work`` for another thread, as a part of the call that the calling thread works for."""
    return partial(_under, _here.order, work)


class Job(Generic[T]):
    """A call on another thread, in a copy of the caller's context.

    Attributes:
        outcome: Result or error of the call.
    """

    def __init__(self) -> None:
        self.outcome: Future[T] = Future()
        self._stop = threading.Event()

    def begin(
        self, work: Callable[[], T], then: Callable[[], object], *, caller: FrameType | None = None
    ) -> None:
        """Run ``work`` on another thread, and ``then`` when it has ended and nothing there refers to it any more.

        Args:
            work: The call.
            then: What must not raise.
            caller: Frame that the call came through, for warnings.

        Raises:
            KernelError: There are too many threads (EAGAIN).
        """
        runner().run(partial(fulfil, self.outcome, _ordered(work, caller, self._stop)), then)

    def abandon(self) -> None:
        """Have it end early, or never begin. What it returns is closed, if it can be, since nobody gets it."""
        if not self.outcome.cancel():
            self._stop.set()
            self.outcome.add_done_callback(_discard)


def whole(function: Callable[P, T]) -> Callable[P, T]:
    """A function that a signal does not end halfway: its caller gets the signal's exception when it has ended.

    A second signal ends the wait; the call then goes on by itself.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        work = partial(function, *args, **kwargs)
        if is_whole():
            return work()  # a part of another
        if threading.current_thread() is not threading.main_thread():
            return _ordered(work, inspect.currentframe())()  # no signal handler runs here
        return _run(work, inspect.currentframe())

    return call


def is_whole() -> bool:
    """Whether this is part of a call that is not ended halfway, so that each of its steps is waited for to its end."""
    return _here.order is not None


def stopping() -> bool:
    """Whether the caller of the present job wants no more than its end: long ones end early, with nothing half done."""
    order = _here.order
    return order is not None and order.stop.is_set()


def calling_frame() -> FrameType | None:
    """Frame of the call that the present job is for; None outside of a job."""
    order = _here.order
    return None if order is None else order.caller


def _run(work: Callable[[], T], caller: FrameType | None) -> T:
    if sys.is_finalizing():  # no other thread runs any more
        return _ordered(work, caller)()
    job: Job[T] = Job()
    gate = _Gate()
    try:
        try:
            job.begin(work, gate.open, caller=caller)
        except KernelError:  # too many threads, or the interpreter is about to end
            return _ordered(work, caller)()
        gate.wait()
        return job.outcome.result()
    except BaseException as error:
        if not (job.outcome.done() and job.outcome.exception() is error):  # it is a signal's
            job.abandon()
            if not job.outcome.cancelled():
                gate.wait()
        raise
    finally:
        del job  # the error's traceback refers to this frame


class _Gate:
    """What the main thread waits at until a call has ended, whatever signals come.

    As opposed to a ``Condition``, nothing is left locked by the exception of a signal handler. The wait has a limit
    since Python does not wake the main thread for a signal that comes at the moment when it falls asleep.
    """

    def __init__(self) -> None:
        self._is_open = False
        self._lock = threading.Lock()
        self._lock.acquire()

    def open(self) -> None:
        """Let the main thread pass; once."""
        self._is_open = True
        self._lock.release()

    def wait(self) -> None:
        """Wait until it is open."""
        while not self._is_open:
            self._lock.acquire(timeout=_LATE)


def _discard(outcome: Future[Any]) -> None:
    """Close what nobody gets any more."""
    if outcome.exception() is None:
        close = getattr(outcome.result(), "close", None)
        if close is not None:
            with suppress(Exception):  # nobody gets it, either
                close()
