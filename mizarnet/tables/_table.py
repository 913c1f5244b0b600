# SPDX-License-Identifier: Apache-2.0
"""The common base of the tables: a mapping over one map of the agent."""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, Mapping, ValuesView
from typing import Any, Generic, TypeVar, cast

from mizarnet._datapath.datapath import DataPath
from mizarnet._datapath.maps import Maps
from mizarnet._kernel.bpf import Map
from mizarnet._model.arguments import IPAddress, IPNetwork, check_items, in_order
from mizarnet._model.html import table
from mizarnet._model.log import log
from mizarnet._model.public import public
from mizarnet._plain import plain
from mizarnet.errors import EntryNotFoundError, InvalidTypeError, InvalidValueError, MizarnetError

K = TypeVar("K")
V = TypeVar("V")


@public
class Table(Mapping[K, V], Generic[K, V]):
    """A map of the agent as a mapping with typed keys and values."""

    _what: str
    _rows: str
    _header: tuple[str, str, str]

    def __init__(self, datapath: DataPath, local: IPAddress, place: str) -> None:
        self._datapath = datapath
        self._tunnel_local = local
        self._place = place

    def _map(self, maps: Maps) -> Map:
        raise NotImplementedError

    def _pack_key(self, key: object) -> bytes:
        raise NotImplementedError

    def _unpack(self, key: bytes, value: bytes) -> tuple[K, V]:
        raise NotImplementedError

    def _find(self, packed: bytes) -> bytes | None:
        return self._map(self._datapath.maps).lookup(packed)

    def _entries(self) -> list[tuple[bytes, bytes]]:
        return list(self._map(self._datapath.maps).items())

    def __getitem__(self, key: object) -> V:
        packed = self._pack_key(key)
        value = self._find(packed)
        if value is None:
            raise EntryNotFoundError(f"no {self._what} {key!r}")
        return self._unpack(packed, value)[1]

    def __contains__(self, key: object) -> bool:
        """Whether there is an entry of that key; a value that can be no key is an error, as it is in ``[]``."""
        return self._find(self._pack_key(key)) is not None

    def __iter__(self) -> Iterator[K]:
        return iter(self.snapshot())

    def __len__(self) -> int:
        """Number of entries. Reads the whole table: the kernel keeps no count."""
        return self._map(self._datapath.maps).count()

    def items(self) -> ItemsView[K, V]:
        """Keys and values of one :meth:`snapshot`."""
        return self.snapshot().items()

    def values(self) -> ValuesView[V]:
        """Values of one :meth:`snapshot`."""
        return self.snapshot().values()

    def snapshot(self) -> dict[K, V]:
        """All entries, read in batches; one that changes meanwhile is read as it was before or after the change."""
        return dict(self._unpack(key, value) for key, value in self._entries())

    def _log_change(self, *, written: int = 0, removed: int = 0) -> None:
        if written or removed:
            log.info("%ss on %s: %d written, %d removed", self._what, self._place, written, removed)

    def _check_host(self, host: IPAddress, argument: str) -> None:
        if host.version != self._tunnel_local.version:
            raise InvalidValueError(
                f"{argument} {host}: the tunnel's underlay is IPv{self._tunnel_local.version}",
                argument=argument,
                value=host,
            )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._datapath.name}>"

    def to_dict(self) -> dict[str, Any]:
        """The entries of one :meth:`snapshot`, sorted, by ``"<vni>/<address>"``, in a form that JSON can hold."""
        return cast("dict[str, Any]", plain(dict(self._sorted())))

    def _sorted(self) -> list[tuple[K, V]]:
        return sorted(self.snapshot().items(), key=lambda entry: _order(entry[0]))

    def _repr_html_(self) -> str:
        try:
            entries = self._sorted()
        except MizarnetError as error:
            return table(f"{self._rows} on {self._place}", (), [(error,)])
        caption = f"{self._rows} on {self._place}: {len(entries):,}"
        return table(caption, self._header, [(*_pair_of(key), value) for key, value in entries])


def _pair_of(key: object) -> tuple[int, IPAddress | IPNetwork]:
    return cast("tuple[int, IPAddress | IPNetwork]", key)


def _order(key: object) -> tuple[int, ...]:
    vni, ip = _pair_of(key)
    return (vni, *in_order(ip))


def pairs(entries: Mapping[K, V] | Iterable[tuple[K, V]]) -> Iterable[tuple[K, V]]:
    """The argument of ``update`` or ``sync`` as pairs of key and value, whose types are not checked here."""
    if isinstance(entries, Mapping):
        return cast("Mapping[K, V]", entries).items()
    return map(_pair, check_items(entries, argument="entries", what="pairs of key and value"))


def _pair(entry: tuple[K, V]) -> tuple[K, V]:
    try:
        key, value = entry
    except (TypeError, ValueError):
        raise InvalidTypeError(
            f"an entry is a pair of key and value, not {type(entry).__name__}", argument="entries"
        ) from None
    return key, value
