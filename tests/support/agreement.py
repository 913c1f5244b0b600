# SPDX-License-Identifier: Apache-2.0
"""Do the tables of an agent agree with each other and with the devices? Read without a lock, when nobody writes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator

import attrs

import mizarnet as mz
from mizarnet._datapath.endpoints import items
from mizarnet._datapath.maps import Maps
from mizarnet._kernel.netlink import Link, Session, dump_links
from mizarnet._model import codec
from mizarnet._model.codec import Record
from mizarnet._model.enumerations import State


@attrs.frozen
class Tables:
    """All of them at one moment, packed as they are; records by their keys."""

    records: dict[bytes, Record]
    items: dict[bytes, bytes]
    slots: dict[bytes, bytes]
    addresses: dict[bytes, bytes]
    senders: dict[bytes, bytes]
    endpoints: dict[bytes, bytes]

    @classmethod
    def read(cls, maps: Maps) -> Tables:
        """Read them."""
        return cls(
            records={key: items.of(maps, value) for key, value in maps.records.items()},
            items=dict(maps.items.items()),
            slots=dict(maps.slots.items()),
            addresses=dict(maps.addresses.items()),
            senders=dict(maps.senders.items()),
            endpoints=dict(maps.endpoints.items()),
        )

    def wanted(self, halves: Collection[str]) -> Tables:
        """What the records say the other tables must hold, ``halves`` left out; of endpoints, the local ones."""
        each = [record for record in self.records.values() if record.spec.name not in halves]
        return Tables(
            records={codec.record_key(record.spec.name): record for record in each},
            items={
                codec.item_key(record.instance, number): item.pack()
                for record in each
                for number, item in record.items.items()
                if item.counts_in(record.generation) and not item.until
            },
            slots={codec.u32(record.slot): record.pack_slot() for record in each},
            addresses={key: claim for record in each for key, claim in record.pack_addresses().items()},
            senders={codec.mac_key(record.mac): record.pack_sender() for record in each},
            endpoints={key: entry for record in each for key, entry in record.pack_endpoints().items()},
        )


def disagreements(
    agent: mz.TransitAgent, namespaces: Iterable[str], *, halves: Collection[str] = ()
) -> list[str]:
    """What is wrong, in words.

    Args:
        agent: Of the host.
        namespaces: Names of those that endpoints may live in, the host's left out.
        halves: Names of endpoints that are not live: anything of them may be missing.
    """
    tables = Tables.read(agent._datapath.maps)
    whole = [record for record in tables.records.values() if record.spec.name not in halves]
    rest = [record for record in tables.records.values() if record.spec.name in halves]
    return [
        *_between_tables(tables, [*rest, *(record for record in whole if record.unsettled)]),
        *_shared(whole),
        *_devices(agent, whole, rest, namespaces),
    ]


def _between_tables(tables: Tables, halves: Collection[Record]) -> Iterator[str]:
    local = {key: value for key, value in tables.endpoints.items() if codec.is_local(value)}
    there, wanted = attrs.evolve(tables, endpoints=local), tables.wanted([each.spec.name for each in halves])
    for table in attrs.fields_dict(Tables):
        found, should = getattr(there, table), getattr(wanted, table)
        yield from (
            f"{table} has {key.hex()}, which no record owns"
            for key in found.keys() - should.keys()
            if not any(_may_have(each, table, key, found[key]) for each in halves)
        )
        yield from (f"{table} lacks {key.hex()}" for key in should.keys() - found.keys())
        yield from (
            f"{table} has another value at {key.hex()}"
            for key in found.keys() & should.keys()
            if found[key] != should[key]
        )


def _may_have(half: Record, table: str, key: bytes, value: bytes | Record) -> bool:
    """Whether an entry may be of an endpoint that is half made, or half deleted."""
    name, keys = codec.record_key(half.spec.name), half.address_keys()
    if isinstance(value, Record):
        return key == name
    may: dict[str, Callable[[bytes], bool]] = {
        "items": lambda _: codec.instance_of_item(key) == half.instance,
        "slots": half.pack_slot().__eq__,
        "addresses": half.is_claim,
        "senders": lambda sender: key == codec.mac_key(half.mac) and codec.record_of(sender) == name,
        "endpoints": lambda _: key in keys,
    }
    return may[table](value)


def _shared(each: Collection[Record]) -> Iterator[str]:
    """What two endpoints may not share."""
    yield from _twice("slot", (record.slot for record in each))
    yield from _twice("MAC", (record.mac for record in each))
    yield from _twice("address", (key for record in each for key in record.pack_addresses()))


def _twice(what: str, values: Iterable[object]) -> Iterator[str]:
    yield from (
        f"{what} {value} is of {times} endpoints" for value, times in Counter(values).items() if times > 1
    )


def _devices(
    agent: mz.TransitAgent, whole: Iterable[Record], halves: Collection[Record], namespaces: Iterable[str]
) -> Iterator[str]:
    unowned: dict[tuple[int, int], str] = {}
    for name in (agent._datapath.host, *namespaces):
        unowned.update(_endpoint_devices(name))
    for record in whole:
        if record.state is not State.LIVE:
            yield f"{record.spec.name} is {record.state.name}"
        if unowned.pop((record.netns_cookie, record.ifindex), None) != str(record.mac):
            yield f"the device of {record.spec.name} is gone"
    owned = {(record.netns_cookie, str(record.mac)) for record in halves}
    yield from (
        f"device {index} of namespace {cookie:x} with {mac} is nobody's"
        for (cookie, index), mac in unowned.items()
        if (cookie, mac) not in owned
    )


def _endpoint_devices(where: Session | str) -> dict[tuple[int, int], str]:
    """MAC of each device that hangs on a tunnel, by its namespace and index."""
    if isinstance(where, str):
        with Session.open(where) as session:
            return _endpoint_devices(session)
    found: list[Link] = [link for kind in ("macvlan", "macvtap") for link in dump_links(where, kind=kind)]
    return {(where.cookie, link.ifindex): link.mac or "" for link in found}
