# SPDX-License-Identifier: Apache-2.0
"""What of ours stands on the hooks of a host: found from the programs there, never from a name or a file.

A program is ours if one of its maps begins as ``meta`` does, whatever version of this package attached it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress

import attrs

from mizarnet._datapath.hooks import PLACES, Hooks, Place, read_hooks
from mizarnet._datapath.loader import BUILD
from mizarnet._kernel.bpf import Map, MapType, Program
from mizarnet._kernel.netlink import Link, Session, dump_links
from mizarnet._model.codec import FIRST, Head
from mizarnet._model.enumerations import Limit
from mizarnet.errors import ExistsError, LayoutError, NotFoundError


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


def recognise(program_id: int) -> Standing | None:
    """What a program is, if it is ours; None if it is another's, or went meanwhile.

    Raises:
        PrivilegeError: ``CAP_SYS_ADMIN`` is missing.
    """
    program = Program.open_id(program_id)
    if program is None:
        return None
    with program:
        map_ids = program.map_ids
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
                build = int.from_bytes(value, sys.byteorder)
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


@attrs.frozen
class StandingSwitch:
    """A transit switch's program on a device of the host.

    Attributes:
        link: The device.
        standing: The program.
    """

    link: Link
    standing: Standing


def find_switches(session: Session, *, links: Iterable[Link] | None = None) -> list[StandingSwitch]:
    """The transit switches of a host, whatever device they are on and whether their tunnel lives or not.

    Args:
        session: Of the host's namespace.
        links: Devices to look at; None: all.

    Raises:
        PrivilegeError: ``CAP_SYS_ADMIN`` is missing.
    """
    found: list[StandingSwitch] = []
    for link in dump_links(session) if links is None else links:
        for number in link.xdp_ids:
            standing = recognise(number)
            if standing is not None:
                found.append(StandingSwitch(link, standing))
    return found


def owner_lives(session: Session, found: Standing) -> bool:
    """Whether the tunnel that a program was made for is on this host, with programs of the same data path."""
    with suppress(NotFoundError, ExistsError):
        there = session.run(survey, found.head.ifindex).any
        return there is not None and there.meta_id == found.meta_id
    return False
