# SPDX-License-Identifier: Apache-2.0
"""What endpoints must have, in tables and namespaces; of all of them together from a few messages each."""

from __future__ import annotations

import functools
import sys
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Self

import attrs

from mizarnet._datapath.age import is_young
from mizarnet._datapath.endpoints import LocalEndpoints, configuration, device, entries
from mizarnet._datapath.endpoints.comparison import identity_at, is_replaced
from mizarnet._datapath.maps import Maps
from mizarnet._kernel.bpf import Map
from mizarnet._kernel.netlink import LOOPBACK_IFINDEX, Link, get_link, read_links, upper_links
from mizarnet._model import codec
from mizarnet._model.codec import Item, Record
from mizarnet._model.enumerations import State
from mizarnet._model.finding import Cure, Finding, FindingKind, Subject
from mizarnet.errors import KernelError, NetnsNotFoundError, PrivilegeError

Place = tuple[int, int]
"""Id of a namespace, and index of a device there."""
Reader = Callable[[Map, bytes], bytes | None]
"""Finds the value of a key in a map."""


@attrs.frozen
class Tables:
    """What the tables about local endpoints had, each read as a whole.

    Attributes:
        contents: Packed values by packed keys, by the map's name.
    """

    contents: Mapping[str, Mapping[bytes, bytes]]

    @classmethod
    def read(cls, maps: Maps) -> Self:
        """Read them; ``records`` last, so that whoever has entries by then has a record."""
        read = (maps.slots, maps.addresses, maps.senders, maps.endpoints, maps.items, maps.records)
        return cls({each.name: dict(each.items()) for each in read})

    def find(self, table: Map, key: bytes) -> bytes | None:
        """Value of a key; None if there was none."""
        return self.contents[table.name].get(key)

    def records(self) -> list[Record]:
        """All records, sorted by name."""
        held: defaultdict[int, dict[int, Item]] = defaultdict(dict)
        for key, item in self.contents["items"].items():
            held[codec.instance_of_item(key)][codec.number_of_item(key)] = Item.unpack(item)
        packed = self.contents["records"].values()
        found = (Record.unpack(data, held.get(codec.instance_of(data))) for data in packed)
        return sorted(found, key=lambda record: record.spec.name)


def endpoint_findings(endpoints: LocalEndpoints, record: Record) -> list[Finding]:
    """Findings about one endpoint."""
    place = (record.nsid, record.ifindex)
    links = read_links(endpoints.host, [place]) if record.ifindex else {}
    return list(_of_records(endpoints, [record], links, Map.lookup))


def all_findings(endpoints: LocalEndpoints, tables: Tables) -> list[Finding]:
    """Findings about every endpoint, and about devices on the tunnel that are none."""
    records = tables.records()
    above = devices_above(endpoints)
    return [*_of_records(endpoints, records, above, tables.find), *strangers(endpoints, records, above)]


def devices_above(endpoints: LocalEndpoints) -> dict[Place, Link]:
    """The devices on the tunnel, in whatever namespaces they are."""
    found = upper_links(endpoints.host, endpoints.datapath.hooks.ifindex)
    return {(nsid, link.ifindex): link for nsid, link in found}


def _of_records(
    endpoints: LocalEndpoints,
    records: Iterable[Record],
    links: Mapping[Place, Link],
    read: Reader,
) -> Iterator[Finding]:
    settled: list[Record] = []
    for record in records:
        if record.state is State.LIVE:
            settled.append(record)
        elif not is_young(record.state, record.changed):
            yield endpoints.unfinished(record)
    own = {
        record.instance: link
        for record in settled
        if (link := links.get((record.nsid, record.ifindex))) is not None
        and device.is_above(link, record, endpoints.datapath.hooks)
    }
    found = configuration.read_all(settled, own, endpoints.datapath.hooks)
    tunnel, identity = endpoints.datapath.name, functools.cache(identity_at)
    for record in settled:
        yield from entries.findings(endpoints.maps, record, tunnel=tunnel, read=read)
        yield from _unsettled(endpoints, record)
        if record.instance not in own:
            yield _without_device(endpoints, record)
            continue
        yield from _of_link(endpoints, record, own[record.instance])
        if is_replaced(record, identity):
            yield _in_replaced_namespace(endpoints, record)
        if record.instance in found:
            yield from configuration.findings(record, found[record.instance], tunnel=tunnel)


def _unsettled(endpoints: LocalEndpoints, record: Record) -> Iterator[Finding]:
    """Findings about a change of an endpoint that was begun long ago and is not finished."""
    if record.unsettled and not is_young(State.MAKING, record.changed):
        items = tuple(str(item.content) for item in record.unsettled.values())
        text = f"a change of its addresses, gateways or routes was not finished: {', '.join(items)}"
        yield endpoints.finding(record, FindingKind.ENTRY_DIFFERS, "none unfinished", items, text)


def _of_link(endpoints: LocalEndpoints, record: Record, link: Link) -> Iterator[Finding]:
    """Findings about a device that is where its record says."""
    if link.mac != str(record.mac):
        text = f"the MAC of {link.name} is {link.mac}, not {record.mac}, so that nothing it sends is let out"
        yield endpoints.finding(record, FindingKind.MAC_DIFFERS, str(record.mac), link.mac, text)
    if link.mode != _PRIVATE:
        text = f"{link.name} is in mode {link.mode}: its frames reach other devices of the tunnel without the agent"
        yield endpoints.finding(record, FindingKind.MODE_DIFFERS, _PRIVATE, link.mode, text)
    if link.name != record.spec.ifname:
        text = f"its device {record.spec.ifname} was renamed to {link.name}"
        remedy = f"ip link set {link.name} name {record.spec.ifname}, in its namespace"
        yield endpoints.finding(record, FindingKind.NAME_DIFFERS, record.spec.ifname, link.name, text, remedy)


_PRIVATE = "private"


def _in_replaced_namespace(endpoints: LocalEndpoints, record: Record) -> Finding:
    where = str(record.spec.netns)
    text = f"another namespace has the name {where} by now, and it lives on in the one that had it"
    remedy = "delete it and create it again, which is a replace in a plan"
    kind = FindingKind.NAMESPACE_REPLACED
    return endpoints.finding(record, kind, where, f"net:[{record.netns_id[1]}]", text, remedy)


def _without_device(endpoints: LocalEndpoints, record: Record) -> Finding:
    where = record.spec.netns or "the host's namespace"
    name = record.spec.ifname
    if can_enter(endpoints, record):
        text = f"its device {name} is gone from {where}"
        return endpoints.finding(record, FindingKind.DEVICE_GONE, name, None, text)
    if get_link(endpoints.host, ifindex=LOOPBACK_IFINDEX, nsid=record.nsid) is None:
        text = f"its namespace {where} has ended"
        return endpoints.finding(record, FindingKind.NAMESPACE_GONE, where, None, text)
    text = f"its device {name} is gone, and no name that this process sees leads to its namespace ({where})"
    return attrs.evolve(
        endpoints.finding(record, FindingKind.DEVICE_GONE, name, None, text), cure=Cure.COLLECT
    )


def can_enter(endpoints: LocalEndpoints, record: Record) -> bool:
    """Whether a name that this process sees leads to the endpoint's namespace."""
    with suppress(NetnsNotFoundError, PrivilegeError, KernelError):
        configuration.inside(record, endpoints.host).close()
        return True
    return False


def strangers(
    endpoints: LocalEndpoints, records: Iterable[Record], above: Mapping[Place, Link]
) -> Iterator[Finding]:
    """Findings for devices on the tunnel that belong to no record."""
    known = {(record.nsid, record.ifindex) for record in records if record.ifindex}
    # A device that is being made, or whose maker died, is found by the record without an index.
    macs = {str(record.mac) for record in records if not record.ifindex}
    for (nsid, ifindex), link in above.items():
        if (nsid, ifindex) not in known and link.mac not in macs:
            where = "the host's namespace" if nsid < 0 else f"namespace {nsid} (ip netns list-id)"
            text = f"it is a {link.kind} on {endpoints.datapath.name} in {where}, and no endpoint's"
            yield Finding(
                FindingKind.DEVICE_LEFT,
                Subject("device", link.name),
                None,
                identity_of(nsid, link),
                text,
                tunnel=endpoints.datapath.name,
                instance=(nsid + 1 << 32) + ifindex,
            )


def identity_of(nsid: int, link: Link) -> tuple[object, ...]:
    """What tells a device on a tunnel apart from others that may get its namespace's id and its index."""
    return nsid, link.ifindex, link.kind, link.mac, link.parent_ifindex, link.parent_nsid


def left_entries(endpoints: LocalEndpoints, tables: Tables) -> Iterator[Finding]:
    """Findings for entries of endpoints that have no record; each is looked at again, as reading all takes a while."""
    for table, key, value in _suspects(tables):
        if entries.is_left(endpoints.maps, table, key):
            yield _left(endpoints, table, key, value)


def _suspects(tables: Tables) -> Iterator[tuple[str, bytes, bytes]]:
    """Table, key and value of entries whose records were not among those that were read."""
    contents = tables.contents
    instances = {key: codec.instance_of(data) for key, data in contents["records"].items()}
    for key, claim in contents["slots"].items():
        if instances.get(codec.slot_holder(claim)) != codec.instance_in_slot(claim):
            yield "slots", key, claim
    for key, claim in contents["addresses"].items():
        if instances.get(codec.claimant(claim)) != codec.instance_claiming(claim):
            yield "addresses", key, claim
    for key, sender in contents["senders"].items():
        if codec.record_of(sender) not in instances:
            yield "senders", key, sender
    alive = {*instances.values()}
    for key, item in contents["items"].items():
        if codec.instance_of_item(key) not in alive:
            yield "items", key, item
    for key, value in contents["endpoints"].items():
        if codec.is_local(value) and key not in contents["addresses"]:
            yield "endpoints", key, value


def _left(endpoints: LocalEndpoints, table: str, key: bytes, value: bytes) -> Finding:
    if table == "slots":
        shown = str(int.from_bytes(key, sys.byteorder))
    elif table == "senders":
        shown = str(codec.mac_from(key))
    elif table == "items":
        shown = f"{codec.instance_of_item(key):016x}, {codec.number_of_item(key)}"
    else:
        address = codec.unpack_endpoint_key(key)
        shown = f"({address.vni}, {address.ip})"
    return Finding(
        FindingKind.ENTRY_LEFT,
        Subject("table", f"{table} of {endpoints.datapath.name}"),
        f"no {shown}",
        key.hex(),
        f"its entry {shown} belongs to an endpoint that does not exist",
        tunnel=endpoints.datapath.name,
        instance=zlib.crc32(value),  # a later entry of the key is another one
    )
