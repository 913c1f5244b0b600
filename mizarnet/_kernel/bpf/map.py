# SPDX-License-Identifier: Apache-2.0
"""Maps: one entry at a time, and all of it at once."""

from __future__ import annotations

import enum
import errno as _errno
import functools
import os
from array import array
from collections.abc import Iterable, Iterator, Mapping
from operator import add
from typing import Self

import attrs

from mizarnet._kernel.bpf import _batch
from mizarnet._kernel.bpf._lib import CData, check, failure, ffi, lib
from mizarnet._kernel.bpf.btf import Btf, StructLayout
from mizarnet._kernel.bpf.fd import Fd
from mizarnet._kernel.refusals import explained
from mizarnet._model.layout import cut
from mizarnet.errors import CapacityError, EntryNotFoundError, ExistsError, InvalidValueError


class MapType(enum.IntEnum):
    """The kinds of map that mizarnet works with; ``OTHER`` is any other."""

    OTHER = lib.BPF_MAP_TYPE_UNSPEC
    HASH = lib.BPF_MAP_TYPE_HASH
    ARRAY = lib.BPF_MAP_TYPE_ARRAY
    PERCPU_HASH = lib.BPF_MAP_TYPE_PERCPU_HASH
    PERCPU_ARRAY = lib.BPF_MAP_TYPE_PERCPU_ARRAY
    LRU_HASH = lib.BPF_MAP_TYPE_LRU_HASH
    LRU_PERCPU_HASH = lib.BPF_MAP_TYPE_LRU_PERCPU_HASH
    LPM_TRIE = lib.BPF_MAP_TYPE_LPM_TRIE
    RINGBUF = lib.BPF_MAP_TYPE_RINGBUF
    DEVMAP = lib.BPF_MAP_TYPE_DEVMAP
    ARRAY_OF_MAPS = lib.BPF_MAP_TYPE_ARRAY_OF_MAPS

    @classmethod
    def _missing_(cls, value: object) -> MapType:
        return cls.OTHER


class UpdateMode(enum.IntEnum):
    """Whether an update may create (``NOEXIST``: must) or overwrite (``EXIST``: must)."""

    ANY = lib.BPF_ANY
    NOEXIST = lib.BPF_NOEXIST
    EXIST = lib.BPF_EXIST


_PER_CPU = (MapType.PERCPU_HASH, MapType.PERCPU_ARRAY, MapType.LRU_PERCPU_HASH)
_OF_DEVMAP = 1 << 7  # BPF_F_RDONLY_PROG, which the kernel adds by itself
_ARRAYS = (MapType.ARRAY, MapType.PERCPU_ARRAY, MapType.ARRAY_OF_MAPS)


@attrs.frozen
class MapShape:
    """What a program and a map must agree on.

    Attributes:
        number: Kind of map, as the kernel numbers it.
        key_size: Bytes of a key.
        value_size: Bytes of a value, on one CPU.
        max_entries: Capacity in entries.
        flags: Flags that the map is made with.
    """

    number: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int

    @property
    def type(self) -> MapType:
        """Kind of map."""
        return MapType(self.number)


@attrs.frozen
class MapTypes:
    """The C types of a map, as the object that it was made for has them.

    Attributes:
        key: Type of a key, such as ``"struct mzn_mac"``.
        value: Type of a value, such as ``"__u64"``.
        layouts: Structures of the object, by name.
        enums: Enumerations of the object, by name.
    """

    key: str
    value: str
    layouts: Mapping[str, StructLayout]
    enums: Mapping[str, Mapping[str, int]]


class Map(Fd):
    """A BPF map. Keys and values are bytes.

    A value of a per-CPU map is one *slot*: the values of all possible CPUs, each padded to eight bytes.

    Attributes:
        name: Name in the kernel, at most 15 characters.
        type: Kind of map.
        id: Id of the map in the kernel.
        key_size: Bytes of a key.
        value_size: Bytes of a value, on one CPU.
        slot_size: Bytes that the kernel reads and writes for one key; ``value_size`` unless per-CPU.
        max_entries: Capacity in entries; in bytes for a ring buffer.
        shape: What a program that uses the map must have been compiled for.
    """

    def __init__(self, number: int, *, what: str) -> None:
        """Own a descriptor of a map."""
        super().__init__(number, what=what)
        info = ffi.new("struct bpf_map_info *")
        size = ffi.new("__u32 *", ffi.sizeof("struct bpf_map_info"))
        check(lib.bpf_obj_get_info_by_fd(number, info, size), f"read facts of {what}")
        self.name: str = ffi.string(info.name).decode()
        self.type: MapType = MapType(info.type)
        self.id: int = int(info.id)
        self.key_size: int = int(info.key_size)
        self.value_size: int = int(info.value_size)
        self.max_entries: int = int(info.max_entries)
        own = _OF_DEVMAP if self.type is MapType.DEVMAP else 0
        self.shape: MapShape = MapShape(
            int(info.type), self.key_size, self.value_size, self.max_entries, int(info.map_flags) & ~own
        )
        self._btf_id = int(info.btf_id)
        self._type_ids = int(info.btf_key_type_id), int(info.btf_value_type_id)
        self._stride = (self.value_size + 7) // 8 * 8
        self._cpus = _possible_cpus() if self.type in _PER_CPU else 1
        self.slot_size: int = self._stride * self._cpus if self.type in _PER_CPU else self.value_size

    @classmethod
    def open_id(cls, map_id: int) -> Self | None:
        """Open the map of that id; None if there is none (any more).

        Raises:
            PrivilegeError: ``CAP_SYS_ADMIN`` is missing.
        """
        fd = lib.bpf_map_get_fd_by_id(map_id)
        if fd == -_errno.ENOENT:
            return None
        check(fd, f"open BPF map {map_id}", needs=("CAP_SYS_ADMIN",))
        return cls(fd, what=f"map {map_id}")

    def types(self) -> MapTypes | None:
        """The C types of the map; None if the kernel was not told them, as for some kinds of map.

        Raises:
            PrivilegeError: ``CAP_SYS_ADMIN`` is missing.
        """
        if not self._btf_id or not self._type_ids[1]:
            return None
        btf = _read_btf(self._btf_id)
        key, value = map(btf.type_name, self._type_ids)
        return MapTypes(key, value, btf.layouts(), btf.enums())

    def freeze(self) -> None:
        """Let user space write the map no more, for good; programs write on.

        Raises:
            BpfError: ``EBUSY``: a system call is writing it just now. ``EPERM``: it is frozen already.
            PrivilegeError: ``CAP_SYS_ADMIN`` is missing.
        """
        check(lib.bpf_map_freeze(self.fileno()), f"freeze map {self.name!r}", needs=("CAP_SYS_ADMIN",))

    @classmethod
    def create_ring(cls, name: str, size: int) -> Self:
        """Make a ring buffer of ``size`` bytes: a power of two, whole pages.

        Raises:
            PrivilegeError: ``CAP_BPF`` is missing.
            BpfError: The kernel refused, for instance for lack of memory.
        """
        fd = lib.bpf_map_create(MapType.RINGBUF, name.encode(), 0, 0, size, ffi.NULL)
        check(fd, f"make the ring buffer {name!r}")
        return cls(fd, what=f"ring buffer {name!r}")

    @property
    def memory(self) -> int:
        """Bytes of kernel memory that the map takes now; raises ``KernelError`` where ``/proc`` does not tell."""
        path, operation = f"/proc/self/fdinfo/{self.fileno()}", f"read the memory of map {self.name!r}"
        with explained(operation), open(path, encoding="ascii") as facts:
            for line in facts:
                if line.startswith("memlock:"):
                    return int(line.split()[1])
        raise failure(operation, _errno.EINVAL)  # another thread let go of it

    # -- one entry

    def lookup(self, key: bytes) -> bytes | None:
        """The value (per-CPU: the slot) at ``key``."""
        value = ffi.new("char[]", self.slot_size)
        result = lib.bpf_map_lookup_elem(self.fileno(), self._key(key), value)
        if result == -_errno.ENOENT:
            return None
        check(result, f"look up a key of map {self.name!r}")
        return bytes(ffi.buffer(value))

    def lookup_per_cpu(self, key: bytes) -> list[bytes] | None:
        """The values at ``key`` of all possible CPUs, in order, without padding; for per-CPU maps."""
        slot = self.lookup(key)
        return None if slot is None else self.split(slot)

    def split(self, slot: bytes) -> list[bytes]:
        """The values of all possible CPUs in a slot, in order, without padding; for per-CPU maps."""
        return [slot[at : at + self.value_size] for at in range(0, len(slot), self._stride)]

    def join(self, values: Iterable[bytes]) -> bytes:
        """The slot with a value for each possible CPU; the reverse of :meth:`split`."""
        return b"".join(value.ljust(self._stride, b"\0") for value in values)

    def update(self, key: bytes, value: bytes, *, mode: UpdateMode = UpdateMode.ANY) -> None:
        """Write one entry; ``value`` has ``slot_size`` bytes.

        Raises:
            CapacityError: The map is full.
            ExistsError: ``NOEXIST``, and the key is there.
            EntryNotFoundError: ``EXIST``, and the key is not there.
        """
        result = self._put(key, value, mode)
        if result < 0:
            raise self._write_failure(-result, f"write a key of map {self.name!r}", key=key)

    def add(self, key: bytes, value: bytes) -> bool:
        """Write an entry of a hash table unless there is one of that key; whether it was written.

        Raises:
            CapacityError: The map is full.
        """
        result = self._put(key, value, UpdateMode.NOEXIST)
        if result < 0 and result != -_errno.EEXIST:
            raise self._write_failure(-result, f"add a key to map {self.name!r}", key=key)
        return result >= 0

    def _put(self, key: bytes, value: bytes, mode: UpdateMode) -> int:
        if len(value) != self.slot_size:
            raise self._wrong_size("value", value, self.slot_size)
        key_data, value_data = self._key(key), ffi.from_buffer("char[]", value)
        return int(lib.bpf_map_update_elem(self.fileno(), key_data, value_data, mode))

    def delete(self, key: bytes) -> bool:
        """Delete one entry; whether it was there."""
        result = lib.bpf_map_delete_elem(self.fileno(), self._key(key))
        if result == -_errno.ENOENT:
            return False
        check(result, f"delete a key of map {self.name!r}")
        return True

    def take(self, key: bytes) -> bytes | None:
        """Delete one entry of a hash table and return its value, in one step; None if it was not there."""
        value = ffi.new("char[]", self.slot_size)
        result = lib.bpf_map_lookup_and_delete_elem(self.fileno(), self._key(key), value)
        if result == -_errno.ENOENT:
            return None
        check(result, f"take a key out of map {self.name!r}")
        return bytes(ffi.buffer(value))

    def __contains__(self, key: bytes) -> bool:
        return self.lookup(key) is not None

    # -- all entries

    def keys(self) -> Iterator[bytes]:
        """Every key; see `items`."""
        return (key for key, _ in self.items())

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Every entry, each key once. Entries that come or go meanwhile may or may not be among them.

        A prefix table is walked along nodes that a change moves: there an entry that stays may be missed, too, while
        others come and go.

        Raises:
            BpfError: ``EAGAIN``: a prefix table changed faster than it could be read.
        """
        for keys, values, _ in _batch.read(self._shape()):
            yield from zip(cut(keys, self.key_size), cut(values, self.slot_size), strict=True)

    def lookup_all(self) -> tuple[bytes, bytes, int]:
        """Every entry at once, as packed keys, packed values (per-CPU: slots), and how many; fast.

        Raises:
            BpfError: ``EAGAIN``, as for `items`.
        """
        chunks = list(_batch.read(self._shape()))
        keys, values, counts = zip(*chunks, strict=True) if chunks else ((), (), ())
        return b"".join(keys), b"".join(values), sum(counts)

    def sum_words(self, *, skip: int = 0) -> tuple[bytes, array[int]]:
        """Every key of a per-CPU map, packed, and its value summed over the CPUs, as 64-bit words.

        The value must consist of 64-bit counters: ``value_size // 8`` words for each key, in the keys' order.

        Args:
            skip: Words at the beginning of each value that are no counters; their sums are zero.
        """
        keys, slots, count = self.lookup_all()
        words, width = array("Q", slots), self._stride // 8
        totals = array("Q", bytes(count * self._stride))
        for cpu in range(self._cpus):
            for word in range(skip, width):
                of_cpu = words[cpu * width + word :: self._cpus * width]
                totals[word::width] = array("Q", map(add, totals[word::width], of_cpu))
        return keys, totals

    def update_many(self, entries: Mapping[bytes, bytes]) -> int:
        """Write many entries with one system call, whether they exist or not; how many.

        Raises:
            CapacityError: The map is full. Entries before the refused one, in the order given, were written;
                the message says how many.
        """
        return self.update_packed(b"".join(entries), b"".join(entries.values()))

    def update_packed(self, keys: bytes, values: bytes) -> int:
        """`update_many` for keys and values that are packed already."""
        count, rest = divmod(len(keys), self.key_size)
        if rest or len(values) != count * self.slot_size:
            raise self._wrong_size("values", values, count * self.slot_size)
        written, errno = _batch.write(self._shape(), keys, values, count)
        if errno:
            key = keys[written * self.key_size :][: self.key_size]
            operation = f"write map {self.name!r}, {written} of {count} written"
            raise self._write_failure(errno, operation, key=key)
        return written

    def delete_many(self, keys: Iterable[bytes]) -> int:
        """Delete many entries with few system calls; how many of them were there."""
        wanted = list(keys)
        for key in wanted:
            self._key(key)
        return _batch.remove(self._shape(), b"".join(wanted), len(wanted))

    def count(self) -> int:
        """How many entries the map holds. The kernel keeps no count: this reads them all."""
        return sum(count for _, _, count in _batch.read(self._shape()))

    # -- inside

    def _shape(self) -> _batch.Shape:
        return _batch.Shape(
            fd=self.fileno(),
            name=self.name,
            key_size=self.key_size,
            slot_size=self.slot_size,
            max_entries=self.max_entries,
            batches=self.type not in (MapType.OTHER, MapType.RINGBUF),
            walks_by_key=self.type is MapType.LPM_TRIE,
        )

    def _key(self, key: bytes) -> CData:
        if len(key) != self.key_size:
            raise self._wrong_size("key", key, self.key_size)
        return ffi.from_buffer("char[]", key)

    def _wrong_size(self, argument: str, value: bytes, size: int) -> InvalidValueError:
        message = f"map {self.name!r} takes {size} bytes as {argument}, not {len(value)}"
        return InvalidValueError(message, argument=argument, value=value)

    def _write_failure(self, errno: int, operation: str, *, key: bytes) -> Exception:
        # A full hash table says E2BIG, a full prefix table ENOSPC; an array says E2BIG for a wrong index.
        if errno in (_errno.E2BIG, _errno.ENOSPC) and self.type not in _ARRAYS:
            used, room = self.count(), self.max_entries
            return CapacityError(f"{operation}: full", table=self.name, capacity=room, used=used)
        if errno == _errno.EEXIST:
            return ExistsError(f"{operation}: the key exists", holder=key.hex())
        if errno == _errno.ENOENT:
            return EntryNotFoundError(f"{operation}: there is no key {key.hex()}")
        return failure(operation, errno)


@functools.lru_cache(maxsize=2)  # the maps of one object have the same
def _read_btf(btf_id: int) -> Btf:
    operation = f"read BTF {btf_id}"
    fd = check(lib.bpf_btf_get_fd_by_id(btf_id), operation, needs=("CAP_SYS_ADMIN",))
    try:
        return Btf(_raw_btf(fd, operation))
    finally:
        os.close(fd)


def _raw_btf(fd: int, operation: str) -> bytes:
    """The types behind a descriptor. The kernel says first how many bytes they have."""
    info = ffi.new("struct bpf_btf_info *")
    size = ffi.new("__u32 *", ffi.sizeof("struct bpf_btf_info"))
    check(lib.bpf_obj_get_info_by_fd(fd, info, size), operation)
    raw = ffi.new("char[]", info.btf_size)
    filled = ffi.new(
        "struct bpf_btf_info *", {"btf": int(ffi.cast("uintptr_t", raw)), "btf_size": info.btf_size}
    )
    check(lib.bpf_obj_get_info_by_fd(fd, filled, size), operation)
    return bytes(ffi.buffer(raw))


@functools.cache
def _possible_cpus() -> int:
    """How many slices a per-CPU value has. Fixed at boot."""
    return check(lib.libbpf_num_possible_cpus(), "count the possible CPUs")
