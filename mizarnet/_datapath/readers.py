# SPDX-License-Identifier: Apache-2.0
"""Those who read events: each has a place in the map ``readers``, a ring of its own, and a lease that it renews.

A place whose lease is over is free, whoever had it: its owner was killed, stopped, or kept from running. The ring stays
until the place is taken again, or collected.
"""

from __future__ import annotations

import mmap
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import attrs

from mizarnet._datapath.datapath import DataPath
from mizarnet._datapath.lock import READERS, SHARED_HOST
from mizarnet._datapath.maps import Maps
from mizarnet._kernel.bpf import Map, RingBuffer
from mizarnet._kernel.clock import KernelClock
from mizarnet._kernel.closing import Closing
from mizarnet._kernel.refusals import explained
from mizarnet._model.codec import Counted, u32
from mizarnet._model.enumerations import Limit, Wish
from mizarnet._model.layouts import READER, SLOT, Heard, Reader, Slot
from mizarnet.errors import CapacityError, MizarnetError, StaleHandleError

LEASE = 2 * 10**9
"""Nanoseconds for which a reader that is not heard of any more still counts."""
RING_BYTES = 1 << 21
"""Room of a reader's ring: for about 9,000 events."""
_PATIENCE = 1.0  # time in seconds that whoever leaves waits for others who take or leave a place


class Attention:
    """The words by which programs know that somebody reads, in memory that is shared with the kernel.

    Each word is written by itself, so that no reader undoes what another one writes beside it.
    """

    def __init__(self, attention: Map) -> None:
        """Map the content of the map ``.data.attention``."""
        with explained("map the words that say whether anybody reads events"):
            self._memory = mmap.mmap(attention.fileno(), mmap.PAGESIZE)
        self._words = memoryview(self._memory).cast("Q")

    def call(self, wishes: int, until: int) -> None:
        """Have programs look for readers until a moment of the kernel's clock, and no longer than others have them."""
        for index, wish in ((1, Wish.DROPS), (2, Wish.PASSES), (0, wishes)):  # as in ``struct mzn_attention``
            if wishes & wish and self._words[index] < until:
                self._words[index] = until

    def close(self) -> None:
        """Unmap it."""
        self._words.release()
        self._memory.close()


class ReaderPlace(Closing):
    """A reader's place. It outlives the descriptors of the data path that it is of.

    Attributes:
        ring: Ring that programs write this reader's events to.
        clock: Clock of leases and events.
        meta_id: Identity of the data path.
    """

    def __init__(self, datapath: DataPath, wanted: Reader) -> None:
        """Take a free place, whose lease begins now.

        Raises:
            CapacityError: Four others read.
            LockTimeoutError: Another process held the lock of the places for 10 s.
            PrivilegeError: ``CAP_BPF`` or ``CAP_SYS_ADMIN`` is missing.
            BpfError: There is no memory for the ring.
        """
        self.clock: KernelClock = KernelClock.open()
        self._host = datapath.host
        self._wanted = wanted
        self._lost = 0
        with ExitStack() as undo:
            maps = datapath.maps
            self.meta_id: int = maps.meta.id
            self._readers, self._rings, self._heard, self._slots, self._records = (
                undo.enter_context(Map.copy_of(each.fileno(), what=f"map {each.name!r}"))
                for each in (maps.readers, maps.rings, maps.heard, maps.slots, maps.records)
            )
            self._attention = Attention(maps.attention)
            undo.callback(self._attention.close)
            ring = undo.enter_context(Map.create_ring("events", RING_BYTES))
            self.ring: RingBuffer = undo.enter_context(RingBuffer(ring))
            with self._host.locked(SHARED_HOST, READERS):
                self._key = self._free()
                self._settle(ring)
            self._opened = undo.pop_all()

    def _free(self) -> bytes:
        now = self.clock.now()
        free = [(not held.owner, index) for index, held in _places(self._readers) if held.until <= now]
        if free:
            return u32(min(free)[1])  # one that was left, if there is any: so its ring ends
        raise CapacityError(
            f"{Limit.READERS} others read events of this agent",
            table="readers",
            capacity=Limit.READERS,
            used=Limit.READERS,
            hint=f"close one of them; a killed one gives up its place within {LEASE / 1e9:g} s",
        )

    def _settle(self, ring: Map) -> None:
        """Take the place over: what still runs for an earlier owner ends before anything of this one begins."""
        with ExitStack() as undo:
            undo.callback(self._vacate)
            self._write(wishes=0)  # and with a lease, so that nobody takes it for one that was left
            self._rings.update(self._key, u32(ring.fileno()))  # the kernel waits for the programs that run
            self._heard.update(self._key, bytes(self._heard.slot_size))
            self._extend()
            undo.pop_all()

    def _vacate(self) -> None:
        """Free the place, if it can be: else its lease ends by itself, or never began."""
        with suppress(MizarnetError):
            _clear(self._readers, self._rings, self._key)

    def renew(self) -> None:
        """Let the lease begin anew.

        Raises:
            StaleHandleError: It was over, and another one has the place, or it was collected.
            LockTimeoutError: It was over, and another process held the lock of the places for 10 s.
        """
        held = self._held()
        if held.owner == self._wanted.owner and held.until > self.clock.now():
            self._extend()  # nobody takes a place before its lease is over
            return
        with self._host.locked(SHARED_HOST, READERS):
            self._refuse_lost()
            self._extend()

    def _extend(self) -> None:
        wishes = self._wanted.wishes
        self._attention.call(wishes, self._write(wishes=wishes))

    def _write(self, *, wishes: int) -> int:
        """Write the reader with a lease that begins now; its end."""
        until = self.clock.now() + LEASE
        self._readers.update(self._key, self._wanted._replace(until=until, wishes=wishes).pack())
        return until

    def _refuse_lost(self) -> None:
        if self._held().owner != self._wanted.owner:
            raise StaleHandleError(
                "this reader did not run for too long, and its place was given away",
                hint="agent.events() again",
            )

    def _held(self) -> Reader:
        return Reader.unpack(self._readers.lookup(self._key) or bytes(READER.size))

    def lost(self) -> int:
        """Number of frames that this reader wanted and was not told of, as long as it had its place."""
        per_cpu = self._heard.lookup_per_cpu(self._key) or []
        if self._held().owner == self._wanted.owner:
            self._lost = sum(Heard.unpack(each).lost for each in per_cpu)
        return self._lost

    def whose(self, slot: int, instance: int) -> Counted | None:
        """The endpoint of an event; None: it is gone."""
        claim = Slot.unpack(self._slots.lookup(u32(slot)) or bytes(SLOT.size))
        record = self._records.lookup(claim.record) if claim.instance == instance else None
        found = Counted.unpack(record) if record is not None else None
        return found if found is not None and found.instance == instance else None

    def close(self) -> None:
        """Give the place up. Where the lock cannot be had, the lease ends by itself."""
        with (
            self._opened,
            suppress(MizarnetError),
            self._host.locked(SHARED_HOST, READERS, timeout=_PATIENCE),
        ):
            self._refuse_lost()
            self._vacate()


def _places(readers: Map) -> Iterator[tuple[int, Reader]]:
    for index in range(Limit.READERS):
        yield index, Reader.unpack(readers.lookup(u32(index)) or bytes(READER.size))


def _clear(readers: Map, rings: Map, key: bytes) -> None:
    rings.delete(key)
    readers.update(key, bytes(READER.size))


def new_owner() -> int:
    """A number that tells a reader from any other."""
    return secrets.randbits(63) + 1


@attrs.frozen
class LeftReader:
    """A place whose owner is gone without a word.

    Attributes:
        index: Index of the place.
        owner: Number of the reader.
    """

    index: int
    owner: int


def left(maps: Maps) -> list[LeftReader]:
    """Places whose lease is over and that were not given up."""
    now = KernelClock.open().now()
    return [
        LeftReader(index, held.owner)
        for index, held in _places(maps.readers)
        if held.owner and held.until <= now
    ]


def collect(datapath: DataPath, owner: int) -> None:
    """Free the place of a reader that is gone, and the memory of its ring."""
    with datapath.host.locked(SHARED_HOST, READERS):
        maps = datapath.maps
        for each in left(maps):
            if each.owner == owner:
                _clear(maps.readers, maps.rings, u32(each.index))
