# SPDX-License-Identifier: Apache-2.0
"""The entries of a host's specification, compared with those of the agent's tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import attrs

from mizarnet._datapath.datapath import DataPath
from mizarnet._datapath.feeds import Feed
from mizarnet._datapath.maps import Maps
from mizarnet._kernel.bpf import Map
from mizarnet._kernel.jobs import whole
from mizarnet._model import codec
from mizarnet._model.arguments import IPAddress
from mizarnet._model.finding import Action, Change, Subject
from mizarnet._model.specs import EndpointKey, Local, Network, NetworkKey, Remote
from mizarnet._plain import text
from mizarnet.errors import InvalidValueError
from mizarnet.plan.step import EntryStep, Rank
from mizarnet.tables import EndpointTable, NetworkTable, PeerSet


@attrs.frozen
class Table:
    """A table that a specification has entries of.

    Attributes:
        name: Attribute of the agent that it is.
        kind: What one of its entries is called.
        cls: Its class.
        of: Map of it.
        owner: Reads the number of the feed of a packed value; None: an endpoint's of this host.
        show: Makes text of a packed key.
        read: Makes what users see of a packed value.
        put: Rank of entries that come.
        gone: Rank of entries that go.
    """

    name: str
    kind: str
    cls: type[EndpointTable] | type[NetworkTable] | type[PeerSet]
    of: Callable[[Maps], Map]
    owner: Callable[[bytes], int | None]
    show: Callable[[bytes], str]
    read: Callable[[bytes], Any]
    put: Rank
    gone: Rank

    @whole
    def entries(self, datapath: DataPath | None) -> dict[bytes, bytes]:
        """All entries, packed; without a data path there are none."""
        if datapath is None:
            return {}
        with datapath.reading() as maps:
            return dict(self.of(maps).items())


def _remote_owner(value: bytes) -> int | None:
    return None if codec.is_local(value) else codec.endpoint_feed(value)


def _show_endpoint(key: bytes) -> str:
    found = codec.unpack_endpoint_key(key)
    return f"{found.vni}/{found.ip}"


def _show_network(key: bytes) -> str:
    found = codec.unpack_network_key(key)
    return f"{found.vni}/{found.prefix}"


NETWORKS = Table(
    "networks", "network", NetworkTable, lambda maps: maps.networks, codec.network_feed, _show_network,
    codec.unpack_network, Rank.NETWORKS, Rank.NETWORKS_GO,
)  # fmt: skip
PEERS = Table(
    "peers", "peer", PeerSet, lambda maps: maps.peers, codec.peer_feed,
    lambda key: str(codec.unpack_peer_key(key)), lambda value: "accepted", Rank.PEERS, Rank.PEERS_GO,
)  # fmt: skip
REMOTES = Table(
    "endpoints", "remote", EndpointTable, lambda maps: maps.endpoints, _remote_owner, _show_endpoint,
    codec.unpack_endpoint, Rank.REMOTES, Rank.REMOTES_GO,
)  # fmt: skip
TABLES = {each.name: each for each in (NETWORKS, PEERS, REMOTES)}


def packed_networks(networks: Mapping[NetworkKey, Network], feed: Feed) -> dict[bytes, bytes]:
    """Networks as their map has them."""
    return {
        codec.pack_network_key(key): codec.pack_network(key, each, feed=feed.number)
        for key, each in networks.items()
    }


def packed_remotes(remotes: Mapping[EndpointKey, Remote], feed: Feed) -> dict[bytes, bytes]:
    """Remotes as their map has them; of one host each entry has the same bytes."""
    values = {each: codec.pack_endpoint(each, feed=feed.number) for each in set(remotes.values())}
    return {codec.pack_endpoint_key(key): values[each] for key, each in remotes.items()}


@attrs.frozen
class Difference:
    """How a table differs from what it shall have.

    Attributes:
        steps: Entries to write or delete.
        conflicts: Entries that are another feed's, and are left alone.
        local: Entries that shall lead elsewhere, and are of endpoints of this host, by packed key.
    """

    steps: list[EntryStep]
    conflicts: list[Change]
    local: dict[bytes, bytes]


def compare(
    table: Table,
    there: Mapping[bytes, bytes],
    wanted: Mapping[bytes, bytes],
    feed: Feed,
    name_of: Callable[[int], str],
    *,
    prune: bool,
) -> Difference:
    """What makes a table have its wanted entries, and no others of the feed if it is to be pruned."""
    found = Difference([], [], {})
    view = _View(table)
    for key, value in wanted.items():
        have = there.get(key)
        if have == value:
            continue
        number = None if have is None else table.owner(have)
        if have is None:
            found.steps.append(view.step("create", key, value, None))
        elif number is None:
            found.local[key] = value
        elif number == feed.number:
            found.steps.append(view.step("update", key, value, have))
        elif table.read(have) != table.read(value):
            found.conflicts.append(_conflict(table, key, value, have, name_of(number)))
    if prune:
        for key, have in there.items():
            if key not in wanted and table.owner(have) == feed.number:
                found.steps.append(view.step("delete", key, None, have))
    return found


@attrs.frozen
class _View:
    """What users see of a table; of thousands of entries that have one value, that is made once.

    Attributes:
        table: The table.
        values: What is seen of a packed value, and its text.
    """

    table: Table
    values: dict[bytes, tuple[Any, str]] = attrs.field(factory=dict[bytes, "tuple[Any, str]"], init=False)

    def _look(self, value: bytes | None) -> tuple[Any, str]:
        if value is None:
            return None, ""
        seen = self.values.get(value)
        if seen is None:
            read = self.table.read(value)
            seen = self.values[value] = (read, text(read))
        return seen

    def step(self, action: Action, key: bytes, value: bytes | None, have: bytes | None) -> EntryStep:
        """The step that writes or deletes an entry."""
        table = self.table
        (wanted, shown), (there, before) = self._look(value), self._look(have)
        reason = {"create": shown, "update": f"{before} -> {shown}"}.get(action, "not in the specification")
        subject = Subject(table.kind, table.show(key))
        change = Change(action, subject, wanted, there, reason, action == "delete" and table is not NETWORKS)
        rank = table.gone if value is None else table.put
        return EntryStep(change, rank, table.name, key, value, have)


def step_of(table: Table, action: Action, key: bytes, value: bytes | None, have: bytes | None) -> EntryStep:
    """The step that writes or deletes one entry."""
    return _View(table).step(action, key, value, have)


def _conflict(table: Table, key: bytes, value: bytes, have: bytes, feed: str) -> Change:
    wanted, there = table.read(value), table.read(have)
    whose = f"of feed {feed!r}" if feed else "written by hand"
    reason = f"is {text(there)}, {whose}, and not {text(wanted)}; it is left alone"
    return Change("update", Subject(table.kind, table.show(key)), wanted, there, reason)


def local_conflict(key: bytes, value: bytes, have: bytes) -> Change:
    """The change of an entry that an endpoint of this host has, and keeps."""
    wanted = codec.unpack_endpoint(value)
    there = codec.unpack_endpoint(have)
    assert isinstance(there, Local)
    reason = f"is an endpoint of this host ({there.mac}), and not {text(wanted)}; it is left alone"
    return Change("update", Subject("remote", _show_endpoint(key)), wanted, there, reason)


def heir_change(key: bytes, value: bytes, have: bytes, endpoint: str) -> Change:
    """The change of an entry that goes over from an endpoint of this host to another host."""
    wanted = codec.unpack_endpoint(value)
    reason = f"endpoint {endpoint} of this host -> {text(wanted)}"
    return Change(
        "update", Subject("remote", _show_endpoint(key)), wanted, codec.unpack_endpoint(have), reason
    )


def refuse_host(host: IPAddress, local: IPAddress, *, what: str) -> None:
    """Raises ``InvalidValueError`` for a host that entries of a tunnel from ``local`` cannot lead to."""
    if host.version != local.version:
        wrong = f"the tunnel's underlay is IPv{local.version}"
    elif host == local and what != NETWORKS.name:  # whose switch this host may be
        wrong = "it is this host"
    else:
        return
    raise InvalidValueError(f"{what}: host {host}: {wrong}", argument="spec", value=host)


def _hosts(table: Table, values: Iterable[bytes]) -> Iterator[IPAddress]:
    for each in map(table.read, values):
        if isinstance(each, Remote):
            yield each.host
        elif isinstance(each, Network):
            yield from each.switches


def write(datapath: DataPath, place: str, table: Table, steps: list[EntryStep], feed: Feed) -> set[bytes]:
    """Make changes of one table together, each if its entry is as it was seen; keys of those that were not."""
    put = {step.key: step.value for step in steps if step.value is not None}
    for host in _hosts(table, set(put.values())):
        refuse_host(host, datapath.local, what=table.name)
    gone = {step.key for step in steps if step.value is None}
    seen = {step.key: step.seen for step in steps if step.seen is not None}
    return table.cls(datapath, place).apply_seen(put, gone, feed, seen)


def names_of(datapath: DataPath | None) -> Iterator[tuple[int, str]]:
    """Names of the feeds that have entries, by their numbers."""
    yield 0, ""
    if datapath is not None:
        for name in datapath.maps.read_meta().feeds:
            yield codec.feed_number(name), name
