# SPDX-License-Identifier: Apache-2.0
"""The programs of mizarnet on the hooks of a tunnel, recognised by their maps and never by a name or a file.

A program is ours if one of its maps begins as ``meta`` does, whatever version of this package attached it.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import takewhile

import attrs

from mizarnet._datapath.hooks import PLACES, Hooks, Place, read_hooks, wanted_places
from mizarnet._datapath.loader import BUILD, CONFIG, OWN_DEVICE
from mizarnet._kernel import bpf
from mizarnet._kernel.bpf import Map, MapType
from mizarnet._model.codec import FIRST, Head
from mizarnet._model.enumerations import Limit
from mizarnet._model.layout import read_number
from mizarnet.errors import ExistsError, LayoutError


@attrs.frozen
class Standing:
    """A program of ours that is attached.

    Attributes:
        program_id: Id of the program.
        map_ids: Ids of the maps that the program keeps.
        meta_id: Id of the program's map ``meta``: the identity of its data path.
        head: Head of that map, the same in all versions.
        build: Digest of the object that the program was loaded from.
        constants: Constants of the program, packed.
        own_device_id: Id of the map that holds the device that the program stands on; 0: it has none.
    """

    program_id: int
    map_ids: tuple[int, ...]
    meta_id: int
    head: Head
    build: int
    constants: bytes = attrs.field(repr=False)
    own_device_id: int = 0


@attrs.frozen
class Survey:
    """The programs of ours on a tunnel at one moment, all of one data path.

    While an upgrade moves it to another schema, or if the process that did it died, they have two sets of maps.

    Attributes:
        hooks: All programs on the hooks, ours and others'.
        standing: Programs of ours, by place.
    """

    hooks: Hooks
    standing: Mapping[Place, Standing]

    @property
    def any(self) -> Standing | None:
        """One of our programs, of the oldest schema: the one whose tables are written; None if there is none."""
        return min(self.standing.values(), key=_schema, default=None)

    @property
    def newest(self) -> Standing | None:
        """One of our programs, of the newest schema; None if there is none."""
        return max(self.standing.values(), key=_schema, default=None)

    @property
    def builds(self) -> set[int]:
        """Digests of the objects that the programs were loaded from."""
        return {each.build for each in self.standing.values()}

    @property
    def ahead(self) -> list[tuple[str, int]]:
        """Side and id of each program of others that runs before ours; id 0: a filter without a program."""
        ours = {standing.program_id for standing in self.standing.values()}
        found: list[tuple[str, int]] = []
        for side, order in self.hooks.order.items():
            found += [(side.value, each) for each in takewhile(lambda each: each not in ours, order)]
        return found

    def missing(self, layers: int) -> list[Place]:
        """Places of the layers given as bits of ``Layer`` that have no program of ours."""
        return [place for place in wanted_places(layers) if place not in self.standing]


def recognise(program_id: int) -> Standing | None:
    """Recognise a program of ours by its id; None if it is another's, or is gone by now.

    Raises:
        PrivilegeError: ``CAP_SYS_ADMIN`` is missing.
    """
    map_ids = bpf.with_program(program_id, lambda program: program.map_ids)
    if map_ids is None:
        return None
    meta_id, head, build, constants, own_device_id = 0, None, 0, b"", 0
    for map_id in map_ids:
        each = Map.open_id(map_id)
        if each is None:
            return None
        with each:
            if each.name in OWN_DEVICE.values():
                own_device_id = map_id
            if each.type is not MapType.ARRAY or each.max_entries != 1:
                continue
            value = each.lookup(FIRST) or b""
            if each.name == BUILD:
                build = read_number(value)
            elif each.name == CONFIG:
                constants = value
            elif found := Head.unpack(value):
                meta_id, head = map_id, found
    if head is None:
        return None
    return Standing(program_id, map_ids, meta_id, head, build, constants, own_device_id)


def survey(ifindex: int, known: Mapping[int, Standing] | None = None) -> Survey:
    """Find our programs on the hooks of a device of the calling thread's network namespace.

    Args:
        ifindex: Index of the device.
        known: Programs that were recognised before, by id; the kernel does not use an id again.

    Raises:
        NotFoundError: The device is gone.
        ExistsError: Programs of two data paths are on the hooks.
        PrivilegeError: ``CAP_SYS_ADMIN`` or ``CAP_NET_ADMIN`` is missing.
    """
    hooks = read_hooks(ifindex)
    seen: dict[int, Standing | None] = dict(known or {})
    standing: dict[Place, Standing] = {}
    for place in PLACES:
        for program_id in hooks.candidates(place):
            if program_id not in seen:
                seen[program_id] = recognise(program_id)
            found = seen[program_id]
            if found is not None:
                standing[place] = found
                break
    _refuse_two(ifindex, standing)
    return Survey(hooks, standing)


def _refuse_two(ifindex: int, standing: Mapping[Place, Standing]) -> None:
    if len({each.head.instance for each in standing.values()}) > 1:
        listed = ", ".join(f"{place}: program {each.program_id}" for place, each in standing.items())
        raise ExistsError(
            f"programs of two transit agents are attached to interface {ifindex} ({listed})",
            holder=listed,
            hint="delete the tunnel with force=True",
        )


def _schema(standing: Standing) -> int:
    return standing.head.schema


def refuse_newer(found: Survey) -> None:
    """Raises ``LayoutError`` if a newer version of this package attached the data path, or is upgrading it."""
    if found.newest is not None and found.newest.head.schema > Limit.SCHEMA:
        raise other_schema(found.newest, "use that version, or delete the tunnel with force=True")


def refuse_older(found: Survey) -> None:
    """Raises ``LayoutError`` if an older version of this package attached the data path, in part or whole."""
    if found.any is not None and found.any.head.schema < Limit.SCHEMA:
        raise other_schema(found.any, "TransitAgent.open() and its upgrade() move it to this version")


def other_schema(found: Standing, hint: str) -> LayoutError:
    """The error for a data path of another schema, with what to do about it."""
    schema = found.head.schema
    return LayoutError(
        f"another version of mizarnet attached the transit agent (schema {schema}, this one has {Limit.SCHEMA})",
        struct="mzn_meta",
        differences=[f"schema {schema}"],
        hint=hint,
    )
