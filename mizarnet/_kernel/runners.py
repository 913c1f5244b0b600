# SPDX-License-Identifier: Apache-2.0
"""Threads that run calls of others, one after the other, of which one is kept for the next call.

Starting a thread takes as long as a short call does. A kept one has what a new thread would have from its caller, such
as the network namespace: it is used again only by a thread that still has the same.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import TypeAlias

from mizarnet._kernel.capabilities import capability_sets
from mizarnet._kernel.threads import start

NAME = "mizarnet-call"
"""Name of each of these threads."""

_Calls: TypeAlias = "SimpleQueue[tuple[Runner, Callable[[], object], Callable[[], object]] | None]"


class Runner:
    """A thread that runs calls. It ends when nobody refers to this object any more."""

    def __init__(self) -> None:
        """Start the thread; raises ``KernelError`` (EAGAIN) if there are too many."""
        self.traits: object = _traits()
        self._calls: _Calls = SimpleQueue()
        # daemon: a call that the kernel never ends must not hold up the process's exit.
        start(threading.Thread(target=_live, args=(self._calls,), name=NAME, daemon=True))

    def run(self, call: Callable[[], object], then: Callable[[], object]) -> None:
        """Run ``call`` on the thread, let go of it, and run ``then``; returns at once. Neither may raise."""
        self._calls.put((self, call, then))

    def __del__(self) -> None:
        with suppress(AttributeError):  # an interrupt may have cut its making off
            self._calls.put(None)  # never blocks, and is safe in a finaliser


_kept: deque[Runner] = deque(maxlen=1)


def runner() -> Runner:
    """The thread that was kept, or another if it is busy or no longer like the calling thread.

    Only one atomic step takes it: a signal handler may run between any two, and make a call of its own.
    """
    with suppress(IndexError):
        kept = _kept.pop()
        if kept.traits == _traits():
            return kept
    return Runner()


# A child made by fork has the object, and not the thread.
os.register_at_fork(after_in_child=_kept.clear)


def _live(calls: _Calls) -> None:
    while (item := calls.get()) is not None:
        this, call, then = item
        del item
        call()
        del call
        _kept.append(this)  # one that was kept already ends
        del this
        then()
        del then


def _traits() -> object:
    """What a new thread has from the thread that starts it, as far as a call's outcome or speed depends on it."""
    try:
        namespaces = [os.readlink(f"/proc/thread-self/ns/{kind}") for kind in ("net", "mnt")]
    except OSError:
        return object()  # like no other: nothing is kept where /proc does not tell
    return (
        namespaces,
        capability_sets(),
        os.sched_getscheduler(0),
        os.sched_getparam(0).sched_priority,
        os.sched_getaffinity(0),
    )
