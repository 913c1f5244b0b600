# SPDX-License-Identifier: Apache-2.0
"""Maps: single entries, whole tables, per-CPU values, full tables, tables that change while they are read."""

from __future__ import annotations

import errno
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from mizarnet._kernel.bpf import Map, MapType, Object, ObjectSpec, UpdateMode
from mizarnet.errors import (
    BpfError,
    CapacityError,
    ClosedError,
    EntryNotFoundError,
    ExistsError,
    InvalidValueError,
)

MANY = 50_000


def key(number: int) -> bytes:
    return struct.pack("=Q", number)


def value(number: int) -> bytes:
    return struct.pack("=I", number).ljust(64, b"\0")


def prefix(length: int, number: int) -> bytes:
    return struct.pack("=I", length) + struct.pack(">I", number)


@contextmanager
def loaded_with(spec: ObjectSpec, name: str, entries: int) -> Iterator[Map]:
    spec.set_max_entries(name, entries)
    with spec.load() as loaded:
        yield loaded.maps[name]


def test_facts(sample: Object) -> None:
    table, counters = sample.maps["table"], sample.maps["counters"]
    assert (table.name, table.type, table.key_size, table.value_size) == ("table", MapType.HASH, 8, 64)
    assert counters.type is MapType.PERCPU_ARRAY
    assert (counters.value_size, counters.slot_size % 16) == (16, 0)
    assert sample.maps["prefixes"].type is MapType.LPM_TRIE
    assert sample.maps["events"].type is MapType.RINGBUF
    assert table.memory > 0


def test_one_entry(sample: Object) -> None:
    table = sample.maps["table"]
    assert table.lookup(key(1)) is None
    table.update(key(1), value(5))
    assert table.lookup(key(1)) == value(5)
    assert key(1) in table
    assert table.delete(key(1))
    assert not table.delete(key(1))
    assert key(1) not in table


def test_modes(sample: Object) -> None:
    table = sample.maps["table"]
    with pytest.raises(EntryNotFoundError):
        table.update(key(1), value(1), mode=UpdateMode.EXIST)
    table.update(key(1), value(1), mode=UpdateMode.NOEXIST)
    with pytest.raises(ExistsError):
        table.update(key(1), value(2), mode=UpdateMode.NOEXIST)
    assert table.lookup(key(1)) == value(1)


def test_sizes_are_checked(sample: Object) -> None:
    table = sample.maps["table"]
    with pytest.raises(InvalidValueError):
        table.lookup(b"short")
    with pytest.raises(InvalidValueError):
        table.update(key(1), b"short")
    with pytest.raises(InvalidValueError):
        table.update_packed(key(1), b"short")
    with pytest.raises(InvalidValueError):
        table.update_packed(key(1) + b"x", value(1))
    with pytest.raises(InvalidValueError):
        table.delete_many([b"short"])


def test_nothing_at_once(sample: Object) -> None:
    table = sample.maps["table"]
    assert table.update_many({}) == 0
    assert table.delete_many([]) == 0
    assert table.lookup_all() == (b"", b"", 0)
    assert list(table.items()) == []


def test_large_hash(spec: ObjectSpec) -> None:
    with loaded_with(spec, "table", MANY) as table:
        wanted = {key(number): value(number) for number in range(MANY)}
        assert table.update_many(wanted) == MANY
        assert dict(table.items()) == wanted
        assert set(table.keys()) == set(wanted)
        keys, values, count = table.lookup_all()
        assert (len(keys), len(values), count) == (8 * MANY, 64 * MANY, MANY)
        assert values[640:704] == wanted[keys[80:88]]
        assert table.delete_many([key(number) for number in range(0, MANY * 2, 2)]) == MANY // 2
        assert table.count() == MANY // 2


def test_large_prefix_table(spec: ObjectSpec) -> None:
    with loaded_with(spec, "prefixes", MANY) as prefixes:
        wanted = {prefix(32, number): struct.pack("=I", number) for number in range(MANY)}
        assert prefixes.update_many(wanted) == MANY
        assert dict(prefixes.items()) == wanted
        assert prefixes.lookup(prefix(32, 77)) == struct.pack("=I", 77)
        assert prefixes.delete_many(list(wanted)[:100]) == 100
        assert prefixes.count() == MANY - 100


@pytest.mark.parametrize("entries", [1, 2, 3, 5])
def test_small_tables_have_crowded_buckets(spec: ObjectSpec, entries: int) -> None:
    with loaded_with(spec, "table", entries) as table:
        for number in range(entries):
            table.update(key(number), value(number))
        assert table.count() == entries


def test_full_hash(sample: Object) -> None:
    table = sample.maps["table"]
    with pytest.raises(CapacityError) as caught:
        table.update_many({key(number): value(number) for number in range(70)})
    error = caught.value
    assert (error.table, error.capacity, error.used) == ("table", 64, 64)
    assert "64 of 70 written" in error.message
    with pytest.raises(CapacityError):
        table.update(key(100), value(100))
    table.update(key(1), value(7))


def test_full_prefix_table(sample: Object) -> None:
    prefixes = sample.maps["prefixes"]
    with pytest.raises(CapacityError, match="64 of 65 written"):
        prefixes.update_many({prefix(32, number): bytes(4) for number in range(65)})


def test_entries_before_the_refused_one_are_written(sample: Object) -> None:
    slots = sample.maps["slots"]
    wanted = {struct.pack("=I", number): b"abcd" for number in (0, 1, 9, 2)}
    with pytest.raises(BpfError, match=r"2 of 4 written.*E2BIG"):
        slots.update_many(wanted)
    assert slots.lookup_all()[1] == b"abcdabcd" + bytes(8)


def test_array(sample: Object) -> None:
    slots = sample.maps["slots"]
    slots.update(struct.pack("=I", 3), b"abcd")
    assert slots.lookup_all() == (struct.pack("=4I", 0, 1, 2, 3), bytes(12) + b"abcd", 4)
    with pytest.raises(BpfError, match="E2BIG"):
        slots.update(struct.pack("=I", 4), b"abcd")
    with pytest.raises(BpfError):
        slots.delete(struct.pack("=I", 3))


def test_per_cpu_array(sample: Object) -> None:
    counters = sample.maps["counters"]
    cpus = counters.slot_size // 16
    for index in range(8):
        slot = b"".join(struct.pack("=2Q", index, cpu) for cpu in range(cpus))
        counters.update(struct.pack("=I", index), slot)
    assert counters.lookup_per_cpu(struct.pack("=I", 5)) == [
        struct.pack("=2Q", 5, cpu) for cpu in range(cpus)
    ]
    keys, totals = counters.sum_words()
    assert struct.unpack("=8I", keys) == tuple(range(8))
    of_cpus = sum(range(cpus))
    assert list(totals) == [word for index in range(8) for word in (index * cpus, of_cpus)]
    assert counters.lookup_per_cpu(struct.pack("=I", 8)) is None


def test_per_cpu_hash_pads_its_values(sample: Object) -> None:
    narrow = sample.maps["narrow"]
    cpus = narrow.slot_size // 8
    slot = b"".join(struct.pack("=II", cpu + 1, 0) for cpu in range(cpus))
    assert narrow.update_many({struct.pack("=I", number): slot for number in range(16)}) == 16
    assert narrow.lookup_per_cpu(struct.pack("=I", 9)) == [struct.pack("=I", cpu + 1) for cpu in range(cpus)]
    assert [found for _, found in narrow.items()] == [slot] * 16


def test_programs_and_tables_meet(sample: Object) -> None:
    table = sample.maps["table"]
    table.update(key(1), value(0))
    sample.programs["first"].test_run(bytes(100), repeat=3)
    assert table.lookup(key(1)) == value(3)
    assert list(sample.maps["counters"].sum_words()[1][4:6]) == [3, 300]


@pytest.mark.parametrize("name", ["table", "prefixes"])
def test_reading_while_it_changes(spec: ObjectSpec, name: str) -> None:
    """No key is read twice, whatever comes and goes meanwhile, and a hash table's walk misses none that stays."""
    make = key if name == "table" else lambda number: prefix(32, number)
    with loaded_with(spec, name, 4096) as table:
        content = bytes(table.value_size)
        staying = {make(number * 3) for number in range(1000)}
        table.update_many(dict.fromkeys(staying, content))
        stop = threading.Event()

        def disturb() -> None:
            moving = [make(number * 3 + 1) for number in range(1000)]
            while not stop.is_set():
                table.update_many(dict.fromkeys(moving, content))
                table.delete_many(moving)

        thread = threading.Thread(target=disturb)
        thread.start()
        try:
            for _ in range(20):
                found = list(table.keys())
                assert len(found) == len(set(found))
                assert name == "prefixes" or staying <= set(found)
        finally:
            stop.set()
            thread.join()
        assert staying <= set(table.keys())


def test_closed(sample: Object) -> None:
    sample.close()
    with pytest.raises(ClosedError):
        sample.maps["table"].lookup(key(1))
    with pytest.raises(ClosedError):
        sample.maps["table"].lookup_all()


def test_the_kernel_knows_types_and_shape(spec: ObjectSpec) -> None:
    wanted = spec.shape("prefixes")
    assert wanted.type is MapType.LPM_TRIE
    with spec.load() as loaded:
        assert loaded.maps["prefixes"].shape == wanted
        types = loaded.maps["table"].types()
        assert types is not None
        assert types.value == "struct sample_value"
        assert types.layouts["sample_value"] == spec.layouts["sample_value"]
        assert loaded.maps["events"].types() is None


def test_a_frozen_map_is_written_by_nobody(sample: Object) -> None:
    table = sample.maps["table"]
    table.update(key(1), value(1))
    table.freeze()
    for write in (
        lambda: table.update(key(1), value(2)),
        lambda: table.delete(key(1)),
        lambda: table.take(key(1)),
    ):
        with pytest.raises(BpfError) as refused:
            write()
        assert refused.value.errno == errno.EPERM
    assert table.lookup(key(1)) == value(1)
