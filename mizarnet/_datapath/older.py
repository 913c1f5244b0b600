# SPDX-License-Identifier: Apache-2.0
"""The maps of a data path that an older version of this package attached, read as this one has them.

The kernel keeps the types of each map, so that the members of an older structure are found by their names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack

import attrs

from mizarnet._datapath.conversion import Conversion
from mizarnet._datapath.loader import BUILD, CONFIG, Capacity
from mizarnet._datapath.survey import Standing
from mizarnet._kernel.bpf import Map, MapShape, MapType
from mizarnet._model.codec import FIRST, Meta
from mizarnet._model.enumerations import ENUMERATIONS, Limit
from mizarnet._model.layout import read_number
from mizarnet._model.layouts import CONFIG as CONFIG_LAYOUT
from mizarnet._model.layouts import META
from mizarnet.errors import LayoutError

_TABLES = (
    MapType.HASH,
    MapType.LRU_HASH,
    MapType.LPM_TRIE,
    MapType.ARRAY,
    MapType.PERCPU_ARRAY,
)
"""Kinds of map whose entries are numbers and texts, and no other objects of the kernel."""
_SECTIONS = {CONFIG: "struct mzn_config", ".data.attention": "struct mzn_attention"}
"""What maps hold that the kernel knows as a section of the object, by their names."""
_LIMITS = "mzn_limit"
_INDEX = "MZN_LIMIT_VERDICTS"
"""The one limit by which entries are found."""


@attrs.frozen
class Older:
    """The maps of a data path of an older schema.

    Attributes:
        standing: One of its programs.
        maps: Its maps, by name.
    """

    standing: Standing
    maps: Mapping[str, Map]

    @classmethod
    def open(cls, standing: Standing) -> Older | None:
        """Open the maps of a program; None if one of them is gone by now.

        Raises:
            LayoutError: They cannot be read as this package's.
            PrivilegeError: ``CAP_SYS_ADMIN`` is missing.
        """
        with ExitStack() as undo:
            found: dict[str, Map] = {}
            for map_id in standing.map_ids:
                each = Map.open_id(map_id)
                if each is None:
                    return None
                if each.name == BUILD or each.name in found:
                    each.close()
                    continue
                found[each.name] = each
                undo.callback(each.close)
            opened = cls(standing, found)
            opened._refuse_strange()
            undo.pop_all()
            return opened

    def _refuse_strange(self) -> None:
        """Raises ``LayoutError`` if a map that every version has is missing, or a number has changed its meaning."""
        missing = sorted({"meta", CONFIG, "endpoints", "senders"} - {*self.maps})
        types = None if missing else self.maps["meta"].types()
        if types is None:
            raise _strange([f"there is no map {name!r}" for name in missing] or ["its types are not known"])
        differences = [
            f"{name}: this package has {ours[name]}, that one {number}"
            for kind, numbers in types.enums.items()
            for ours in [ENUMERATIONS.get(kind, {})]
            for name, number in numbers.items()
            if name in ours and ours[name] != number and (kind != _LIMITS or name == _INDEX)
        ]
        if differences:
            raise _strange(differences)

    @property
    def capacity(self) -> Capacity:
        """Sizes of its tables."""
        return Capacity(self.maps["endpoints"].max_entries, self.maps["senders"].max_entries)

    def read_meta(self) -> Meta:
        """Content of its map ``meta``."""
        return Meta.unpack(self._first("meta", META.size))

    def constants(self) -> bytes:
        """Constants of its programs, secrets among them."""
        return self._first(CONFIG, CONFIG_LAYOUT.size)

    def stamp(self) -> bytes | None:
        """What the writers of its tables change with each change."""
        changes = self.maps.get("changes")
        return None if changes is None else changes.lookup(FIRST)

    def is_alike(self, name: str, wanted: MapShape) -> bool:
        """Whether a map of this package's can be the old one of that name.

        Raises:
            LayoutError: It cannot be, and its entries cannot be converted.
        """
        old = self.maps.get(name)
        if old is None or old.shape != wanted:
            return False
        return all(each.whole for each in self._ways(old, wanted.key_size, wanted.value_size))

    def has_table(self, name: str) -> bool:
        """Whether it has a map of that name whose entries can be copied."""
        return name in self.maps and self.maps[name].type in _TABLES

    def entries(self, name: str) -> dict[bytes, bytes]:
        """Entries of a table, as they are in it."""
        return dict(self.maps[name].items())

    def converted(self, target: Map, entries: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
        """Entries of the old table of that name as the new table has them.

        Args:
            target: The new table.
            entries: Entries of the old one, as :meth:`entries` read them.
        """
        old = self.maps.get(target.name)
        if old is None or not entries:
            return {}
        keys, values = self._ways(old, target.key_size, target.value_size)
        if old.type is MapType.PERCPU_ARRAY:
            fits = {key: old.split(slot) for key, slot in entries.items() if _in_array(key, target)}
            return {keys(key): target.join(map(values, each)) for key, each in fits.items()}
        return {keys(key): values(value) for key, value in entries.items() if _in_array(key, target)}

    def _first(self, name: str, size: int) -> bytes:
        old = self.maps[name]
        return self._way(old, old.value_size, size, value=True)(old.lookup(FIRST) or bytes(old.value_size))

    def _ways(self, old: Map, key_size: int, value_size: int) -> tuple[Conversion, Conversion]:
        keys = self._way(old, old.key_size, key_size, value=False)
        return keys, self._way(old, old.value_size, value_size, value=True)

    @staticmethod
    def _way(old: Map, before: int, after: int, *, value: bool) -> Conversion:
        types = old.types()
        if types is None:  # of a map of devices
            return Conversion.of("", {}, before=before, after=after)
        kind = _SECTIONS.get(old.name, types.value) if value else types.key
        return Conversion.of(kind, types.layouts, before=before, after=after)

    def let_go(self) -> None:
        """Release the maps, but keep their descriptors taken until :meth:`close`, since other threads may use them."""
        for each in self.maps.values():
            each.let_go()

    def retire(self) -> None:
        """Release the maps, and close each descriptor when no other thread uses it any more."""
        for each in self.maps.values():
            each.retire()

    def close(self) -> None:
        """Close the descriptors."""
        for each in self.maps.values():
            each.close()


def _in_array(key: bytes, target: Map) -> bool:
    arrays = (MapType.ARRAY, MapType.PERCPU_ARRAY)
    return target.type not in arrays or read_number(key) < target.max_entries


def _strange(differences: Iterable[str]) -> LayoutError:
    listed = [*differences]
    return LayoutError(
        f"the maps of the transit agent cannot be moved to schema {Limit.SCHEMA}: {'; '.join(listed)}",
        struct="maps",
        differences=listed,
        hint="use the version of mizarnet that attached it, or delete the tunnel with force=True",
    )
