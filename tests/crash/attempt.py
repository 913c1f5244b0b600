# SPDX-License-Identifier: Apache-2.0
"""A process that calls a verb, to which something happens meanwhile, and that tells how the call ended."""

from __future__ import annotations

import errno
import gc
import os
import pickle
import re
import select
import signal
import struct
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any

import attrs

import mizarnet as mz
from mizarnet._kernel.closing import Closing
from tests.crash.ground import Ground
from tests.crash.verbs import Verb
from tests.support.injector import Fault, begin, end

SECONDS = 60.0
"""A call that takes longer hangs."""
_WAITING = "thread mizarnet-call"
_LENGTH = struct.Struct("=I")
_AGAIN, _OVER = b"a", b"o"
_LIBRARY = "/mizarnet/"
_ON_THE_WAY = {
    "_model/public.py",
    "_kernel/jobs.py",
    "_kernel/threads.py",
    "_kernel/netlink/session.py",
    "_kernel/netlink/_worker.py",
}
_WORD = re.compile(r"\bE[A-Z0-9]{2,}\b")


@attrs.frozen
class Ended:
    """How a call ended.

    Attributes:
        error: Name of its error; None: it succeeded.
        text: The error, with the lines of the library that it came through.
        typed: Whether the error is of the library's tree.
        interrupted: Whether it is that of a signal.
        absent: Whether it says that there is no such object.
        numbers: Names of the error numbers that the error, its notes and its parts tell.
        leaked: Descriptors and threads that a failed call left behind.
    """

    error: str | None = None
    text: str = ""
    typed: bool = True
    interrupted: bool = False
    absent: bool = False
    numbers: frozenset[str] = frozenset()
    leaked: tuple[str, ...] = ()

    @classmethod
    def by(cls, error: BaseException, leaked: tuple[str, ...] = ()) -> Ended:
        """Ended by an error."""
        return cls(
            error=type(error).__name__,
            text="\n".join(_told(error)),
            typed=isinstance(error, mz.MizarnetError),
            interrupted=isinstance(error, KeyboardInterrupt),
            absent=isinstance(error, mz.NotFoundError),
            numbers=frozenset(_numbers(error)),
            leaked=leaked,
        )


def ended(call: Callable[[], object], *, by: type[BaseException] = Exception) -> tuple[Ended, object]:
    """Call it here; how it ended, if it is with nothing or an error of that type, and its result."""
    try:
        return Ended(), call()
    except by as error:  # is what the judge looks at
        return Ended.by(error), None


def _told(error: BaseException) -> Iterator[str]:
    yield f"{type(error).__name__}: {error}"
    yield from getattr(error, "__notes__", ())
    for part in getattr(error, "failed", {}).values():
        yield from _told(part)
    frames = traceback.extract_tb(error.__traceback__)
    places = [
        (each.filename.rpartition(_LIBRARY)[2], each.lineno) for each in frames if _LIBRARY in each.filename
    ]
    yield " > ".join(f"{name}:{line}" for name, line in places if name not in _ON_THE_WAY)


def _numbers(error: BaseException) -> Iterator[str]:
    """What a caller can see: the error, its notes, and the errors of single items."""
    text = " ".join([str(error), *getattr(error, "__notes__", ())])
    yield from _WORD.findall(text)
    number = getattr(error, "errno", None)
    if isinstance(number, int):
        yield errno.errorcode.get(number, str(number))
    if isinstance(error, PermissionError) or "not permitted" in text:
        yield "EPERM"
    for part in getattr(error, "failed", {}).values():
        yield from _numbers(part)


class Attempt(Closing):
    """The process, followed by the injector while it calls."""

    def __init__(self, ground: Ground, verb: Verb, fault: Fault | None) -> None:
        """Let it begin, and return when it is about to call; without a fault nobody follows."""
        self._undo = ExitStack()
        self._told: list[str] | None = None
        self._from_child, told = os.pipe()
        orders, self._to_child = os.pipe()
        self.process = os.fork()
        if self.process == 0:
            os.close(self._from_child)
            os.close(self._to_child)
            _live(ground, verb, told, orders)
        os.close(told)
        os.close(orders)
        self._undo.callback(self._end)
        try:
            assert self._receive(1), f"{verb.name} cannot be prepared"
            self._tracer = fault and self._undo.enter_context(ground.injector.following(self.process, fault))
            self._undo.callback(self._end)  # first of all: who follows a process waits for its end
        except BaseException:
            self._end()
            raise
        self._order(_AGAIN)

    def outcome(self) -> Ended | None:
        """How the call ended; None if the process died."""
        head = self._receive(_LENGTH.size)
        if not head:
            return None
        found = pickle.loads(self._receive(*_LENGTH.unpack(head)))
        assert isinstance(found, Ended)
        return found

    def again(self) -> Ended | None:
        """The same call by the same process, with the same handle; how it ended."""
        self._order(_AGAIN)
        return self.outcome()

    def told(self) -> list[str]:
        """End the process; at which call something happened, or all calls."""
        self._end()
        if self._told is None:
            self._told = (
                [] if self._tracer is None else self._tracer.communicate(timeout=SECONDS)[0].splitlines()
            )
        return self._told

    def close(self) -> None:
        """End the process."""
        self._undo.close()

    def _order(self, order: bytes) -> None:
        with suppress(BrokenPipeError):
            os.write(self._to_child, order)

    def _receive(self, size: int) -> bytes:
        data = b""
        deadline = time.monotonic() + SECONDS
        while len(data) < size:
            ready, _, _ = select.select([self._from_child], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                os.kill(self.process, signal.SIGKILL)
                raise TimeoutError(f"the call did not end within {SECONDS:g} s")
            part = os.read(self._from_child, size - len(data))
            if not part:
                return b""
            data += part
        return data

    def _end(self) -> None:
        if self._to_child < 0:
            return
        self._order(_OVER)
        os.close(self._to_child)
        self._to_child = -1
        os.close(self._from_child)
        os.waitpid(self.process, 0)


# -- in the process ----------------------------------------------------------------------------------------


def _live(ground: Ground, verb: Verb, told: int, orders: int) -> None:
    status = 1
    gc.freeze()  # what was imported needs no look at each collection
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGUSR1, _fork)
        _obey(ground, verb, told, orders)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _obey(ground: Ground, verb: Verb, told: int, orders: int) -> None:
    handle = verb.prepare(ground)
    before = _held()
    os.write(told, b"b")
    os.read(orders, 1)
    found, result = _followed(verb, handle)
    if found.error is not None:
        found = attrs.evolve(found, leaked=tuple(_leaked(before)))
    _tell(told, found)
    while os.read(orders, 1) == _AGAIN:
        found, result = ended(lambda: verb.call(handle), by=BaseException)
        _tell(told, found)
    del result


def _followed(verb: Verb, handle: Any) -> tuple[Ended, object]:
    """The call, between the two marks; an interrupt may come as late as behind them."""
    try:
        begin()
        found = ended(lambda: verb.call(handle), by=BaseException)
        end()
        signal.signal(signal.SIGINT, lambda *_: None)  # one that comes later has nothing to interrupt
    except KeyboardInterrupt as late:
        end()
        return Ended.by(late), None
    return found


def _tell(told: int, found: Ended) -> None:
    data = pickle.dumps(found)
    os.write(told, _LENGTH.pack(len(data)) + data)


def _held() -> list[str]:
    descriptors = [os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd") if _is_open(n)]
    return [*descriptors, *(f"thread {each.name}" for each in threading.enumerate())]


def _is_open(number: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{number}")


def _leaked(before: list[str]) -> list[str]:
    """What is held now and was not before, but for a thread that waits for a call; others get a moment to end."""
    if _WAITING not in before:
        before = [*before, _WAITING]
    gc.collect()
    for _ in range(20):
        now = _held()
        for each in before:
            if each in now:
                now.remove(each)
        if not now:
            return []
        time.sleep(0.005)
    return now


def _fork(number: int, frame: object) -> None:
    """Make a child that has all descriptors of this process, and lives until this process ends."""
    waiting, held = os.pipe()
    if os.fork() == 0:
        os.close(held)
        os.read(waiting, 1)
        os._exit(0)
    os.close(waiting)
