# SPDX-License-Identifier: Apache-2.0
"""The places on a tunnel's hooks where agent and guard stand.

There are two layers of them. A program on tcx (kernel 6.6) runs before every filter of a clsact, and since ours always
decide, the filters behind them cost nothing while tcx has them, and guard at once when it has not. Functions here act
in the calling thread's network namespace.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from mizarnet._datapath.loader import AGENT, GUARD
from mizarnet._kernel.bpf import (
    ClsactPlace,
    Direction,
    Program,
    TcxHook,
    TcxState,
    device_exists,
    has_tcx,
    query_filters,
)
from mizarnet._model.enumerations import Layer
from mizarnet._model.specs import Hook
from mizarnet.errors import NotFoundError, UnsupportedError

# Our place among the filters of a clsact hook: the first, and a handle that nobody takes by chance.
PRIORITY, HANDLE = 1, 0x6D7A

_DIRECTIONS = {GUARD: Direction.INGRESS, AGENT: Direction.EGRESS}
_BITS = {Hook.TCX: Layer.TCX, Hook.CLSACT: Layer.CLSACT}


@attrs.frozen
class Place:
    """Where one program stands.

    Attributes:
        program: Its name.
        layer: The kind of hook.
    """

    program: str
    layer: Hook

    @property
    def direction(self) -> Direction:
        """Side of the tunnel."""
        return _DIRECTIONS[self.program]

    def __str__(self) -> str:
        return f"{self.program.removeprefix('mzn_')}/{self.layer.value}"


# The guard first: nothing may enter unguarded, and without the agent nothing leaves anyway (no tunnel key).
PLACES = tuple(Place(program, layer) for program in (GUARD, AGENT) for layer in (Hook.TCX, Hook.CLSACT))


def choose_layers(wanted: Hook | None) -> int:
    """Bits of ``Layer`` for what was asked for; None is every layer that the kernel has.

    Raises:
        UnsupportedError: tcx was asked for and the kernel has none.
    """
    tcx = has_tcx()
    if wanted is Hook.TCX and not tcx:
        raise UnsupportedError(f"tcx: {tcx.reason}", feature="tcx", hint='use hook="auto" or "clsact"')
    if wanted is not None:
        return _BITS[wanted]
    return Layer.TCX | Layer.CLSACT if tcx else Layer.CLSACT


def layers_text(layers: int) -> str:
    """Layers as people see them, such as ``"tcx"`` or ``"tcx and clsact"``."""
    return " and ".join(hook.value for hook, bit in _BITS.items() if layers & bit)


def wanted_places(layers: int) -> list[Place]:
    """The places of some layers, in the order in which they are taken."""
    return [place for place in PLACES if layers & _BITS[place.layer]]


@attrs.frozen
class Hooks:
    """What stood on the hooks of a device at one moment.

    Attributes:
        ifindex: Of the device.
        tcx: State of each tcx hook; empty on a kernel without tcx.
        filters: Program at our place on each clsact hook; None: nothing is there.
        order: Ids of all programs of each side, in the order in which they run; 0: a filter without one.
    """

    ifindex: int
    tcx: Mapping[Direction, TcxState]
    filters: Mapping[Direction, int | None]
    order: Mapping[Direction, tuple[int, ...]]

    def candidates(self, place: Place) -> tuple[int, ...]:
        """Ids of the programs that may be the one of that place."""
        if place.layer is Hook.CLSACT:
            found = self.filters[place.direction]
            return (found,) if found else ()
        state = self.tcx.get(place.direction)
        return state.program_ids if state else ()


def read_hooks(ifindex: int) -> Hooks:
    """Look at the hooks of a device; raises ``NotFoundError`` if it is gone."""
    tcx = {side: TcxHook(ifindex, side).query() for side in Direction} if has_tcx() else {}
    filters = {side: query_filters(ifindex, direction=side) for side in Direction}
    if not tcx and not any(filters.values()) and not device_exists(ifindex):
        raise NotFoundError(f"there is no interface {ifindex} in this network namespace")
    return Hooks(
        ifindex=ifindex,
        tcx=tcx,
        filters={
            side: next((f.program_id for f in found if (f.priority, f.handle) == (PRIORITY, HANDLE)), None)
            for side, found in filters.items()
        },
        order={
            side: (*(tcx[side].program_ids if tcx else ()), *(found.program_id for found in filters[side]))
            for side in Direction
        },
    )


def attach(place: Place, program: Program, hooks: Hooks) -> None:
    """Attach a program at a place that was free when the hooks were read.

    Raises:
        StaleHandleError: The tcx hook changed since; nothing was done.
        ExistsError: A filter of somebody else has the place.
        NotFoundError: The device is gone.
        PrivilegeError: ``CAP_BPF`` or ``CAP_NET_ADMIN`` is missing.
    """
    if place.layer is Hook.TCX:
        revision = hooks.tcx[place.direction].revision
        TcxHook(hooks.ifindex, place.direction).attach(program, revision=revision)
    else:
        _filter(place, hooks.ifindex).attach(program)


def replace(place: Place, program: Program, ifindex: int, *, expected: Program) -> None:
    """Put a program in the place of another, with no packet in between.

    Raises:
        StaleHandleError: ``expected`` is not there any more.
        NotFoundError: Nothing is, or the device is gone.
    """
    if place.layer is Hook.TCX:
        TcxHook(ifindex, place.direction).replace(program, expected=expected)
    else:
        _filter(place, ifindex).replace(program, expected=expected)


def detach(place: Place, program: Program, ifindex: int) -> None:
    """Take a program off a place; one that is not there is no error."""
    if place.layer is Hook.TCX:
        TcxHook(ifindex, place.direction).detach(program)
    else:
        _filter(place, ifindex).detach(program)


def _filter(place: Place, ifindex: int) -> ClsactPlace:
    return ClsactPlace(ifindex=ifindex, direction=place.direction, priority=PRIORITY, handle=HANDLE)
