# SPDX-License-Identifier: Apache-2.0
"""The common base of the tables: entries that belong to the feeds that wrote them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Set
from typing import Generic, TypeVar, cast

from mizarnet._datapath import next_hops
from mizarnet._datapath.datapath import DataPath
from mizarnet._datapath.feeds import BY_HAND, Edit, Feed, refuse_twin, register
from mizarnet._datapath.lock import TABLE_WRITER
from mizarnet._datapath.maps import Maps, find, present, write
from mizarnet._kernel.bpf import Map
from mizarnet._kernel.jobs import whole
from mizarnet._model.arguments import check_items
from mizarnet._model.codec import feed_text
from mizarnet._model.log import log
from mizarnet._model.public import public
from mizarnet._model.specs import EndpointKey
from mizarnet.errors import (
    EntryNotFoundError,
    ForeignEntryError,
    InvalidTypeError,
    InvalidValueError,
    LocalEndpointError,
    MizarnetError,
)
from mizarnet.tables._changes import Changes

K = TypeVar("K")
V = TypeVar("V")


@public
class Owned(Generic[K]):
    """A map of the agent, each of whose entries belongs to the feed that wrote it."""

    _what: str

    def __init__(self, datapath: DataPath, place: str) -> None:
        self._datapath = datapath
        self._place = place

    # -- what each table is made of

    def _map(self, maps: Maps) -> Map:
        raise NotImplementedError

    def _pack_key(self, key: object) -> bytes:
        raise NotImplementedError

    def _unpack_key(self, packed: bytes) -> K:
        raise NotImplementedError

    def _owner(self, value: bytes) -> int | None:
        """Number of the feed that an entry belongs to; None: it is no feed's."""
        raise NotImplementedError

    def _held(self, maps: Maps, local: Set[bytes], keys: Set[bytes]) -> set[bytes]:
        """Those of some keys that endpoints of this host have, after those without a device gave theirs up.

        Args:
            maps: Maps of the data path.
            local: Keys whose entries are of endpoints of this host; these may claim others.
            keys: All keys that are asked for.
        """
        return set()

    def _reclaimed(self, maps: Maps, keys: Collection[bytes]) -> set[bytes]:
        """Those of some keys that endpoints of this host have, after their entries were written again."""
        return set()

    def _begin(self, maps: Maps, edit: Edit, there: Mapping[bytes, bytes]) -> bool:
        """Before a change: whether the table of next hops' hosts must be made anew after it."""
        return False

    # -- read

    def _find(self, packed: bytes) -> bytes | None:
        return find(self._map(self._datapath.maps), packed)

    def _entries(self) -> list[tuple[bytes, bytes]]:
        return list(self._map(self._datapath.maps).items())

    def _value(self, key: object) -> bytes:
        value = self._find(self._pack_key(key))
        if value is None:
            raise EntryNotFoundError(f"no {self._what} {key!r}")
        return value

    def feed_of(self, key: object) -> str:
        """Name of the feed that an entry belongs to; empty: it was written by hand, or is of an endpoint of this host.

        A name can be lost, if processes that do not see each other's lock write at the same moment. Until the feed
        writes again, its name is shown as ``?`` and eight hexadecimal digits.

        Raises:
            EntryNotFoundError: There is no entry of that key.
        """
        return self._name_of(self._owner(self._value(key)) or 0)

    def feeds(self) -> dict[str, int]:
        """Number of entries of each feed that has any, by its name; empty: by hand. Reads the whole table."""
        owners = Counter(self._owner(value) for _, value in self._entries())
        return {self._name_of(number): count for number, count in owners.items() if number is not None}

    def _name_of(self, number: int) -> str:
        return feed_text(number, self._datapath.maps.read_meta().feeds if number else ())

    # -- written

    @whole
    def _update(self, put: Mapping[bytes, bytes], feed: Feed) -> None:
        with self._datapath.writing(*TABLE_WRITER) as maps:
            self._change(maps, feed, present(self._map(maps), put.keys()), put)

    @whole
    def _sync(
        self, put: Mapping[bytes, bytes], feed: Feed, within: Callable[[bytes], bool] = lambda _: True
    ) -> Changes[K]:
        with self._datapath.writing(*TABLE_WRITER) as maps:
            there = dict(self._map(maps).items())
            superfluous = [
                key
                for key, value in there.items()
                if key not in put and self._owner(value) == feed.number and within(key)
            ]
            return self._change(maps, feed, there, put, superfluous=superfluous)

    def _apply(self, put: Mapping[bytes, bytes], gone: Set[bytes], feed: Feed) -> Changes[K]:
        both = next(iter(put.keys() & gone), None)
        if both is not None:
            key = self._unpack_key(both)
            raise InvalidValueError(f"{_text(key)} is to be put and to be gone", argument="gone", value=key)
        return self._apply_disjoint(put, gone, feed)

    @whole
    def _apply_disjoint(self, put: Mapping[bytes, bytes], gone: Set[bytes], feed: Feed) -> Changes[K]:
        with self._datapath.writing(*TABLE_WRITER) as maps:
            there = present(self._map(maps), put.keys() | gone)
            return self._change(maps, feed, there, put, gone, partly=True)

    @whole
    def apply_seen(
        self, put: Mapping[bytes, bytes], gone: Set[bytes], feed: Feed, seen: Mapping[bytes, bytes]
    ) -> set[bytes]:
        """Write and delete entries that are as they were seen, or as they shall be; the keys of the others.

        Not for users: keys and values are packed.
        """
        with self._datapath.writing(*TABLE_WRITER) as maps:
            there = present(self._map(maps), put.keys() | gone)
            stale = {
                key
                for key in put.keys() | gone
                if there.get(key) != seen.get(key) and there.get(key) != put.get(key)
            }
            fresh = {key: value for key, value in put.items() if key not in stale}
            done = self._change(maps, feed, there, fresh, gone - stale, partly=True)
            return stale | {self._pack_key(key) for key in [*done.local, *done.refused]}

    @whole
    def _remove(self, packed: bytes) -> bool:
        """Remove an entry that was written by hand; whether there was one of that key."""
        with self._datapath.writing(*TABLE_WRITER) as maps:
            there = present(self._map(maps), {packed})
            self._change(maps, BY_HAND, there, {}, {packed})
        return packed in there

    def _change(
        self,
        maps: Maps,
        feed: Feed,
        there: Mapping[bytes, bytes],
        put: Mapping[bytes, bytes],
        gone: Set[bytes] = frozenset(),
        *,
        superfluous: Collection[bytes] = (),
        partly: bool = False,
    ) -> Changes[K]:
        """Write some entries and delete others, all or none.

        Args:
            maps: Maps of the data path; the caller holds the tables' lock.
            feed: Writer of the entries.
            there: Entries that the table has of the keys that follow, and perhaps others.
            put: Entries to write.
            gone: Keys to delete that the caller named.
            superfluous: Keys of other entries of the feed, to delete as well.
            partly: Whether keys of endpoints of this host and of other feeds are left alone, and are no errors.
        """
        refuse_twin(maps, feed)
        edit = feed.edit(self._owner, there, put, [*gone, *superfluous])
        if edit.foreign and not partly:
            raise self._foreign_error(edit.foreign)
        held = self._held(maps, edit.unowned, put.keys() | gone if gone else put.keys())
        if held and not partly:
            raise self._local_error(held)
        if any(key not in edit.foreign and key not in held for key in put):
            register(maps, feed)
        edit = edit.without(held)
        lost = self._write(maps, edit, there)
        self._log_change(edit, feed)
        if lost and not partly:
            raise self._local_error(lost)
        return self._changes(edit.without(lost), held | lost)

    def _write(self, maps: Maps, edit: Edit, there: Mapping[bytes, bytes]) -> set[bytes]:
        """Write and delete; the written keys that endpoints of this host got meanwhile, and have back.

        A process that does not see the lock may have made one.
        """
        try:
            to_renew = self._begin(maps, edit, there)
            if edit.put or edit.gone:
                write(self._map(maps), edit.put, leaving=edit.gone, before=there)
            self._reclaimed(maps, edit.gone)
            lost = self._reclaimed(maps, list(edit.put))
            if to_renew:
                next_hops.renew(maps)
        except MizarnetError as failure:
            try:
                self._put_back(maps, edit, there)
                next_hops.mend(maps)
            except MizarnetError as refused:
                failure.add_note(
                    f"some entries of {self._map(maps).name} are as the call wrote them: {refused}"
                )
            raise
        return lost

    def _put_back(self, maps: Maps, edit: Edit, there: Mapping[bytes, bytes]) -> None:
        """Make the entries of a change as they were before it."""
        table, keys = self._map(maps), [*edit.put, *edit.gone]
        before = {key: there[key] for key in keys if key in there}
        table.delete_many(key for key in edit.put if key not in before)
        table.update_many(before)
        self._reclaimed(maps, keys)

    def _changes(self, edit: Edit, local: Set[bytes]) -> Changes[K]:
        names = {number: self._name_of(number) for number in set(edit.foreign.values())}
        added = len(edit.fresh)
        return Changes(
            added=added,
            changed=len(edit.put) - added,
            removed=len(edit.gone),
            local=tuple(cast("EndpointKey", self._unpack_key(key)) for key in sorted(local)),
            refused={self._unpack_key(key): names[number] for key, number in edit.foreign.items()},
        )

    def _log_change(self, edit: Edit, feed: Feed) -> None:
        if edit.put or edit.gone:
            by = f", by feed {feed.name!r}" if feed.name else ""
            counts = len(edit.put), len(edit.gone)
            log.info("%ss on %s: %d written, %d removed%s", self._what, self._place, *counts, by)

    def _foreign_error(self, foreign: Mapping[bytes, int]) -> ForeignEntryError:
        packed, number = next(iter(foreign.items()))
        key, owner = self._unpack_key(packed), self._name_of(number)
        whose = f"belongs to feed {owner!r}" if owner else "was written by hand"
        more = f", and {len(foreign) - 1} more are not this feed's" if len(foreign) > 1 else ""
        return ForeignEntryError(
            f"{_text(key)} {whose}{more}",
            key=key,
            feed=owner,
            hint="leave it alone, or take it over with take=True; apply({}, gone=[key], take=True) removes it",
        )

    def _local_error(self, held: Set[bytes]) -> LocalEndpointError:
        key = self._unpack_key(min(held))
        return LocalEndpointError(
            f"{_text(key)} is an endpoint of this host", hint="use Endpoint to change or delete it"
        )


def _text(key: object) -> str:
    return f"({', '.join(map(str, cast('tuple[object, ...]', key)))})" if isinstance(key, tuple) else str(key)


def pairs(entries: Mapping[K, V] | Iterable[tuple[K, V]], *, argument: str) -> Iterable[tuple[K, V]]:
    """An argument as pairs of key and value, whose types are not checked here."""
    if isinstance(entries, Mapping):
        return cast("Mapping[K, V]", entries).items()
    checked = check_items(entries, argument=argument, what="pairs of key and value")
    return (_pair(each, argument) for each in checked)


def _pair(entry: tuple[K, V], argument: str) -> tuple[K, V]:
    try:
        key, value = entry
    except (TypeError, ValueError):
        raise InvalidTypeError(
            f"an entry is a pair of key and value, not {type(entry).__name__}", argument=argument
        ) from None
    return key, value
