# SPDX-License-Identifier: Apache-2.0
"""What of ours stands on the hooks of a host: found from the programs there, never from a name or a file.

A program is ours if one of its maps begins as ``meta`` does, whatever version of this package attached it.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import takewhile

import attrs

from mizarnet._datapath.hooks import PLACES, Hooks, Place, read_hooks, wanted_places
from mizarnet._datapath.loader import BUILD
from mizarnet._kernel import bpf
from mizarnet._kernel.bpf import Map, MapType
from mizarnet._model.codec import FIRST, Head
from mizarnet._model.enumerations import Limit
from mizarnet._model.layout import read_number
from mizarnet.errors import ExistsError, LayoutError


@attrs.frozen
class Standing:
    """A program of ours.

    Attributes:
        program_id: Its id.
        map_ids: Ids of the maps that it keeps.
        meta_id: Id of the one of them that says whose it is: the identity of a data path.
        head: What that one begins with.
        build: Digest of the object that the program was made from.
    """

    program_id: int
    map_ids: tuple[int, ...]
    meta_id: int
    head: Head
    build: int


@attrs.frozen
class Survey:
    """What of ours stood on a tunnel at one moment, all of one data path.

    Attributes:
        hooks: What was on the hooks, of whomever.
        standing: Our programs, by place.
    """

    hooks: Hooks
    standing: Mapping[Place, Standing]

    @property
    def any(self) -> Standing | None:
        """One of ours; None if nothing of ours is there."""
        return next(iter(self.standing.values()), None)

    @property
    def builds(self) -> set[int]:
        """The builds that the programs are of."""
        return {each.build for each in self.standing.values()}

    @property
    def ahead(self) -> list[tuple[str, int]]:
        """Side and id of programs of others that run before the first of ours; id 0: a filter without a program."""
        ours = {standing.program_id for standing in self.standing.values()}
        found: list[tuple[str, int]] = []
        for side, order in self.hooks.order.items():
            found += [(side.value, each) for each in takewhile(lambda each: each not in ours, order)]
        return found

    def missing(self, layers: int) -> list[Place]:
        """The places of some layers where nothing of ours stands."""
        return [place for place in wanted_places(layers) if place not in self.standing]


def recognise(program_id: int) -> Standing | None:
    """What a program is, if it is ours; None if it is another's, or went meanwhile.

    Raises:
        PrivilegeError: ``CAP_SYS_ADMIN`` is missing.
    """
    map_ids = bpf.with_program(program_id, lambda program: program.map_ids)
    if map_ids is None:
        return None
    meta_id, head, build = 0, None, 0
    for number in map_ids:
        each = Map.open_id(number)
        if each is None:
            return None
        with each:
            if each.type is not MapType.ARRAY or each.max_entries != 1:
                continue
            value = each.lookup(FIRST) or b""
            if each.name == BUILD:
                build = read_number(value)
            elif found := Head.unpack(value):
                meta_id, head = number, found
    return None if head is None else Standing(program_id, map_ids, meta_id, head, build)


def survey(ifindex: int, known: Mapping[int, Standing] | None = None) -> Survey:
    """Look at the hooks of a device of the calling thread's network namespace.

    Args:
        ifindex: Of the device.
        known: Programs that were recognised before, by id: ids are not used again.

    Raises:
        NotFoundError: The device is gone.
        ExistsError: The programs there are of two data paths.
        PrivilegeError: ``CAP_SYS_ADMIN`` or ``CAP_NET_ADMIN`` is missing.
    """
    hooks = read_hooks(ifindex)
    seen: dict[int, Standing | None] = dict(known or {})
    standing: dict[Place, Standing] = {}
    for place in PLACES:
        for number in hooks.candidates(place):
            if number not in seen:
                seen[number] = recognise(number)
            found = seen[number]
            if found is not None:
                standing[place] = found
                break
    _refuse_two(ifindex, standing)
    return Survey(hooks, standing)


def _refuse_two(ifindex: int, standing: Mapping[Place, Standing]) -> None:
    if len({each.meta_id for each in standing.values()}) > 1:
        listed = ", ".join(f"{place}: program {each.program_id}" for place, each in standing.items())
        raise ExistsError(
            f"programs of two transit agents stand on interface {ifindex} ({listed})",
            holder=listed,
            hint="delete the tunnel with force=True",
        )


def refuse_other_schema(found: Standing) -> None:
    """Raises ``LayoutError`` if another version of this package attached the data path."""
    if found.head.schema != Limit.SCHEMA:
        raise LayoutError(
            f"another version of mizarnet attached the transit agent (schema {found.head.schema}, "
            f"this one has {Limit.SCHEMA})",
            struct="mzn_meta",
            differences=[f"schema {found.head.schema}"],
            hint="use that version, or delete the tunnel with force=True",
        )
