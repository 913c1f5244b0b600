# SPDX-License-Identifier: Apache-2.0
"""Calls on other threads: only a thread of its own may enter a namespace without taking the caller along."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def call_in_thread(work: Callable[[], T], *, name: str) -> T:
    """Call ``work`` on a new thread, which ends with it, and return its result or raise its error."""
    future: Future[T] = Future()
    thread = threading.Thread(target=fulfil, args=(future, work), name=name)
    thread.start()
    thread.join()
    try:
        return future.result()
    finally:
        del future  # the error's traceback refers to this frame


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
