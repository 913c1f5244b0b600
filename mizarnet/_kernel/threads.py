# SPDX-License-Identifier: Apache-2.0
"""Calls on other threads: only a thread of its own may enter a namespace without taking the caller along."""

from __future__ import annotations

import _thread
import errno
import math
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from mizarnet.errors import KernelError

T = TypeVar("T")

_LATE = 0.1
"""Time in seconds by which a signal's handler may be late during a wait, at most."""


class Gate:
    """What one thread waits at until another opens it.

    As opposed to a ``Condition``, nothing is left locked by the exception of a signal handler, which may come between
    any two steps of the main thread. The wait is one of short ones since Python does not wake the main thread for a
    signal that comes at the moment when it falls asleep.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        self.is_open = False

    def open(self) -> None:
        """Let the other thread pass; once."""
        self.is_open = True
        self._lock.release()

    def wait(self, seconds: float = math.inf) -> bool:
        """Wait until it is open, for no longer than ``seconds``; returns whether it is."""
        end = time.monotonic() + seconds
        while not self.is_open and (left := end - time.monotonic()) > 0:
            self._lock.acquire(timeout=min(left, _LATE))
        return self.is_open


class Pending(Generic[T]):
    """What becomes of a call on another thread: its result, its error, or that it was taken back before it began.

    As opposed to a ``Future``, it is safe from signals, as a :class:`Gate` is: whatever step of who waits for it one of
    them ends, the call's thread goes on.

    Attributes:
        error: What the call raised; None before its end.
        cancelled: Whether it was taken back.
    """

    _result: T

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.cancelled: bool = False
        self._begun = threading.Lock()  # of the call's thread or of who takes it back: whoever comes first
        self._ended = Gate()

    @property
    def done(self) -> bool:
        """Whether the call has ended."""
        return self._ended.is_open

    def wait(self, seconds: float = math.inf) -> bool:
        """Wait for its end, for no longer than ``seconds``; returns whether it has ended."""
        return self._ended.wait(seconds)

    def result(self) -> T:
        """Its result, when it has ended; raises its error."""
        try:
            if self.error is not None:
                raise self.error
            return self._result
        finally:
            del self  # the error's traceback refers to this frame

    def cancel(self) -> bool:
        """Take it back; returns whether it will never begin."""
        self.cancelled = self.cancelled or self._begun.acquire(blocking=False)
        return self.cancelled

    def fulfil(self, work: Callable[[], T]) -> None:
        """Call ``work`` for whoever waits, unless it was taken back."""
        if not self._begun.acquire(blocking=False):
            return
        try:
            self._result = work()
        except BaseException as error:  # belongs to the one who waits
            self.error = error
        finally:
            self._ended.open()
            del self  # the error's traceback refers to this frame


def call_in_thread(work: Callable[[], T], *, name: str) -> T:
    """Call ``work`` on a new thread, which ends with it, and return its result or raise its error."""
    pending: Pending[T] = Pending()
    thread = threading.Thread(target=pending.fulfil, args=(work,), name=name)
    start(thread)
    thread.join()
    try:
        return pending.result()
    finally:
        del pending  # the error's traceback refers to this frame


def start(thread: threading.Thread) -> None:
    """Start a thread; raises ``KernelError`` (EAGAIN) if there are too many. After a signal's exception it may run."""
    try:
        if threading.current_thread() is threading.main_thread():
            started: Pending[None] = Pending()  # Thread.start() itself waits at a Condition
            _thread.start_new_thread(started.fulfil, (thread.start,))
            started.wait()
            started.result()
        else:
            thread.start()
    except RuntimeError as refused:
        raise KernelError(
            f"start a thread: {refused}",
            errno=errno.EAGAIN,
            hint="raise the limit of threads (ulimit -u, pids.max)",
        ) from None
