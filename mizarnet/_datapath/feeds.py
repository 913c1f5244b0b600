# SPDX-License-Identifier: Apache-2.0
"""The writers of entries: what a feed may change, and where its name stands.

Each entry of ``endpoints``, ``networks`` and ``peers`` carries the number of the feed that wrote it, in one write with
everything else. The number is a digest of the feed's name, and ``meta`` has the names themselves.

Names are added under the tables' lock, which nobody has while another holds the host alone. Two processes that do not
see each other's lock may still write ``meta`` at the same moment, and one name is lost. No entry changes hands by that,
since nobody hands out numbers: the same name always gives the same number, and no number is given to another name.
Until the feed writes again, which adds its name again, its entries are shown with their number. That is also why the
name of a feed without entries may give way to another name: it does no harm if that feed writes an entry at the same
moment.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Set
from itertools import chain

import attrs

from mizarnet._datapath.maps import Maps
from mizarnet._model.arguments import check_bool, check_feed
from mizarnet._model.codec import FIRST, endpoint_feed, feed_number, network_feed, peer_feed
from mizarnet._model.enumerations import Limit
from mizarnet.errors import CapacityError, InvalidValueError


@attrs.frozen
class Edit:
    """What a call changes in one table; keys and values are packed.

    Attributes:
        put: Entries to write; those that are there as they shall be are left out.
        fresh: Keys of ``put`` that the table does not have.
        gone: Keys of entries to delete.
        foreign: Numbers of the feeds whose entries are left alone, by key.
        unowned: Keys of entries that are no feed's: those of endpoints of this host.
    """

    put: Mapping[bytes, bytes]
    fresh: Set[bytes] = frozenset()
    gone: Collection[bytes] = ()
    foreign: Mapping[bytes, int] = attrs.field(factory=dict[bytes, int])
    unowned: Set[bytes] = frozenset()

    def without(self, keys: Set[bytes]) -> Edit:
        """The same but for some keys."""
        if not keys:
            return self
        return attrs.evolve(
            self,
            put={key: value for key, value in self.put.items() if key not in keys},
            fresh=self.fresh - keys,
            gone=[key for key in self.gone if key not in keys],
        )


@attrs.frozen
class Feed:
    """The writer that a call writes for.

    Attributes:
        name: Name of the feed; empty: by hand.
        number: Number that its entries carry.
        take: Whether the call takes over entries of other feeds.
    """

    name: str
    number: int
    take: bool

    @classmethod
    def of(cls, name: str, *, take: bool = False) -> Feed:
        """The feed of a name; raises ``InvalidTypeError`` or ``InvalidValueError`` if it cannot be a name."""
        return cls(check_feed(name), feed_number(name), check_bool(take, argument="take"))

    def edit(
        self,
        owner: Callable[[bytes], int | None],
        there: Mapping[bytes, bytes],
        put: Mapping[bytes, bytes],
        gone: Collection[bytes] = (),
    ) -> Edit:
        """What is left to do for a table to have some entries, and others not.

        Args:
            owner: Reads the number of the feed in a value; None: the entry is no feed's, and counts as not there.
            there: Entries that the table has of the keys that follow, and perhaps others.
            put: Entries that it shall have.
            gone: Keys that it shall not have.
        """
        # One look at each key: tens of thousands of entries are in no cache. Of their values a few are different.
        found = [*map(there.get, put)]
        leaving = {key: there[key] for key in gone if key in there}
        owners = {value: owner(value) for value in {*found, *leaving.values()} if value is not None}
        others = {value for value, number in owners.items() if number != self.number}
        seen = chain(zip(put, found, strict=True), leaving.items()) if others else ()
        holders = {key: owners[value] for key, value in seen if value is not None and value in others}
        unowned = {key for key, number in holders.items() if number is None}
        foreign = {} if self.take else {key: n for key, n in holders.items() if n is not None}
        return Edit(
            put={
                key: value
                for (key, value), before in zip(put.items(), found, strict=True)
                if value != before and key not in foreign
            },
            fresh={key for key, value in zip(put, found, strict=True) if value is None}
            | (unowned & put.keys()),
            gone=[key for key in leaving if key not in unowned and key not in foreign],
            foreign=foreign,
            unowned=unowned,
        )


BY_HAND = Feed.of("")
"""The writer of what no feed wrote."""


def refuse_twin(maps: Maps, feed: Feed) -> None:
    """Raises ``InvalidValueError`` if another feed has the same number, so that the entries of both would be one's."""
    if not feed.number:
        return
    for name in maps.read_meta().feeds:
        if name != feed.name and feed_number(name) == feed.number:
            raise InvalidValueError(
                f"feed {feed.name!r} has the number of feed {name!r}",
                argument="feed",
                value=feed.name,
                hint="choose another name",
            )


def register(maps: Maps, feed: Feed) -> None:
    """Make sure that ``meta`` has the name of a feed, for a caller that holds the tables' lock.

    Raises:
        CapacityError: There is no room for another name; nothing was changed.
    """
    meta = maps.read_meta()
    if not feed.number or feed.name in meta.feeds:
        return
    names = meta.feeds if len(meta.feeds) < Limit.FEEDS else _with_entries(maps, meta.feeds)
    maps.meta.update(FIRST, attrs.evolve(meta, feeds=(*names, feed.name)).pack())


def _with_entries(maps: Maps, names: Collection[str]) -> list[str]:
    """Those of some names whose feeds have entries; raises ``CapacityError`` if it is all of them."""
    owners = ((maps.endpoints, endpoint_feed), (maps.networks, network_feed), (maps.peers, peer_feed))
    used = {owner(value) for table, owner in owners for _, value in table.items()}
    left = [name for name in names if feed_number(name) in used]
    if len(left) == Limit.FEEDS:
        raise CapacityError(
            f"{len(left)} feeds have entries, and there is room for no more: {', '.join(map(repr, left))}",
            table="feeds",
            capacity=Limit.FEEDS,
            used=len(left),
            hint="write under one of these names, or remove the entries of one of them: sync() with nothing",
        )
    return left
