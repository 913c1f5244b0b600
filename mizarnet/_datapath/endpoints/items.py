# SPDX-License-Identifier: Apache-2.0
"""Further addresses and routes of endpoints, of which a record has any number: reading and writing them.

They stand in a map of their own, under the endpoint's instance and a number. The record says below which number.
"""

from __future__ import annotations

from collections.abc import Iterable

from mizarnet._datapath.maps import Maps, full
from mizarnet._model import codec
from mizarnet._model.codec import Item, Record
from mizarnet.errors import CapacityError


def read(maps: Maps, key: bytes) -> Record | None:
    """The record of a key of ``records``, with its items; None if there is none.

    A change in between is noticed by the record: then both are read again.
    """
    data = maps.records.lookup(key)
    while data is not None:
        record = of(maps, data)
        if not codec.items_below(data):
            return record
        now = maps.records.lookup(key)
        if now == data:
            return record
        data = now
    return None


def of(maps: Maps, data: bytes) -> Record:
    """A packed record with its items, as they are now."""
    instance = codec.instance_of(data)
    found = (
        (number, maps.items.lookup(codec.item_key(instance, number)))
        for number in range(codec.items_below(data))
    )
    return Record.unpack(data, {number: Item.unpack(value) for number, value in found if value is not None})


def write(maps: Maps, record: Record, numbers: Iterable[int]) -> None:
    """Write some items of a record, whose room was looked at before.

    Raises:
        CapacityError: Other processes took the room meanwhile; some of them may be written.
    """
    try:
        maps.items.update_many(
            {codec.item_key(record.instance, number): record.items[number].pack() for number in numbers}
        )
    except CapacityError as refused:
        text = f"there is no room for the addresses and routes of endpoint {record.spec.name!r}"
        raise full(maps.items, refused.used, text) from None


def remove(maps: Maps, record: Record, numbers: Iterable[int]) -> None:
    """Remove some items of a record; those that are gone already are no error."""
    maps.items.delete_many([codec.item_key(record.instance, number) for number in numbers])


def drop_orphans(maps: Maps) -> int:
    """Remove items whose record is gone; how many. A record comes before its items, so these are read first."""
    keys = list(maps.items.keys())
    if not keys:
        return 0
    there = {codec.instance_of(data) for _, data in maps.records.items()}
    return maps.items.delete_many([key for key in keys if codec.instance_of_item(key) not in there])
