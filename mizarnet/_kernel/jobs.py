# SPDX-License-Identifier: Apache-2.0
"""Calls that no signal ends halfway.

Python runs signal handlers on the main thread, between any two steps of its code. The exception of one (Ctrl-C, or a
SIGTERM handler that raises) could come between a change in the kernel and the note of it: a lock that nobody lets go, a
device that no record names. So a call that changes something runs on a thread of its own, where no handler runs, and
the main thread waits for its end, whatever signals it gets meanwhile.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import suppress
from contextvars import ContextVar, copy_context
from functools import partial
from types import FrameType
from typing import Any, ParamSpec, TypeVar

import attrs

from mizarnet._kernel.threads import fulfil, start
from mizarnet.errors import KernelError

P = ParamSpec("P")
T = TypeVar("T")


@attrs.frozen
class _Job:
    """A call on a thread of its own.

    Attributes:
        caller: Frame that the call came through, for warnings.
        stop: Set when the caller waits for nothing but its end.
    """

    caller: FrameType | None
    stop: threading.Event


_job: ContextVar[_Job | None] = ContextVar("job", default=None)


def whole(function: Callable[P, T]) -> Callable[P, T]:
    """A function that a signal does not end halfway: its caller gets the signal's exception when it has ended.

    A second signal ends the wait; the call then goes on by itself.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        work = partial(function, *args, **kwargs)
        if is_whole():
            return work()  # a part of another
        job = _Job(inspect.currentframe(), threading.Event())
        if threading.current_thread() is not threading.main_thread():
            return _inside(job, work)()  # no signal handler runs here
        return _run(work, job)

    return call


def is_whole() -> bool:
    """Whether this is part of a call that is not ended halfway, so that each of its steps is waited for to its end."""
    return _job.get() is not None


def stopping() -> bool:
    """Whether the caller of the present job wants no more than its end: long ones end early, with nothing half done."""
    job = _job.get()
    return job is not None and job.stop.is_set()


def calling_frame() -> FrameType | None:
    """Frame of the call that the present job is for; None outside of a job."""
    job = _job.get()
    return None if job is None else job.caller


def _inside(job: _Job, work: Callable[[], T]) -> Callable[[], T]:
    context = copy_context()
    context.run(_job.set, job)
    return partial(context.run, work)


def _run(work: Callable[[], T], job: _Job) -> T:
    future: Future[T] = Future()
    # daemon: a call that the kernel never ends must not hold up the process's exit.
    thread = threading.Thread(
        target=fulfil, args=(future, _inside(job, work)), name="mizarnet-call", daemon=True
    )
    try:
        try:
            start(thread)
        except KernelError:  # too many threads, or the interpreter is about to end
            return work()
        thread.join()
        return future.result()
    except BaseException as error:
        is_own = future.done() and future.exception() is error
        if not is_own and not future.cancel():  # it is a signal's, and the thread has begun
            job.stop.set()
            wait([future])
            _discard(future)
        raise
    finally:
        del future  # the error's traceback refers to this frame


def _discard(future: Future[Any]) -> None:
    """Close what nobody gets any more; the signal's exception is the one to raise."""
    with suppress(Exception):
        close = getattr(future.result(), "close", None)
        if close is not None:
            close()
