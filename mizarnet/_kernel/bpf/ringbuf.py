# SPDX-License-Identifier: Apache-2.0
"""Ring buffers: records that programs send, in order."""

from __future__ import annotations

import errno as _errno
import select
import threading
from collections.abc import Callable

from mizarnet._kernel.bpf._lib import CData, check, failure, ffi, lib
from mizarnet._kernel.bpf._log import listening
from mizarnet._kernel.bpf.fd import Fd
from mizarnet._kernel.bpf.map import Map, MapType
from mizarnet._kernel.closing import Owner
from mizarnet.errors import ClosedError, InvalidValueError

# A full basket stops libbpf, which otherwise goes on for as long as programs are faster than their reader.
_FULL = -_errno.ECANCELED


class _Basket:
    """What one call took out of the ring, and what went wrong in between."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.records: list[bytes] = []
        self.error: BaseException | None = None


class RingBuffer(Owner):
    """Reads the records of a ring buffer map. A ring has one reader: two would take records from each other.

    Waits for records with `poll`, or with any event loop on `fileno`. Not for use by two threads at once, but any may
    close it: what a call still uses ends with that call.
    """

    def __init__(self, ring: Map, *, limit: int = 65536) -> None:
        """Read from ``ring``, at most ``limit`` records a call. The map may be closed meanwhile.

        Raises:
            InvalidValueError: The map is no ring buffer.
            BpfError: The ring cannot be mapped into memory.
        """
        if ring.type is not MapType.RINGBUF:
            raise InvalidValueError(f"map {ring.name!r} is no ring buffer", argument="ring", value=ring)
        self._name = ring.name
        self._basket = _Basket(limit)
        self._context = ffi.new_handle(self._basket)
        self._using = threading.Lock()  # held by the call that reads, and for ever by who has freed it
        self._fd = Fd.copy_of(ring.fileno(), what=f"ring buffer {ring.name!r}")
        with listening() as said:
            reader = lib.ring_buffer__new(self._fd.fileno(), lib.mzn_sample, self._context, ffi.NULL)
        if not reader:
            errno = ffi.errno
            self._fd.close()
            raise failure(f"open ring buffer {ring.name!r}", errno, said="; ".join(said))
        self._reader = reader
        self._closed = False

    def fileno(self) -> int:
        """A descriptor that is readable while there are records."""
        return lib.ring_buffer__epoll_fd(self._open())

    def has_records(self) -> bool:
        """Whether there are records, also those of programs that wake nobody. Other threads may ask that.

        Raises:
            ClosedError: It was closed.
        """
        asked = select.poll()
        asked.register(self._fd.fileno(), select.POLLIN)
        return bool(asked.poll(0))

    def consume(self) -> list[bytes]:
        """The records that are there, without waiting.

        Raises:
            ClosedError: It was closed.
        """
        return self._gather(lib.ring_buffer__consume)

    def poll(self, timeout: float) -> list[bytes]:
        """Wait up to ``timeout`` seconds for records; empty if none came, or a signal did.

        Raises:
            ClosedError: It was closed.
        """
        return self._gather(lib.ring_buffer__poll, round(max(timeout, 0) * 1000))

    def _release(self) -> None:
        self._free()
        self._fd.close()

    def _free(self) -> None:
        if self._using.acquire(blocking=False):
            lib.ring_buffer__free(self._reader)

    def __repr__(self) -> str:
        return f"RingBuffer({self._name!r}{', closed' if self._closed else ''})"

    def _open(self) -> CData:
        if self._closed:
            raise ClosedError(f"ring buffer {self._name!r} is closed")
        return self._reader

    def _gather(self, read: Callable[..., int], *arguments: int) -> list[bytes]:
        reader = self._open()
        if not self._using.acquire(blocking=False):
            return []  # it was closed just now, or a call that this one interrupts takes them
        try:
            return self._taken(read(reader, *arguments))
        finally:
            self._using.release()
            if self._closed:
                self._free()

    def _taken(self, result: int) -> list[bytes]:
        records, self._basket.records = self._basket.records, []
        error, self._basket.error = self._basket.error, None
        if error is not None:
            raise error
        if result not in (_FULL, -_errno.EINTR):
            check(result, f"read ring buffer {self._name!r}")
        return records


@ffi.def_extern()
def mzn_sample(context: CData, data: CData, size: int) -> int:
    """Take one record; called by libbpf in the thread that reads."""
    basket: _Basket = ffi.from_handle(context)
    try:
        basket.records.append(bytes(ffi.buffer(data, size)))
    except BaseException as error:  # nothing can be raised through C, a KeyboardInterrupt neither: keep it
        basket.error = error
        return _FULL
    return _FULL if len(basket.records) >= basket.limit else 0
