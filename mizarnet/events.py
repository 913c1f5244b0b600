# SPDX-License-Identifier: Apache-2.0
"""Events of an agent: what becomes of frames, while it happens."""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Self, final

from mizarnet._datapath.datapath import DataPath
from mizarnet._datapath.endpoints import LocalEndpoints
from mizarnet._datapath.readers import LEASE, ReaderPlace, new_owner
from mizarnet._kernel.bpf import Fd
from mizarnet._kernel.closing import Owner, refuse_forked
from mizarnet._kernel.jobs import stopping, whole
from mizarnet._kernel.refusals import explained
from mizarnet._kernel.threads import Gate, Pending, start
from mizarnet._model import arguments, layouts, pcapng
from mizarnet._model.arguments import IPAddress
from mizarnet._model.described import Described
from mizarnet._model.enumerations import Limit, Program
from mizarnet._model.event import Event, Interest, Whose, reader, unpack_event
from mizarnet._model.public import public
from mizarnet.errors import (
    ClosedError,
    EndpointNotFoundError,
    LockTimeoutError,
    MizarnetError,
    StaleHandleError,
)

if TYPE_CHECKING:
    import asyncio
    from types import TracebackType

_TICK = 0.05
"""Time in seconds after which events are noticed, at most: programs wake nobody."""
_RENEWAL = LEASE / 1e9 / 4
"""Time in seconds after which a lease is renewed."""
_LATE = 0.1
"""Time in seconds by which a reader that waits notices its end, at most."""
_IN_TURN = 64
"""Events that a task gets before others of its loop have their turn: a millisecond's work."""
_MOST_KNOWN = 4096  # endpoints whose names are kept
_slot, _instance = layouts.EVENT.reader("slot"), layouts.EVENT.reader("endpoint")
_EPOCH = datetime.fromtimestamp(0, UTC)


@public
@final
class Events(Described, Owner):
    """What becomes of frames on one host, told by the programs as it happens. Made by :meth:`TransitAgent.events`.

    It is for one thread at a time, though any, and the handler of a signal, may close it. It needs its agent's handle
    to stay open. Up to four readers of an agent get events at a time, each those that it asked for. Frames do not wait
    for readers: an event for which there is no room is counted in :attr:`lost`. A thread of this library says twice a
    second that the reader is still there; a process that is killed or stopped counts for two seconds more.

    Attributes:
        drops: Whether it is told of frames that were dropped.
        passes: Whether it is told of frames that went on.
        vni: VNI of the frames; None: any.
        endpoint: Name of the endpoint that the frames are from or to; None: any.
        address: Address that the frames are from or to; None: any.
        sample: Of so many frames on each CPU it is told of one.

    Raises:
        ClosedError: In each method but :meth:`close`, after :meth:`close` or after the agent's handle was closed.
        ForkedError: In the same methods, in a child of the process that made it.
        StaleHandleError: In the same methods: the agent was detached or replaced, or this process was stopped for so
            long that another reader has the place, or :meth:`Host.gc` took it.
        AgentNotFoundError: In the same methods: another program took agent and guard off every hook.
    """

    _DESCRIBED = ("drops", "passes", "vni", "endpoint", "address", "sample", "closed")

    def __init__(
        self, datapath: DataPath, place: ReaderPlace, interest: Interest, *, endpoint: str | None, at: str
    ) -> None:
        """Not for users: see :meth:`TransitAgent.events`."""
        self.drops: bool = interest.drops
        self.passes: bool = interest.passes
        self.vni: int | None = interest.vni
        self.endpoint: str | None = endpoint
        self.address: IPAddress | None = interest.address
        self.sample: int = interest.sample
        self._datapath = datapath
        self._place = place
        self._at = at
        self._pid = os.getpid()
        self._records: deque[bytes] = deque()
        self._date = place.clock.dates()
        self._known: dict[int, Whose] = {}
        self._given = 0
        self._waiting: set[asyncio.Future[None]] = set()
        self._lost = self._unknown = 0
        with explained("make an event descriptor"):
            descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._signal = Fd(descriptor, what="event descriptor")
        self._keeper = _Keeper(datapath, place, self._signal)
        try:
            self._keeper.start()
        except BaseException:
            self._signal.close()
            raise
        self._closed = False

    def read(self, timeout: float | None = None) -> Event | None:
        """Wait for an event, and take it.

        Args:
            timeout: Time to wait, in seconds; 0: not at all; None: until there is one.

        Returns:
            The event; None if none came in that time.

        Raises:
            InvalidValueError: ``timeout`` is negative, or more than 292 years.
            InvalidTypeError: ``timeout`` is no number.
        """
        limit = (
            None
            if timeout is None
            else time.monotonic() + arguments.check_seconds(timeout, argument="timeout")
        )
        while (event := self._take()) is None and not stopping():
            left = None if limit is None else limit - time.monotonic()
            if left is not None and left <= 0:
                return None
            self._wait(left)
        return event

    def __iter__(self) -> Self:
        """Events as they come, without an end but :meth:`close`."""
        return self

    def __next__(self) -> Event:
        try:
            event = self.read()
        except ClosedError:
            event = None
            if not self._closed:  # it is the agent's handle that was closed
                raise
        if event is None:
            raise StopIteration
        return event

    def __aiter__(self) -> Self:
        """Events as they come, for ``async for``, without an end but :meth:`close`."""
        return self

    async def __anext__(self) -> Event:
        import asyncio  # takes its time, which only those shall pay who use it

        while True:
            if not (self._records and self._given % _IN_TURN):
                await asyncio.sleep(0)  # in a flood there is always more: other tasks have their turn
            try:
                event = self._take()
            except ClosedError:
                if self._closed:
                    raise StopAsyncIteration from None
                raise
            if event is not None:
                self._given += 1
                return event
            await self._come(asyncio.get_running_loop())

    def fileno(self) -> int:
        """Descriptor that becomes readable within 0.05 s after an event, and stays so until all of them are read."""
        self._refuse_unusable()
        return self._signal.fileno()

    @property
    def lost(self) -> int:
        """Number of frames that it should have been told of, and was not; read from the kernel until it is closed.

        There was no room for them, more than 10,000 came on one CPU in a second, or programs of a newer version of this
        package have a verdict that this one does not know. Frames that ``sample`` leaves out are not among them.
        """
        if not self._closed:
            self._refuse_unusable()
            self._lost = self._place.lost()
        return self._lost + self._unknown

    def write_pcapng(
        self, path: str | os.PathLike[str], *, seconds: float | None = None, count: int | None = None
    ) -> int:
        """Write events into a capture file in the format pcapng, with verdict, VNI and endpoint as comments.

        The frames have at most their first 128 bytes. Whatever ends the call, what the file has by then can be read.

        Args:
            path: Path of the file; one that exists is overwritten.
            seconds: Time after which the file is complete, 0: with what is there; None: as long as it takes.
            count: Number of events after which it is complete; None: any. Without both it ends with an exception.

        Returns:
            Number of events that were written.

        Raises:
            InvalidValueError: ``seconds`` is negative, ``count`` is not positive, or ``path`` is none.
            InvalidTypeError: An argument has the wrong type.
            KernelError: The file cannot be written.
        """
        limit = (
            None
            if seconds is None
            else time.monotonic() + arguments.check_seconds(seconds, argument="seconds")
        )
        if count is not None:
            arguments.check_int(count, argument="count", low=1, high=2**63 - 1)
        where = arguments.check_path(path)
        self._refuse_unusable()
        written = 0
        with explained(f"write {where!r}"), open(where, "wb") as file:
            file.write(_beginning(self._at))
            file.flush()
            while written != count and not stopping():
                event = self.read(None if limit is None else max(limit - time.monotonic(), 0))
                if event is None:
                    break
                file.write(_block(event))
                written += 1
                if not self._records:
                    file.flush()
                    if limit is not None and time.monotonic() >= limit:
                        break  # there may always be more
        return written

    # -- inside

    def _refuse_unusable(self) -> None:
        if self._closed:
            raise ClosedError("this reader of events is closed", hint="agent.events() makes another one")
        refuse_forked(self._pid, "reader of events")

    def _take(self) -> Event | None:
        """The next event that is there; raises what ended the reader when there is none."""
        self._refuse_unusable()
        if not self._records and self._place.ring.has_records():
            self._drain()
        event = self._unpack()
        if event is None:
            self._keeper.refuse_ended()
        if not self._records and not self._place.ring.has_records():
            self._calm()
        return event

    def _calm(self) -> None:
        with suppress(OSError):  # it is calm, or closed
            os.eventfd_read(self._signal.fileno())
        if self._keeper.failure is not None:  # which is signalled once, and may have come meanwhile
            _call(self._signal)

    @whole
    def _drain(self) -> None:
        """Take what the ring has, of which the exception of a signal handler loses nothing on another thread."""
        if len(self._known) > _MOST_KNOWN:
            self._known.clear()
        self._date = self._place.clock.dates()
        self._records.extend(self._place.ring.consume())
        for slot, instance in {(_slot(each), _instance(each)) for each in self._records}:
            self._learn(slot, instance)
        if self._records:
            _call(self._signal)

    def _learn(self, slot: int, instance: int) -> None:
        """Read an endpoint, once for all events that are taken together; one that is gone stays as it was known."""
        with suppress(MizarnetError):
            found = self._place.whose(slot, instance)
            if found is not None:
                self._known[instance] = Whose(found.name, found.labels)

    def _unpack(self) -> Event | None:
        """The next event of those that were taken out of the ring: one at a time, which does not hold up a loop."""
        while self._records:
            event = unpack_event(self._records[0], at=self._at, date=self._date, whose=self._known.get)
            self._records.popleft()
            if event is not None:
                return event
            self._unknown += 1
        return None

    def _wait(self, seconds: float | None) -> None:
        waiting = select.poll()
        waiting.register(self._signal, select.POLLIN)
        waiting.poll(max(1, min(_LATE if seconds is None else seconds, _LATE) * 1000))

    async def _come(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wait until there is something to read, or the reader is closed."""
        came: asyncio.Future[None] = loop.create_future()
        self._waiting.add(came)
        loop.add_reader(self._signal, self._wake)
        try:
            await came
        finally:
            self._waiting.discard(came)
            if not self._waiting and not self._closed:
                loop.remove_reader(self._signal)

    def _wake(self) -> None:
        for each in self._waiting:
            _set(each)

    def _leave_loop(self) -> None:
        """Before the descriptor is closed: a loop that still knew it would mistake for it another one of its number."""
        for each in [*self._waiting]:
            loop = each.get_loop()
            with suppress(RuntimeError):  # it was closed, and nobody waits any more
                loop.remove_reader(self._signal)
                loop.call_soon_threadsafe(_set, each)

    @whole
    def close(self) -> None:
        """Give the place up; again is harmless. Who reads or waits comes to the end of the iteration."""
        super().close()

    def _release(self) -> None:
        with suppress(MizarnetError):
            self._lost = self._place.lost()
        if self._pid == os.getpid():  # a child shares what the parent's loop waits on
            self._leave_loop()
        self._release_forgotten()
        self._keeper.join()

    def _release_forgotten(self) -> None:
        self._keeper.end()

    def _caption(self) -> str:
        return f"Events of {self._datapath.name}"

    def __repr__(self) -> str:
        kinds = " and ".join(name for name in ("drops", "passes") if getattr(self, name))
        return f"<Events of {self._datapath.name}: {kinds}{', closed' if self._closed else ''}>"


def read_events(datapath: DataPath, interest: Interest, *, endpoint: str | None, at: str) -> Events:
    """Begin to read; raises as :meth:`TransitAgent.events` does."""
    slot = instance = 0
    if endpoint is not None:
        record = LocalEndpoints.of(datapath).named(endpoint)
        if record is None:
            raise EndpointNotFoundError(f"no endpoint of this host is called {endpoint!r}")
        slot, instance = record.slot, record.instance
    place = ReaderPlace(datapath, reader(interest, owner=new_owner(), slot=slot, endpoint=instance))
    try:
        return Events(datapath, place, interest, endpoint=endpoint, at=at)
    except BaseException:
        place.close()
        raise


class _Keeper:
    """The thread that renews a lease, and says when there are events. It owns the place, which it gives up at its end.

    Attributes:
        failure: What ended the reader; None: it goes on.
    """

    def __init__(self, datapath: DataPath, place: ReaderPlace, signal: Fd) -> None:
        self.failure: BaseException | None = None
        self._trace: TracebackType | None = None
        self._datapath = datapath
        self._place = place
        self._signal = signal
        self._asked: Pending[int] | None = None
        self._ending = Gate()
        self._thread = threading.Thread(target=self._run, name="mizarnet-events", daemon=True)

    def start(self) -> None:
        """Begin; raises ``KernelError`` (EAGAIN) if there are too many threads."""
        start(self._thread)

    def end(self) -> None:
        """Have it end soon."""
        self._ending.open()

    def refuse_ended(self) -> None:
        """Raises what ended the reader, if anything did: without the frames of those to whom it was raised before."""
        if self.failure is not None:
            raise self.failure.with_traceback(self._trace)

    def join(self) -> None:
        """Wait for its end."""
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        try:
            self._keep()
        except BaseException as error:  # whatever it is: what the reader uses stays until it is closed
            self._trace, self.failure = error.__traceback__, error
            _call(self._signal)
            self._ending.wait()
        finally:
            self._place.close()
            self._signal.retire()  # nothing else gets its number while a call has it in hand

    def _keep(self) -> None:
        due = time.monotonic() + _RENEWAL
        while not self._ending.wait(_TICK):
            if time.monotonic() >= due:
                self._renew()
                due = time.monotonic() + _RENEWAL
            self._refuse_stale()
            if self._place.ring.has_records():
                _call(self._signal)

    def _renew(self) -> None:
        if self._asked is None:
            self._asked = self._datapath.ask()
        with suppress(LockTimeoutError):  # the next attempt comes soon
            self._place.renew()

    def _refuse_stale(self) -> None:
        """Look at the answer when it is there: the kernel may be busy, for longer than a lease."""
        if self._asked is None or not self._asked.done:
            return
        asked, self._asked = self._asked, None
        if asked.result() != self._place.meta_id:
            raise StaleHandleError("the agent of this reader was replaced", hint="agent.events() again")


def _call(signal: Fd) -> None:
    """Make the descriptor readable."""
    with suppress(OSError):  # its reader was closed meanwhile
        os.eventfd_write(signal.fileno(), 1)


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _beginning(at: str) -> bytes:
    places = (pcapng.interface(f"{at} {each.name.lower()}", most=Limit.EVENT_BYTES) for each in Program)
    return pcapng.section("mizarnet") + b"".join(places)


def _block(event: Event) -> bytes:
    moment = (event.time - _EPOCH) // timedelta(microseconds=1) * 1000
    return pcapng.packet(event.program, moment, event.data, length=event.length, comment=event.comment)
