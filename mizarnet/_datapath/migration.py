# SPDX-License-Identifier: Apache-2.0
"""Moving a data path of an older schema to this one, while packets pass.

New maps are made, of the same instance. A table whose layout is the same in both schemas is the same map in both; the
others are converted and copied, while the host's lock keeps writers out. Then the programs are replaced, as by an
upgrade within a schema. From the first replaced one to the last the tunnel's hooks have programs with either maps, so
that every writer is refused: both sets hold the same entries. A process that dies meanwhile leaves that, and the next
call goes on with the new maps that it finds.

A writer that does not see the lock is noticed by the stamp in ``changes``, and the tables are copied again. One that
comes later finds the hooks changed, or writes the old maps: these are frozen in the end, and what was written until
then is copied, too. The caller holds the host alone.
"""

from __future__ import annotations

import errno
import time
from array import array
from collections.abc import Mapping
from contextlib import ExitStack, closing

import attrs

from mizarnet._datapath.loader import BUILD, CONFIG, installed_build, load_maps
from mizarnet._datapath.maps import Maps
from mizarnet._datapath.older import Older
from mizarnet._datapath.survey import Survey, refuse_newer
from mizarnet._datapath.tunnel_hooks import TunnelHooks
from mizarnet._datapath.upgrade import find_beside, replace_programs
from mizarnet._kernel.bpf import Map, MapType, ObjectSpec
from mizarnet._model.codec import FIRST, Meta
from mizarnet._model.enumerations import Limit
from mizarnet._model.layout import u64
from mizarnet._model.log import log
from mizarnet.errors import BpfError, NotFoundError, StaleHandleError

Entries = Mapping[bytes, bytes]
_APART = ("meta", BUILD, CONFIG)
"""Maps that each set has its own of: what tells the sets apart, and constants, which no one can write."""
_COUNTERS = ("verdicts", "traffic", "drops")
"""Maps that programs count in, old and new ones at the same time."""
_ATTEMPTS = 16
_PAUSE = 0.001
"""Time between two attempts, in seconds."""


def migrate(hooks: TunnelHooks) -> None:
    """Move the data path of a tunnel to this package's schema, or finish that; nothing is done if it has it.

    Raises:
        ExistsError: A program had been taken off, and a filter of another program has its place; all else was moved.
        LayoutError: A newer version attached it, or its tables cannot be converted; nothing was changed.
        SelfTestError: A program of this package fails its self-test; nothing was changed.
        StaleHandleError: It was detached, or other processes kept changing it; the old programs are attached again.
        VerifierError: The kernel's verifier rejected a program of this package; nothing was changed.
    """
    try:
        seen = hooks.survey()
    except NotFoundError:
        raise StaleHandleError(f"tunnel {hooks.name} is gone") from None
    refuse_newer(seen)
    if seen.any is None or seen.any.head.schema == Limit.SCHEMA:
        return
    older = Older.open(seen.any)
    if older is None:
        raise StaleHandleError(f"the transit agent of {hooks.name} was replaced meanwhile")
    with closing(older), closing(_new_maps(hooks, seen, older)) as maps:
        move = _Move(older, maps)
        copied = move.copy(counters=not _is_begun(seen))
        replace_programs(hooks, maps, seen, find_beside(hooks.host, seen.any.head.instance))
        move.settle(copied)
        log.info("%s moved from schema %d to %d", hooks.name, seen.any.head.schema, Limit.SCHEMA)
        if seen.missing(copied.meta.layers):
            hooks.put_back(maps, copied.meta.layers)


def _is_begun(seen: Survey) -> bool:
    """Whether a process that died has attached a program with new maps."""
    return seen.newest is not None and seen.newest.head.schema == Limit.SCHEMA


def _new_maps(hooks: TunnelHooks, seen: Survey, older: Older) -> Maps:
    """Those that a process that died has made, or new ones."""
    if seen.newest is not None and _is_begun(seen):
        found = Maps.open(seen.newest.map_ids)
        if found is None:
            raise StaleHandleError(f"the transit agent of {hooks.name} was replaced meanwhile")
        return found
    maps = load_maps(older.constants(), older.capacity, lambda spec: _take_over(spec, older))
    with ExitStack() as undo:
        undo.callback(maps.close)
        hooks.write_lifeline(maps)
        undo.pop_all()
        return maps


def _take_over(spec: ObjectSpec, older: Older) -> None:
    """Use the old maps that are as the new ones would be, and make room for the entries of the others."""
    for name in spec.maps:
        wanted, old = spec.shape(name), older.maps.get(name)
        if old is None or name in _APART:
            continue
        if older.is_alike(name, wanted):
            spec.reuse_map(name, old)
        elif wanted.type not in (MapType.ARRAY, MapType.PERCPU_ARRAY, MapType.DEVMAP):
            spec.set_max_entries(name, max(wanted.max_entries, old.max_entries))


@attrs.frozen
class _Copied:
    """What was copied: entries of the old tables, as they are in them."""

    meta: Meta
    tables: Mapping[str, Entries]


@attrs.frozen
class _Move:
    """The two sets of maps."""

    older: Older
    maps: Maps

    def copy(self, *, counters: bool) -> _Copied:
        """Make the new tables hold what the old ones do.

        Args:
            counters: Whether to copy those of the programs, too: new programs may have counted already.

        Raises:
            StaleHandleError: Processes that do not see the lock kept writing.
        """
        for _ in range(_ATTEMPTS):
            stamp = self.older.stamp()
            copied = self._read()
            for name, entries in copied.tables.items():
                if counters or name not in _COUNTERS:
                    self._fill(self.maps.by_name()[name], entries)
            self._write_meta(copied.meta)
            if self.older.stamp() == stamp:
                return copied
        raise StaleHandleError("other processes kept writing the tables while they were copied")

    def settle(self, copied: _Copied) -> None:
        """Copy what was written since to the old tables, which nobody can write any more."""
        for name in (*copied.tables, "meta"):
            _freeze(self.older.maps[name])
        now = self._read()
        for name, entries in now.tables.items():
            target, before = self.maps.by_name()[name], copied.tables[name]
            if name in _COUNTERS:
                self._add(target, before, entries)
                continue
            changed = {key: value for key, value in entries.items() if before.get(key) != value}
            gone = {key: value for key, value in before.items() if key not in entries}
            target.delete_many(self.older.converted(target, gone))
            target.update_many(self.older.converted(target, changed))
        if now.meta != copied.meta:
            self._write_meta(attrs.evolve(now.meta, generation=self.maps.read_meta().generation))
        self.maps.stamp()

    def _read(self) -> _Copied:
        """Entries of the old tables that are not the new ones, too."""
        tables = {
            name: self.older.entries(name)
            for name, each in self.maps.by_name().items()
            if name not in _APART and self.older.has_table(name) and self.older.maps[name].id != each.id
        }
        return _Copied(self.older.read_meta(), tables)

    def _fill(self, target: Map, entries: Entries) -> None:
        wanted = self.older.converted(target, entries)
        if target.type not in (MapType.ARRAY, MapType.PERCPU_ARRAY):
            there = {*target.keys()}
            target.delete_many(there - {*wanted})
        target.update_many(wanted)

    def _write_meta(self, meta: Meta) -> None:
        head = attrs.evolve(meta.head, schema=Limit.SCHEMA, build=installed_build())
        self.maps.meta.update(FIRST, attrs.evolve(meta, head=head).pack())

    def _add(self, target: Map, before: Entries, now: Entries) -> None:
        """Add what the old programs counted since the copy; a packet that is counted just now may be missed."""
        changed = {key: value for key, value in now.items() if before.get(key) != value}
        old = self.older.converted(target, {key: before[key] for key in changed if key in before})
        for key, slot in self.older.converted(target, changed).items():
            there = target.lookup(key) or bytes(target.slot_size)
            words = (array("Q", each) for each in (there, slot, old.get(key, bytes(target.slot_size))))
            sums = (u64((one + more - less) % (1 << 64)) for one, more, less in zip(*words, strict=True))
            target.update(key, b"".join(sums))


def _freeze(old: Map) -> None:
    for _ in range(_ATTEMPTS):
        try:
            old.freeze()
            return
        except BpfError as refused:
            if refused.errno == errno.EPERM:
                return  # another process that went on with the same maps has frozen it
            if refused.errno != errno.EBUSY:
                raise
            time.sleep(_PAUSE)
    log.warning("the old map %s could not be frozen: what is written to it now is lost", old.name)
