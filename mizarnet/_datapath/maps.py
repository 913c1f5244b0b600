# SPDX-License-Identifier: Apache-2.0
"""The maps of one data path: their names and shapes, and opening, reading and writing them."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Set
from contextlib import ExitStack, contextmanager, suppress

import attrs

from mizarnet._kernel.bpf import Map, MapType, Object, UpdateMode
from mizarnet._model import layouts
from mizarnet._model.arguments import IPNetwork
from mizarnet._model.codec import (
    FIRST,
    Meta,
    Record,
    Switching,
    claimant,
    instance_claiming,
    instance_of,
    is_network_of,
    is_peer_of,
    pack_peer,
    pack_peer_key,
    prefix_length_of,
    unpack_peer_key,
)
from mizarnet._model.enumerations import Limit
from mizarnet.errors import CapacityError, ExistsError, LayoutError, MizarnetError

_NUMBER = 4  # size in bytes of a key or value that is a __u32
_STAMP = 8  # size in bytes of a stamp
_SHAPES = {
    "endpoints": (MapType.HASH, layouts.ENDPOINT_KEY.size, layouts.ENDPOINT.size),
    "senders": (MapType.HASH, layouts.MAC.size, layouts.SENDER.size),
    "networks": (MapType.LPM_TRIE, layouts.NETWORK_KEY.size, layouts.NETWORK.size),
    "routers": (MapType.HASH, layouts.ROUTER_KEY.size, layouts.ROUTER.size),
    "vias": (MapType.HASH, layouts.ENDPOINT_KEY.size, _NUMBER),
    "peers": (MapType.LPM_TRIE, layouts.PEER_KEY.size, layouts.PEER.size),
    "verdicts": (MapType.PERCPU_ARRAY, _NUMBER, layouts.COUNTER.size),
    "traffic": (MapType.PERCPU_ARRAY, _NUMBER, layouts.TRAFFIC.size),
    "drops": (MapType.LRU_HASH, layouts.DROP_KEY.size, layouts.COUNTER.size),
    "records": (MapType.HASH, layouts.RECORD_KEY.size, layouts.RECORD.size),
    "items": (MapType.HASH, layouts.ITEM_KEY.size, layouts.ITEM.size),
    "slots": (MapType.HASH, _NUMBER, layouts.SLOT.size),
    "addresses": (MapType.HASH, layouts.ENDPOINT_KEY.size, layouts.ADDRESS.size),
    "meta": (MapType.ARRAY, _NUMBER, layouts.META.size),
    "switching": (MapType.ARRAY, _NUMBER, layouts.SWITCHING.size),
    "changes": (MapType.ARRAY, _NUMBER, _STAMP),
    "readers": (MapType.ARRAY, _NUMBER, layouts.READER.size),
    "rings": (MapType.ARRAY_OF_MAPS, _NUMBER, _NUMBER),
    "heard": (MapType.PERCPU_ARRAY, _NUMBER, layouts.HEARD.size),
    ".data.attention": (MapType.ARRAY, _NUMBER, layouts.ATTENTION.size),
    "lifeline": (MapType.DEVMAP, _NUMBER, _NUMBER),
    "landing": (MapType.DEVMAP, _NUMBER, _NUMBER),
    ".rodata.config": (MapType.ARRAY, _NUMBER, layouts.CONFIG.size),
}
"""Type of each map, and the sizes of its key and value in bytes, by the map's name in the kernel."""
_SIZED_BY = {"endpoints": "max_endpoints", **dict.fromkeys(("senders", "addresses", "items"), "max_local")}
"""Argument of ``TransitAgent.attach()`` that sets a map's size."""
_IS_OF = {"networks": is_network_of, "peers": is_peer_of}
"""Tells from key and value whether an entry that an LPM trie found is the very one, by the map's name."""


@attrs.frozen
class Maps:
    """The maps of a data path, by name: the same ones in every data path of schema ``Limit.SCHEMA``."""

    endpoints: Map
    senders: Map
    networks: Map
    routers: Map
    vias: Map
    peers: Map
    verdicts: Map
    traffic: Map
    drops: Map
    records: Map
    items: Map
    slots: Map
    addresses: Map
    meta: Map
    switching: Map
    changes: Map
    readers: Map
    rings: Map
    heard: Map
    attention: Map
    lifeline: Map
    landing: Map
    config: Map

    @classmethod
    def of(cls, loaded: Object) -> Maps:
        """The maps of a loaded object, which keeps their descriptors; raises ``LayoutError`` as :meth:`open` does."""
        return cls._checked(loaded.maps)

    @classmethod
    def open(cls, ids: Iterable[int]) -> Maps | None:
        """Open the maps of a program by their ids; None if one of them is gone by now.

        Raises:
            LayoutError: The maps are not those of this schema.
            PrivilegeError: ``CAP_SYS_ADMIN`` is missing.
        """
        with ExitStack() as undo:
            found: dict[str, Map] = {}
            for map_id in ids:
                each = Map.open_id(map_id)
                if each is None:
                    return None
                if each.name in found or each.name not in _SHAPES:
                    each.close()
                    continue
                found[each.name] = each
                undo.callback(each.close)
            maps = cls._checked(found)
            undo.pop_all()
            return maps

    @classmethod
    def _checked(cls, found: Mapping[str, Map]) -> Maps:
        differences = [*_differences(found)]
        if differences:
            raise LayoutError(
                f"the maps of the transit agent are not those of schema {Limit.SCHEMA}: {'; '.join(differences)}",
                struct="maps",
                differences=differences,
                hint="use the version of mizarnet that attached it, or delete the tunnel with force=True",
            )
        return cls(**{_attribute(name): found[name] for name in _SHAPES})

    @property
    def lifelines(self) -> tuple[Map, Map]:
        """The maps that have the tunnel's device as long as it is there: for the switch, and for the shortcut."""
        return self.lifeline, self.landing

    def all(self) -> list[Map]:
        """All maps, in the order of their names in this class."""
        return [getattr(self, attribute.name) for attribute in attrs.fields(type(self))]

    def by_name(self) -> dict[str, Map]:
        """All maps by their names in the kernel, which are those in the object file."""
        return dict(zip(_SHAPES, self.all(), strict=True))

    def read_meta(self) -> Meta:
        """Content of the map ``meta``."""
        return Meta.unpack(self.meta.lookup(FIRST) or bytes(self.meta.value_size))

    def read_switching(self) -> Switching:
        """Content of the map ``switching``."""
        return Switching.unpack(self.switching.lookup(FIRST) or bytes(self.switching.value_size))

    def count_replacement(self) -> None:
        """Count a replaced program in ``meta``: the kernel's count of the old program's runs is lost with it."""
        meta = self.read_meta()
        self.meta.update(FIRST, attrs.evolve(meta, generation=meta.generation + 1).pack())

    def restore_local(self, key: bytes) -> bool:
        """Write the entry of the local endpoint that claims an address; whether there is such an endpoint.

        A process that does not see the caller's lock may have claimed the address while another entry was written, or
        may be about to give it up.

        Args:
            key: Packed key of ``endpoints`` and ``addresses``.
        """
        while (claim := self.addresses.lookup(key)) is not None:
            data = self.records.lookup(claimant(claim))
            if data is None or instance_of(data) != instance_claiming(claim):
                return False
            own = Record.unpack(data).pack_endpoint(prefix_length_of(claim))
            self.endpoints.update(key, own)
            if self.addresses.lookup(key) == claim:
                return True
            take_own(self.endpoints, key, own.__eq__)  # given up meanwhile: remove the entry again
        return False

    def add_peers(self, prefixes: Iterable[IPNetwork]) -> None:
        """Add prefixes to the peers; raises ``CapacityError``, with nothing added, if they do not fit."""
        write(self.peers, {pack_peer_key(prefix): pack_peer(prefix) for prefix in prefixes})

    def read_peers(self) -> frozenset[IPNetwork]:
        """Prefixes of the peers, for a caller that holds the host's lock."""
        return frozenset(map(unpack_peer_key, self.peers.keys()))

    def stamp(self) -> None:
        """Write a new stamp into ``changes``: a random one, so that two writers never leave the same."""
        self.changes.update(FIRST, os.urandom(_STAMP))

    def let_go(self) -> None:
        """Release the maps, but keep their descriptors taken until :meth:`close`, since other threads may use them."""
        for each in self.all():
            each.let_go()

    def retire(self) -> None:
        """Release the maps, and close each descriptor when no other thread uses it any more."""
        for each in self.all():
            each.retire()

    def close(self) -> None:
        """Close the descriptors."""
        for each in self.all():
            each.close()


def write(
    target: Map,
    entries: Mapping[bytes, bytes],
    *,
    leaving: Collection[bytes] = (),
    before: Mapping[bytes, bytes] | None = None,
) -> None:
    """Write all entries in place of those ``leaving``, which are deleted first, so that a full table can be renewed.

    The kernel keeps no count of a table's entries. Whether a few new ones fit into a hash table is seen by adding them,
    before anything else is written; if they do not, they are removed again. Before many are added, or any to an LPM
    trie, from which no entry can be taken in one step, those that are there are counted.

    Args:
        target: Hash table or LPM trie.
        entries: Packed values by packed key.
        leaving: Packed keys of existing entries to delete.
        before: What the table has of all these keys, if the caller has just read it.

    Raises:
        CapacityError: The entries do not fit; nothing was changed.
    """
    if before is None:
        before = present(target, {*entries, *leaving})
    left = {key: before[key] for key in leaving if key in before}
    new = {key: value for key, value in entries.items() if key not in before}
    if len(new) > FEW or target.type is MapType.LPM_TRIE:
        if new:
            used = target.count() - len(left)
            if used + len(new) > target.max_entries:
                raise _unfit(target, entries, used)
        target.delete_many(left)
        target.update_many(entries)
        return
    added: dict[bytes, bytes] = {}
    with _taken_back(target, added, left):
        try:
            target.delete_many(left)
            for key, value in new.items():
                with suppress(ExistsError):  # another process added it meanwhile
                    target.update(key, value, mode=UpdateMode.NOEXIST)
                    added[key] = value
        except CapacityError:
            raise _unfit(target, entries, target.count() - len(added)) from None
        target.update_many(entries)


@contextmanager
def _taken_back(
    target: Map, added: Mapping[bytes, bytes], left: Mapping[bytes, bytes]
) -> Generator[None, None, None]:
    """If the block fails, take back what it added, and write back what left for it; the error is the block's."""
    try:
        yield
    except MizarnetError as failure:
        try:
            for key, value in added.items():
                take_own(target, key, value.__eq__)
            for key, value in left.items():
                with suppress(ExistsError, CapacityError):  # another process has it, or its place
                    target.update(key, value, mode=UpdateMode.NOEXIST)
        except MizarnetError as refused:
            failure.add_note(f"some entries of {target.name} stay: {refused}")
        raise


def _unfit(target: Map, entries: Collection[bytes], used: int) -> CapacityError:
    room = target.max_entries
    return full(
        target, used, f"{len(entries)} entries do not fit into {target.name}: {used} of {room} are used"
    )


FEW = 4096
"""Number of keys up to which each is looked up; for more keys the whole table is read."""


def find(table: Map, key: bytes) -> bytes | None:
    """The entry of that very key of a hash table or LPM trie; it needs no lock.

    An LPM trie finds the longest prefix that contains the key's. To write it, the kernel puts new nodes in the place of
    old ones, and frees these after all look-ups that may have reached them. So one look-up finds an entry that stays;
    only a walk from node to node may step past it.
    """
    value = table.lookup(key)
    if value is None or table.type is not MapType.LPM_TRIE:
        return value
    return value if _IS_OF[table.name](key, value) else None


def present(table: Map, keys: Set[bytes]) -> dict[bytes, bytes]:
    """The entries that a table has of some keys, and perhaps others, for a caller that holds the tables' lock."""
    if len(keys) > FEW:
        return dict(table.items())
    found = ((key, find(table, key)) for key in keys)
    return {key: value for key, value in found if value is not None}


def full(table: Map, used: int, text: str) -> CapacityError:
    """The error for a table that is full."""
    argument = _SIZED_BY.get(table.name)
    hint = (
        f"attach the agent with a larger {argument}"
        if argument
        else "remove entries first: its size is fixed"
    )
    return CapacityError(text, table=table.name, capacity=table.max_entries, used=used, hint=hint)


def take_own(table: Map, key: bytes, is_own: Callable[[bytes], bool]) -> bytes | None:
    """Delete an entry of a hash table if it is the caller's own.

    The kernel has no compare-and-delete: an entry of another owner is written back, unless its owner wrote it again.

    Args:
        table: Hash table.
        key: Packed key of the entry.
        is_own: Tells from a value whether the entry is the caller's.

    Returns:
        Value of the deleted entry; None if nothing was deleted.
    """
    value = table.lookup(key)
    if value is None or not is_own(value):
        return None
    taken = table.take(key)
    if taken is None or is_own(taken):
        return taken
    with suppress(ExistsError):
        table.update(key, taken, mode=UpdateMode.NOEXIST)
    return None


def _attribute(name: str) -> str:
    return name.rpartition(".")[2]  # of a section: what it holds


def _differences(found: Mapping[str, Map]) -> Iterable[str]:
    """Differences from the schema. Types and sizes are compared too, since any map may have one of the names."""
    for name, shape in _SHAPES.items():
        each = found.get(name)
        if each is None:
            yield f"there is no map {name!r}"
        elif each.name != name or (each.type, each.key_size, each.value_size) != shape:
            yield f"{name!r} is a {each.type.name} map {each.name!r} of {each.key_size} + {each.value_size} bytes"
