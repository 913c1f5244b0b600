# SPDX-License-Identifier: Apache-2.0
"""The set of underlay prefixes that tunnel packets are accepted from."""

from __future__ import annotations

import collections.abc
from collections.abc import Iterable, Iterator
from ipaddress import ip_network
from typing import Any, cast

from mizarnet._datapath.feeds import Edit, Feed
from mizarnet._datapath.maps import Maps
from mizarnet._kernel.bpf import Map
from mizarnet._model import codec
from mizarnet._model.arguments import IPNetwork, check_address, check_items, check_prefix, in_order
from mizarnet._model.html import table
from mizarnet._model.log import log
from mizarnet._model.public import public
from mizarnet._model.specs import AddressLike, PrefixLike
from mizarnet.errors import MizarnetError
from mizarnet.tables._changes import Changes
from mizarnet.tables._prefixes import Prefixes


@public
class PeerSet(Prefixes[IPNetwork], collections.abc.Set[IPNetwork]):
    """``agent.peers``: underlay prefixes that tunnel packets are accepted from.

    Each prefix belongs to the feed that added it, as entries do in :class:`EndpointTable`; those that
    ``TransitAgent.attach()`` added count as added by hand. Every write holds the host's lock, and so does every call
    that reads all prefixes, for the reason that :class:`NetworkTable` gives. Each call also raises what
    :class:`mizarnet.TransitAgent` raises for a handle that is closed, stale or of another process.

    Raises:
        LockTimeoutError: In each call that writes or reads all prefixes: another process held the host's lock for 10 s.
    """

    _what = "peer"

    @classmethod
    def _from_iterable(cls, it: Iterable[IPNetwork]) -> frozenset[IPNetwork]:  # type: ignore[override]
        return frozenset(it)  # the result of a set operation is no live view

    def _map(self, maps: Maps) -> Map:
        return maps.peers

    def _pack_key(self, key: object) -> bytes:
        return codec.pack_peer_key(check_prefix(cast("PrefixLike", key)))

    def _unpack_key(self, packed: bytes) -> IPNetwork:
        return codec.unpack_peer_key(packed)

    def _owner(self, value: bytes) -> int:
        return codec.peer_feed(value)

    def __contains__(self, prefix: object) -> bool:
        """Whether that very prefix is in the set; a value that can be no prefix is an error, as in ``discard``."""
        return self._find(self._pack_key(prefix)) is not None

    def __iter__(self) -> Iterator[IPNetwork]:
        return iter(self._read())

    def _read(self) -> list[IPNetwork]:
        return [self._unpack_key(key) for key, _ in self._entries()]

    def add(self, prefix: PrefixLike) -> None:
        """Accept tunnel packets from ``prefix``, by hand; again is harmless. Raises as :meth:`update` does."""
        self.update([prefix])

    def discard(self, prefix: PrefixLike) -> None:
        """No longer accept tunnel packets from ``prefix``, if that very prefix was added by hand.

        Raises:
            ForeignEntryError: The prefix belongs to a feed.
        """
        self._remove(self._pack_key(prefix))

    def update(self, prefixes: Iterable[PrefixLike], /, *, feed: str = "", take: bool = False) -> None:
        """Accept tunnel packets from all of ``prefixes``.

        Args:
            prefixes: Prefixes to add.
            feed: Name of the feed that adds them, at most 31 bytes in UTF-8; empty: by hand.
            take: Whether to take over prefixes of other feeds.

        Raises:
            ForeignEntryError: A prefix belongs to another feed; nothing was added.
            CapacityError: The prefixes do not fit, or 16 other feeds have entries; nothing was added.
        """
        writer = Feed.of(feed, take=take)
        self._update(self._pack_all(prefixes, writer, "prefixes"), writer)

    def sync(
        self, prefixes: Iterable[PrefixLike], *, feed: str = "", take: bool = False
    ) -> Changes[IPNetwork]:
        """Make the prefixes of a feed exactly ``prefixes``; those of other feeds stay.

        Args:
            prefixes: Prefixes that the feed shall have.
            feed: Name of the feed, as for :meth:`update`.
            take: Whether to take over the prefixes of other feeds that are in ``prefixes``.

        Returns:
            Numbers of prefixes that were added, taken over and removed.

        Raises:
            ForeignEntryError: As for :meth:`update`.
            CapacityError: As for :meth:`update`.
        """
        writer = Feed.of(feed, take=take)
        return self._sync(self._pack_all(prefixes, writer, "prefixes"), writer)

    def apply(
        self,
        put: Iterable[PrefixLike],
        gone: Iterable[PrefixLike] = (),
        *,
        feed: str = "",
        take: bool = False,
    ) -> Changes[IPNetwork]:
        """Add some prefixes of a feed and remove others; what is not the feed's is left alone.

        Args:
            put: Prefixes to add.
            gone: Prefixes to remove; one that is not in the set is harmless.
            feed: Name of the feed, as for :meth:`update`.
            take: Whether to take over, and to remove, the prefixes of other feeds that are named.

        Returns:
            Numbers of prefixes that were added, taken over and removed, and those of other feeds, which were left
            alone.

        Raises:
            InvalidValueError: A prefix is in ``put`` and in ``gone``.
            CapacityError: As for :meth:`update`.
        """
        writer = Feed.of(feed, take=take)
        keys = {self._pack_key(each) for each in check_items(gone, argument="gone", what="prefixes")}
        return self._apply(self._pack_all(put, writer, "put"), keys, writer)

    def _pack_all(self, prefixes: Iterable[PrefixLike], writer: Feed, argument: str) -> dict[bytes, bytes]:
        given = map(check_prefix, check_items(prefixes, argument=argument, what="prefixes"))
        return {codec.pack_peer_key(each): codec.pack_peer(each, feed=writer.number) for each in given}

    def _log_change(self, edit: Edit, feed: Feed) -> None:
        by = f" by feed {feed.name!r}" if feed.name else ""
        changes = {"added": edit.fresh, "taken over": edit.put.keys() - edit.fresh, "removed": {*edit.gone}}
        for what, keys in changes.items():
            if keys:
                prefixes = ", ".join(map(str, map(self._unpack_key, sorted(keys))))
                log.info("peers of %s: %s %s%s", self._place, prefixes, what, by)

    def covers(self, address: AddressLike) -> bool:
        """Whether any prefix of the set contains ``address``, so that tunnel packets from there are accepted."""
        key = codec.pack_peer_key(ip_network(check_address(address, argument="address")))
        return self._map(self._datapath.maps).lookup(key) is not None

    def to_dict(self) -> dict[str, Any]:
        """The prefixes as text, sorted, under the one key ``"peers"``."""
        return {"peers": [str(prefix) for prefix in self._sorted()]}

    def _sorted(self) -> list[IPNetwork]:
        return sorted(self._read(), key=in_order)

    def __repr__(self) -> str:
        return f"<PeerSet of {self._datapath.name}>"

    def _repr_html_(self) -> str:
        try:
            prefixes = self._sorted()
        except MizarnetError as error:
            return table(f"peers of {self._place}", (), [(error,)])
        return table(
            f"peers of {self._place}: {len(prefixes)}", ("prefix",), [(prefix,) for prefix in prefixes]
        )
