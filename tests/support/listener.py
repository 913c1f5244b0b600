# SPDX-License-Identifier: Apache-2.0
"""A reader of the events of programs that run frame by frame, with a lease without an end and a small ring."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from mizarnet._datapath.maps import Maps
from mizarnet._kernel.bpf import Map, RingBuffer
from mizarnet._model import layouts
from mizarnet._model.codec import FIRST, u32
from mizarnet._model.enumerations import Wish

FOREVER = 2**63
SMALL = 4096
"""Bytes of a ring that is used again after 17 events."""
NOBODY = layouts.Reader.unpack(bytes(layouts.READER.size))
EVERYTHING = NOBODY._replace(until=FOREVER, owner=1, wishes=Wish.DROPS | Wish.PASSES, sample=1)


class Listener:
    """Reads from a place of its own. Close it, or use it in a ``with``."""

    def __init__(self, maps: Maps, *, index: int = 0, size: int = SMALL, **wanted: Any) -> None:
        self._maps = maps
        self._key = u32(index)
        self._map = Map.create_ring("events", size)
        self._ring = RingBuffer(self._map)
        self._wanted = EVERYTHING._replace(**wanted)
        maps.rings.update(self._key, u32(self._map.fileno()))
        self._come()
        self.forget()

    def _come(self) -> None:
        self._maps.readers.update(self._key, self._wanted.pack())
        self._maps.attention.update(FIRST, layouts.Attention(FOREVER, FOREVER, FOREVER).pack())

    @contextmanager
    def away(self) -> Iterator[None]:
        """It wants nothing meanwhile."""
        self._maps.readers.update(self._key, NOBODY.pack())
        yield
        self._come()

    def forget(self) -> None:
        """Have a whole budget again, and nothing lost."""
        self._maps.heard.update(self._key, bytes(self._maps.heard.slot_size))

    @property
    def heard(self) -> tuple[int, int]:
        """Number of frames that were wanted, and of those that were lost."""
        cpus = [layouts.Heard.unpack(each) for each in self._maps.heard.lookup_per_cpu(self._key) or []]
        return sum(each.found for each in cpus), sum(each.lost for each in cpus)

    def take(self) -> list[layouts.Event]:
        """Events since the last call."""
        return [layouts.Event.unpack(each) for each in self._ring.consume()]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._maps.rings.delete(self._key)
        self._maps.readers.update(self._key, NOBODY.pack())
        self._ring.close()
        self._map.close()
