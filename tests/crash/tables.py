# SPDX-License-Identifier: Apache-2.0
"""The maps of a data path as facts: each member of each entry, but for random numbers, indexes and times.

The structures are those of ``abi.h``; what the library makes of them is not used. An index of a device, a cookie of a
namespace and a number of a record are replaced by what they lead to, so that one that leads nowhere is seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import attrs

from mizarnet._model import layouts
from mizarnet._model.codec import NO_SLOT
from mizarnet._model.enumerations import Place
from mizarnet._model.layout import u32
from tests.crash.programs import read_map

Dump = Mapping[str, Mapping[bytes, bytes]]

_LEFT_OUT = {"instance", "maker", "changed", "generation", "netns_device", "netns_inode", "nsid", "items"}
"""What tells lives apart, or where to look: of items, below which number the next reader finds all there are."""
_PRIVATE = "mizarnet-"
_LEFT_OUT_TABLES = {
    "verdicts",
    "traffic",
    "drops",
    "changes",
    "readers",
    "rings",
    "heard",
    ".data.attention",
    ".rodata.config",
    ".rodata.build",
    "transit.rodata",
}
"""Counters and constants, and what readers of events have for a time."""


def dump(map_ids: Mapping[str, int]) -> Dump:
    """All entries of a data path's maps, as they are."""
    return {name: read_map(number) for name, number in map_ids.items() if name not in _LEFT_OUT_TABLES}


@attrs.frozen
class Places:
    """What numbers lead to.

    Attributes:
        names: Labels of namespaces by name.
        spaces: Labels of namespaces by cookie.
        devices: Names of devices by cookie of their namespace and index.
    """

    names: Mapping[str, str]
    spaces: Mapping[int, str]
    devices: Mapping[tuple[int, int], str]

    def space(self, cookie: int) -> str:
        """Label of a namespace."""
        return self.spaces.get(cookie, "no namespace") if cookie else "none yet"

    def device(self, cookie: int, index: int) -> str:
        """Name of a device."""
        return self.devices.get((cookie, index), "no device") if index else "none yet"


@attrs.frozen
class Tables:
    """The entries of one data path.

    Attributes:
        entries: All of them, by table.
        places: What numbers in them lead to.
        host: Cookie of the host.
    """

    entries: Dump
    places: Places
    host: int

    def facts(self) -> Iterator[tuple[str, str]]:
        """Facts, each with its table."""
        for table, entries in self.entries.items():
            tell = _TELLERS.get(table)
            for key, value in entries.items():
                if tell is not None:
                    yield table, tell(self, key, value)
                else:
                    yield table, f"{key.hex()} {value.hex()}"

    # -- by table

    def _record(self, key: bytes, value: bytes) -> str:
        told = self._members(layouts.Record.unpack(value))
        return f"{self._owner(key)} {told}"

    def _sender(self, key: bytes, value: bytes) -> str:
        told = self._members(layouts.Sender.unpack(value))
        return f"{key.hex()} {told}"

    def _address(self, key: bytes, value: bytes) -> str:
        found = layouts.Address.unpack(value)
        return f"{key.hex()} of {self._claimant(found.record, found.instance)} {found.prefix_length} {found.flags}"

    def _slot(self, key: bytes, value: bytes) -> str:
        found = layouts.Slot.unpack(value)
        return f"one of {self._claimant(found.record, found.instance)}"

    def _item(self, key: bytes, value: bytes) -> str:
        at, found = layouts.ItemKey.unpack(key), layouts.Item.unpack(value)
        records = map(layouts.Record.unpack, self.entries.get("records", {}).values())
        owners = [each for each in records if each.instance == at.instance]
        counts = [found.since <= each.generation and not found.until for each in owners]
        name = _name(owners[0].name) if owners else "nobody"
        told = f"{at.number} of {name} {_plain(found._replace(since=0))}"
        return told if any(counts) else f"{told}, which does not count"

    def _endpoint(self, key: bytes, value: bytes) -> str:
        found = layouts.Endpoint.unpack(value)
        local = found.place == Place.LOCAL
        return f"{key.hex()} {_plain(found._replace(slot=0))} {self._holder(found.slot) if local else ''}".rstrip()

    def _meta(self, key: bytes, value: bytes) -> str:
        found = layouts.Meta.unpack(value)
        head = found.head._replace(instance=0, build=0, netns_cookie=0, ifindex=0)
        of = self.places.device(found.head.netns_cookie, found.head.ifindex)
        kept = found._replace(head=head, changed=0, generation=0, underlay_ifindex=0)
        return f"of {of} {_plain(kept)}"

    def _switching(self, key: bytes, value: bytes) -> str:
        found = layouts.Switching.unpack(value)
        if not found.ifindex:
            return "no switch"
        return f"on {self.places.device(self.host, found.ifindex)} flags {found.flags}"

    def _lifeline(self, key: bytes, value: bytes) -> str:
        return self.places.device(self.host, int.from_bytes(value, "little"))

    # -- members

    def _members(self, found: Any) -> str:
        members = found._asdict()
        cookie = members.pop("netns_cookie")
        members["ifindex"] = self.places.device(cookie, members["ifindex"])
        if "netns" in members:
            name = _name(members["netns"])
            members["netns"] = self.places.names.get(name, "private" if name.startswith(_PRIVATE) else name)
        members["slot"] = self._holder(members["slot"])
        if "record" in members:
            members["record"] = self._owner(members["record"])
        told = (f"{name}={_plain(value)}" for name, value in members.items() if name not in _LEFT_OUT)
        return f"in {self.places.space(cookie)} {' '.join(told)}"

    def _owner(self, key: bytes) -> str:
        record = self.entries.get("records", {}).get(key)
        return "nobody" if record is None else _name(layouts.Record.unpack(record).name)

    def _holder(self, slot: int) -> str:
        """Whose an index into ``traffic`` is; which one it is depends on what was there before."""
        value = self.entries.get("slots", {}).get(u32(slot))
        if value is None:
            return "none yet" if slot == NO_SLOT else "nobody"
        found = layouts.Slot.unpack(value)
        return self._claimant(found.record, found.instance)

    def _claimant(self, key: bytes, instance: int) -> str:
        record = self.entries.get("records", {}).get(key)
        if record is None or layouts.Record.unpack(record).instance != instance:
            return "nobody"
        return self._owner(key)


_TELLERS: dict[str, Callable[[Tables, bytes, bytes], str]] = {
    "records": Tables._record,
    "senders": Tables._sender,
    "addresses": Tables._address,
    "items": Tables._item,
    "slots": Tables._slot,
    "endpoints": Tables._endpoint,
    "meta": Tables._meta,
    "switching": Tables._switching,
    "landing": Tables._lifeline,
    "lifeline": Tables._lifeline,
}


def owners_of_private(tables: Dump) -> dict[str, str]:
    """Names of the private namespaces that records lead to, with the names of their endpoints."""
    found = (layouts.Record.unpack(value) for value in tables.get("records", {}).values())
    named = ((_name(each.netns), _name(each.name)) for each in found)
    return {netns: f"private of {name}" for netns, name in named if netns.startswith(_PRIVATE)}


def _plain(value: Any) -> str:
    """Bytes in hexadecimal, without the zeros at their end; of a structure, whatever is not zero."""
    if isinstance(value, bytes):
        return value.rstrip(b"\0").hex()
    if isinstance(value, tuple):
        return f"({','.join(_plain(each) for each in value if any(_leaves(each)))})"
    return str(value)


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, tuple):
        for each in value:
            yield from _leaves(each)
    else:
        yield value.rstrip(b"\0") if isinstance(value, bytes) else value


def _name(data: bytes) -> str:
    return data.split(b"\0", 1)[0].decode()
