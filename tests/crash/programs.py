# SPDX-License-Identifier: Apache-2.0
"""The kernel's programs and maps by their ids, which it gives only once."""

from __future__ import annotations

import functools

import attrs

from mizarnet._kernel.bpf import Map
from mizarnet._kernel.bpf import Program as Handle

BUILD = ".rodata.build"
FIRST = bytes(4)


@attrs.frozen
class Program:
    """A program: its name, its maps by name, and the build that it is of."""

    name: str
    map_ids: dict[str, int]
    build: bytes


@functools.cache
def _known(number: int) -> Program:
    handle = Handle.open_id(number)
    if handle is None:
        raise LookupError(number)
    with handle:
        map_ids, build = {}, b""
        for map_id in handle.map_ids:
            each = Map.open_id(map_id)
            if each is None:
                continue
            with each:
                map_ids[each.name] = map_id
                if each.name == BUILD:
                    build = each.lookup(FIRST) or b""
        return Program(handle.name, map_ids, build)


def program(number: int) -> Program | None:
    """The program of that id; None if it is gone."""
    try:
        return _known(number)
    except LookupError:
        return None


def read_map(map_id: int) -> dict[bytes, bytes]:
    """Every entry of a map; none if it is gone."""
    handle = Map.open_id(map_id)
    if handle is None:
        return {}
    with handle:
        if handle.max_entries == 1:
            value = handle.lookup(FIRST)
            return {} if value is None else {FIRST: value}
        return dict(handle.items())
