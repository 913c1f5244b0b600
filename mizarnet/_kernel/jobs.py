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
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from types import FrameType
from typing import Generic, ParamSpec, TypeVar

import attrs

from mizarnet._kernel.runners import runner
from mizarnet._kernel.threads import Gate, Pending
from mizarnet.errors import KernelError

P = ParamSpec("P")
T = TypeVar("T")


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
        self.outcome: Pending[T] = Pending()
        self._stop = threading.Event()
        self._discarded = threading.Lock()

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
        runner().run(partial(self._perform, _ordered(work, caller, self._stop)), then)

    def _perform(self, work: Callable[[], T]) -> None:
        self.outcome.fulfil(work)
        if self._stop.is_set():
            self._discard()

    def abandon(self) -> None:
        """Have it end early, or never begin. What it returns is closed, if it can be, since nobody gets it."""
        if not self.outcome.cancel():
            self._stop.set()
            if self.outcome.done:
                self._discard()

    def _discard(self) -> None:
        """Close what nobody gets any more, once: its end and the order to abandon it may come together."""
        if self._discarded.acquire(blocking=False) and self.outcome.error is None:
            close = getattr(self.outcome.result(), "close", None)
            if close is not None:
                with suppress(Exception):  # nobody gets it, either
                    close()


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
    gate = Gate()
    try:
        try:
            job.begin(work, gate.open, caller=caller)
        except KernelError:  # too many threads, or the interpreter is about to end
            return _ordered(work, caller)()
        gate.wait()
        return job.outcome.result()
    except BaseException as error:
        if job.outcome.error is not error:  # it is a signal's
            job.abandon()
            if not job.outcome.cancelled:
                gate.wait()
        raise
    finally:
        del job  # the error's traceback refers to this frame
