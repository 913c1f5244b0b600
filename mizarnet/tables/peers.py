# SPDX-License-Identifier: Apache-2.0
"""The set of underlay prefixes that tunnel packets are accepted from."""

from __future__ import annotations

import collections.abc
from collections.abc import Iterable, Iterator
from typing import Any, cast

from mizarnet._datapath.datapath import DataPath
from mizarnet._datapath.lock import TABLE_WRITER
from mizarnet._kernel.jobs import whole
from mizarnet._model import codec
from mizarnet._model.arguments import IPNetwork, check_address, check_items, check_prefix, in_order
from mizarnet._model.html import table
from mizarnet._model.log import log
from mizarnet._model.public import public
from mizarnet._model.specs import AddressLike, PrefixLike
from mizarnet.errors import MizarnetError


@public
class PeerSet(collections.abc.Set[IPNetwork]):
    """``agent.peers``: underlay prefixes that tunnel packets are accepted from.

    Every call holds the host's lock, for the reason that :class:`NetworkTable` gives. Each call also raises what
    :class:`mizarnet.TransitAgent` raises for a handle that is closed, stale or of another process.

    Raises:
        LockTimeoutError: In each call: another process held the host's lock for 10 s.
    """

    def __init__(self, datapath: DataPath, place: str) -> None:
        self._datapath = datapath
        self._place = place

    @classmethod
    def _from_iterable(cls, it: Iterable[IPNetwork]) -> frozenset[IPNetwork]:  # type: ignore[override]
        return frozenset(it)  # the result of a set operation is no live view

    def __contains__(self, prefix: object) -> bool:
        """Whether that very prefix is in the set; a value that can be no prefix is an error, as in ``discard``."""
        return check_prefix(cast("PrefixLike", prefix)) in self._read()

    def __iter__(self) -> Iterator[IPNetwork]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())

    @whole
    def _read(self) -> frozenset[IPNetwork]:
        with self._datapath.reading() as maps:
            return maps.read_peers()

    def add(self, prefix: PrefixLike) -> None:
        """Accept tunnel packets from ``prefix``; adding it again is harmless.

        Raises:
            CapacityError: The set is full.
        """
        self.update([prefix])

    @whole
    def discard(self, prefix: PrefixLike) -> None:
        """No longer accept tunnel packets from ``prefix``, if that very prefix is in the set."""
        packed = codec.pack_peer_key(check_prefix(prefix))
        with self._datapath.writing(*TABLE_WRITER) as maps:
            if maps.peers.delete(packed):
                log.info("peers of %s: %s removed", self._place, prefix)

    @whole
    def update(self, prefixes: Iterable[PrefixLike], /) -> None:
        """Accept tunnel packets from all of ``prefixes``.

        Raises:
            CapacityError: The prefixes do not fit; nothing was added.
        """
        given = check_items(prefixes, argument="prefixes", what="prefixes")
        checked = [check_prefix(prefix) for prefix in given]
        with self._datapath.writing(*TABLE_WRITER) as maps:
            maps.add_peers(checked)
        log.info("peers of %s: %s added", self._place, ", ".join(map(str, checked)))

    def covers(self, address: AddressLike) -> bool:
        """Whether any prefix of the set contains ``address``, so that tunnel packets from there are accepted."""
        ip = check_address(address, argument="address")
        return any(ip.version == prefix.version and ip in prefix for prefix in self)

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
