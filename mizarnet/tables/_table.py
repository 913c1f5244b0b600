# SPDX-License-Identifier: Apache-2.0
"""The common base of the tables that are mappings."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, Mapping, ValuesView
from typing import Any, Generic, TypeVar, cast

from mizarnet._datapath.feeds import Feed
from mizarnet._model.arguments import IPAddress, IPNetwork, check_vni, in_order
from mizarnet._model.html import table
from mizarnet._model.public import public
from mizarnet._plain import plain
from mizarnet.errors import InvalidValueError, MizarnetError
from mizarnet.tables._changes import Changes
from mizarnet.tables._owned import Owned

K = TypeVar("K")
V = TypeVar("V")


@public
class Table(Owned[K], Mapping[K, V], Generic[K, V]):
    """A map of the agent as a mapping with typed keys and values."""

    _rows: str
    _header: tuple[str, str, str]

    def _vni(self, packed: bytes) -> int:
        raise NotImplementedError

    def _unpack_value(self, packed: bytes) -> V:
        raise NotImplementedError

    def __getitem__(self, key: object) -> V:
        return self._unpack_value(self._value(key))

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
        known: dict[bytes, V] = {}
        found: dict[K, V] = {}
        for key, packed in self._entries():
            if (value := known.get(packed)) is None:
                value = known[packed] = self._unpack_value(packed)
            found[self._unpack_key(key)] = value
        return found

    def _sync_within(self, put: Mapping[bytes, bytes], feed: Feed, vni: int | None) -> Changes[K]:
        if vni is None:
            return self._sync(put, feed)
        check_vni(vni)
        if any(self._vni(key) != vni for key in put):
            raise InvalidValueError(f"an entry is not of VNI {vni}", argument="vni", value=vni)
        return self._sync(put, feed, lambda key: self._vni(key) == vni)

    def _check_host(self, host: IPAddress, argument: str) -> None:
        local = self._datapath.local
        if host.version != local.version:
            raise InvalidValueError(
                f"{argument} {host}: the tunnel's underlay is IPv{local.version}",
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
