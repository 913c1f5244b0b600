# SPDX-License-Identifier: Apache-2.0
"""Calls of this library from asyncio: ``await mz.aio.call(mz.Endpoint.create, agent, vni=7, ip="10.0.0.9/24")``.

All functions and methods of the library block. :func:`call` makes any of them on a thread, and gives the event loop
what asyncio's own ``to_thread`` does not: a task that is cancelled ends when its call has ended, so that nothing goes
on unseen, and nothing is left half made.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import ExitStack, suppress
from functools import partial
from types import FrameType
from typing import Any, ParamSpec, TypeVar

from mizarnet._kernel.jobs import Job, is_whole
from mizarnet._model.public import public
from mizarnet.errors import InvalidTypeError

__all__ = ["MOST", "call"]

P = ParamSpec("P")
T = TypeVar("T")

MOST = 8
"""Number of calls that run at the same time in this process; more of them wait for their turn, in order."""


@public
def call(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]:
    """Make a call that blocks on a thread of this library, and await its end.

    The thread has the task's context variables, and the network namespace of the event loop's thread. It belongs to
    this library: asyncio's default executor is neither used nor held up. After a fork the child has threads of its own.

    A task that is cancelled, also by ``asyncio.timeout`` or by the end of ``asyncio.run``, gets its ``CancelledError``
    when the call has ended. A call that still waits for its turn never begins. One that waits for the host's lock gives
    up. ``Endpoint.create_many`` ends after the endpoint that it is at, ``delete_many`` after up to 256 that it deletes
    together, ``Events.read`` and ``Events.write_pcapng`` within 0.1 s. Any other call comes to its end. What it
    returned, such as the handle of a tunnel, is closed if it can be.

    Args:
        function: Any function or method that blocks. ``next`` needs a default: no coroutine can raise
            ``StopIteration``, which becomes a ``RuntimeError``.
        args: Its arguments.
        kwargs: Its keyword arguments.

    Returns:
        What ``function`` returns, when it is awaited.

    Raises:
        InvalidTypeError: ``function`` cannot be called, or is a coroutine function; raised at once.
        KernelError: There are too many threads (EAGAIN); when it is awaited, as the errors of ``function`` are.
    """
    if not callable(function) or inspect.iscoroutinefunction(function):
        raise InvalidTypeError(
            f"function must be one that blocks, not {function!r}",
            argument="function",
            hint="await mz.aio.call(function, *args, **kwargs): the function, and what it is called with",
        )
    return _call(partial(function, *args, **kwargs), inspect.currentframe())


async def _call(work: Callable[[], T], caller: FrameType | None) -> T:
    # A call that itself uses asyncio has a place already; if all of them had to wait for another, none would go on.
    loop, room = asyncio.get_running_loop(), _Room(1) if is_whole() else _room
    await room.enter(loop)
    job: Job[T] = Job()
    ended: asyncio.Future[None] = loop.create_future()
    try:
        with ExitStack() as undo:
            undo.callback(room.leave)
            job.begin(work, partial(_end, loop, ended, room), caller=caller)
            undo.pop_all()
        await asyncio.wait((ended,))
        return job.outcome.result()
    except asyncio.CancelledError:
        job.abandon()
        while not ended.done():  # whatever comes meanwhile: the call must not go on unseen
            with suppress(asyncio.CancelledError):
                await asyncio.wait((ended,))
        raise
    except GeneratorExit:  # the loop was closed under the task, which cannot wait
        job.abandon()
        raise
    finally:
        del job  # an error's traceback refers to this frame


def _end(loop: asyncio.AbstractEventLoop, ended: asyncio.Future[None], room: _Room) -> None:
    """Tell the loop, from the call's thread."""
    with suppress(RuntimeError):  # it is closed
        loop.call_soon_threadsafe(_set, ended)
    room.leave()


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class _Room:
    """Room for some calls at a time, of all event loops. Those that find none wait in the queue of their loop.

    A free place belongs to nobody until the loop of who waits runs: one that was stopped keeps none from others.
    """

    def __init__(self, most: int) -> None:
        self._lock = threading.Lock()
        self._free = most
        self._waiting: dict[asyncio.AbstractEventLoop, deque[asyncio.Future[None]]] = {}
        self._called: set[asyncio.AbstractEventLoop] = set()

    async def enter(self, loop: asyncio.AbstractEventLoop) -> None:
        """Take a place, or wait for one."""
        with self._lock:
            if self._free and loop not in self._waiting:
                self._free -= 1
                return
            turn: asyncio.Future[None] = loop.create_future()
            self._waiting.setdefault(loop, deque()).append(turn)
        try:
            await turn
        except BaseException:  # the task was cancelled, or its loop closed
            self._withdraw(loop, turn)
            raise

    def _withdraw(self, loop: asyncio.AbstractEventLoop, turn: asyncio.Future[None]) -> None:
        """Leave the queue, or the place if the turn has come meanwhile."""
        if turn.done() and not turn.cancelled():
            self.leave()
            return
        with self._lock, suppress(KeyError, ValueError):  # its turn was passed over
            self._waiting[loop].remove(turn)

    def leave(self) -> None:
        """Give the place up, from any thread."""
        with self._lock:
            self._free += 1
            for loop in [*self._waiting]:
                if loop.is_closed():
                    del self._waiting[loop]
                    self._called.discard(loop)
                elif loop not in self._called:
                    with suppress(RuntimeError):  # it is closed just now
                        loop.call_soon_threadsafe(self._admit, loop)
                        self._called.add(loop)

    def _admit(self, loop: asyncio.AbstractEventLoop) -> None:
        """Give the places that are free to those who wait in a loop, in order."""
        with self._lock:
            self._called.discard(loop)
            turns = self._waiting[loop]
            while turns and (self._free or turns[0].done()):
                turn = turns.popleft()
                if not turn.done():  # its task was not cancelled
                    self._free -= 1
                    turn.set_result(None)
            if not turns:
                del self._waiting[loop]


_room = _Room(MOST)


def _after_fork() -> None:
    """Forget the calls of the parent, whose threads a child does not have."""
    global _room
    _room = _Room(MOST)


os.register_at_fork(after_in_child=_after_fork)
