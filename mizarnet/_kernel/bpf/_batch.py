# SPDX-License-Identifier: Apache-2.0
"""Many map entries in few system calls.

A hash table is walked bucket by bucket, so entries that stay are seen exactly once. Prefix tables (and maps
without batch calls) are walked from key to next key: when the key stood upon is deleted, the kernel starts
over, and keys seen already are left out here. A prefix table's walk may also step past entries that stay, when the
node above them is replaced: only who keeps writers out reads all of it.
"""

from __future__ import annotations

import errno as _errno
from collections.abc import Iterator

import attrs

from mizarnet._kernel.bpf._lib import CData, check, failure, ffi, lib
from mizarnet._model.layout import cut

_CHUNK_BYTES = 1 << 20
_SMALLEST_CHUNK = 256

# How often a walk may start over before it is given up.
_MAX_PASSES = 16

Chunk = tuple[bytes, bytes, int]


@attrs.frozen(kw_only=True)
class Shape:
    """What is needed to walk a map.

    Attributes:
        fd: Descriptor of the map.
        name: Name of the map, for messages.
        key_size: Bytes of a key.
        slot_size: Bytes read and written for one key.
        max_entries: Capacity, in entries.
        batches: Whether the kernel has batch calls for this kind of map.
        walks_by_key: Whether the kernel walks from key to next key, also in a batch.
    """

    fd: int
    name: str
    key_size: int
    slot_size: int
    max_entries: int
    batches: bool
    walks_by_key: bool


def read(shape: Shape) -> Iterator[Chunk]:
    """Packed keys, packed values and their number, chunk by chunk, each key once.

    Raises:
        BpfError: ``EAGAIN`` when the walk had to start over too often.
    """
    chunks = _read_batches(shape) if shape.batches else _read_singly(shape)
    return _each_once(shape, chunks) if shape.walks_by_key or not shape.batches else chunks


def write(shape: Shape, keys: bytes, values: bytes, count: int) -> tuple[int, int]:
    """Write ``count`` entries; how many were written, and the error number that stopped it (0: none)."""
    if count == 0:
        return 0, 0
    done = ffi.new("__u32 *", count)
    key_data, value_data = ffi.from_buffer("char[]", keys), ffi.from_buffer("char[]", values)
    result = lib.bpf_map_update_batch(shape.fd, key_data, value_data, done, ffi.NULL)
    if result == 0:
        return count, 0
    # An error before the first entry leaves the count as it was given.
    return int(done[0]) if done[0] < count else 0, -result


def remove(shape: Shape, keys: bytes, count: int) -> int:
    """Delete ``count`` keys; how many were there. The kernel stops at a missing one: step over it."""
    at = deleted = 0
    while at < count:
        rest = ffi.new("__u32 *", count - at)
        data = ffi.from_buffer("char[]", memoryview(keys)[at * shape.key_size :])
        result = lib.bpf_map_delete_batch(shape.fd, data, rest, ffi.NULL)
        if result not in (0, -_errno.ENOENT):
            raise failure(f"delete keys of map {shape.name!r}", -result)
        deleted += int(rest[0])
        at += int(rest[0]) + 1
    return deleted


def _read_batches(shape: Shape) -> Iterator[Chunk]:
    entry = shape.key_size + shape.slot_size
    room = min(shape.max_entries, max(_SMALLEST_CHUNK, _CHUNK_BYTES // entry))
    place, reached = ffi.NULL, ffi.new("char[]", max(4, shape.key_size))
    while True:
        result, chunk = _read_batch(shape, room, place, reached)
        if result == -_errno.ENOSPC:  # a bucket of the hash table has more entries than fit
            room *= 2
            continue
        if result not in (0, -_errno.ENOENT, -_errno.EINTR):
            check(result, f"read map {shape.name!r}")
        if chunk[2]:
            yield chunk
            # The kernel has moved on; without entries it has not, and the same place is asked again.
            place, reached = reached, ffi.new("char[]", max(4, shape.key_size))
        if result == -_errno.ENOENT:
            return


def _read_batch(shape: Shape, room: int, place: CData, reached: CData) -> tuple[int, Chunk]:
    keys = ffi.new("char[]", room * shape.key_size)
    values = ffi.new("char[]", room * shape.slot_size)
    count = ffi.new("__u32 *", room)
    result = lib.bpf_map_lookup_batch(shape.fd, place, reached, keys, values, count, ffi.NULL)
    # EINTR: a prefix table lost the entry just being copied; what came before it is good.
    read_some = result in (0, -_errno.ENOENT, -_errno.EINTR)
    got = int(count[0]) if read_some else 0
    return result, (_head(keys, got * shape.key_size), _head(values, got * shape.slot_size), got)


def _head(data: CData, size: int) -> bytes:
    return bytes(ffi.buffer(data, size))


def _read_singly(shape: Shape) -> Iterator[Chunk]:
    key, value = ffi.new("char[]", shape.key_size), ffi.new("char[]", shape.slot_size)
    result = lib.bpf_map_get_next_key(shape.fd, ffi.NULL, key)
    while result == 0:
        if lib.bpf_map_lookup_elem(shape.fd, key, value) == 0:
            yield bytes(ffi.buffer(key)), bytes(ffi.buffer(value)), 1
        result = lib.bpf_map_get_next_key(shape.fd, key, key)
    if result != -_errno.ENOENT:
        check(result, f"walk map {shape.name!r}")


def _each_once(shape: Shape, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    seen: set[bytes] = set()
    total = 0
    for keys, values, count in chunks:
        total += count
        if total > _MAX_PASSES * (shape.max_entries + _SMALLEST_CHUNK):
            raise failure(f"read map {shape.name!r}, which changes too fast", _errno.EAGAIN)
        fresh = _unseen(shape, keys, seen)
        if len(fresh) == count:
            yield keys, values, count
        elif fresh:
            yield _pick(keys, shape.key_size, fresh), _pick(values, shape.slot_size, fresh), len(fresh)


def _unseen(shape: Shape, keys: bytes, seen: set[bytes]) -> list[int]:
    """Which entries of a chunk have keys not ``seen`` before; they are added to it."""
    fresh: list[int] = []
    for index, key in enumerate(cut(keys, shape.key_size)):
        if key not in seen:
            seen.add(key)
            fresh.append(index)
    return fresh


def _pick(packed: bytes, size: int, wanted: list[int]) -> bytes:
    return b"".join(packed[index * size : (index + 1) * size] for index in wanted)
