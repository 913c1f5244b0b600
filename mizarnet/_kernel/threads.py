# SPDX-License-Identifier: Apache-2.0
"""Calls on other threads: only a thread of its own may enter a namespace without taking the caller along."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from mizarnet.errors import KernelError

T = TypeVar("T")


def call_in_thread(work: Callable[[], T], *, name: str) -> T:
    """Call ``work`` on a new thread, which ends with it, and return its result or raise its error."""
    future: Future[T] = Future()
    thread = threading.Thread(target=fulfil, args=(future, work), name=name)
    start(thread)
    thread.join()
    try:
        return future.result()
    finally:
        del future  # the error's traceback refers to this frame


def start(thread: threading.Thread) -> None:
    """Start a thread; raises ``KernelError`` (EAGAIN) if there are too many."""
    try:
        thread.start()
    except RuntimeError as refused:
        raise KernelError(
            f"start a thread: {refused}",
            errno=errno.EAGAIN,
            hint="raise the limit of threads (ulimit -u, pids.max)",
        ) from None


def fulfil(future: Future[T], work: Callable[[], T]) -> None:
    """Call ``work`` for whoever waits for the future, unless it was cancelled."""
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(work())
    except BaseException as error:  # belongs to the one who waits
        future.set_exception(error)
    finally:
        del future  # the error's traceback refers to this frame
