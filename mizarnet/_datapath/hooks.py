# SPDX-License-Identifier: Apache-2.0
"""The places on a tunnel's hooks where agent and guard are attached.

There are two layers of places. A program on tcx (kernel 6.6) runs before every filter of a clsact. Our programs always
decide, so the filters behind tcx cost nothing while it has them, and guard at once when it has not. Functions here act
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
    uses_tcx,
)
from mizarnet._model.enumerations import Layer
from mizarnet._model.specs import Hook
from mizarnet.errors import NotFoundError, UnsupportedError

# Our place among the filters of a clsact hook: the first priority, with a handle that no other program takes by chance.
PRIORITY, HANDLE = 1, 0x6D7A

_DIRECTIONS = {GUARD: Direction.INGRESS, AGENT: Direction.EGRESS}
_BITS = {Hook.TCX: Layer.TCX, Hook.CLSACT: Layer.CLSACT}


@attrs.frozen
class Place:
    """A place where one program is attached.

    Attributes:
        program: Name of the program, such as ``"mzn_agent"``.
        layer: Kind of hook.
    """

    program: str
    layer: Hook

    @property
    def direction(self) -> Direction:
        """Side of the tunnel: ingress for the guard, egress for the agent."""
        return _DIRECTIONS[self.program]

    def __str__(self) -> str:
        return f"{self.program.removeprefix('mzn_')}/{self.layer.value}"


# The guard first: no frame may enter unguarded, while without the agent none leaves, for want of a tunnel key.
PLACES = tuple(Place(program, layer) for program in (GUARD, AGENT) for layer in (Hook.TCX, Hook.CLSACT))


def choose_layers(wanted: Hook | None) -> int:
    """Bits of ``Layer`` for the kind of hook that was asked for; None: every layer that the kernel has.

    Raises:
        UnsupportedError: tcx was asked for, and the kernel does not have it.
    """
    if wanted is Hook.TCX and (tcx := has_tcx()).available is False:
        raise UnsupportedError(f"tcx: {tcx.reason}", feature="tcx", hint='use hook="auto" or "clsact"')
    if wanted is not None:
        return _BITS[wanted]
    return Layer.TCX | Layer.CLSACT if uses_tcx() else Layer.CLSACT


def deciding_hook(layers: int) -> Hook:
    """Hook on which programs of some layers decide: filters of a clsact never run behind programs on tcx."""
    return Hook.TCX if layers & Layer.TCX else Hook.CLSACT


def wanted_places(layers: int) -> list[Place]:
    """Places of the layers given as bits of ``Layer``, in the order in which programs are attached."""
    return [place for place in PLACES if layers & _BITS[place.layer]]


@attrs.frozen
class Hooks:
    """The programs on the hooks of a device at one moment, ours and others'.

    Attributes:
        ifindex: Index of the device.
        tcx: State of each tcx hook; empty on a kernel without tcx.
        filters: Id of the program at our place on each clsact hook; None: there is no filter.
        order: Ids of all programs of each side, in the order in which they run; 0: a filter without a program.
    """

    ifindex: int
    tcx: Mapping[Direction, TcxState]
    filters: Mapping[Direction, int | None]
    order: Mapping[Direction, tuple[int, ...]]

    def candidates(self, place: Place) -> tuple[int, ...]:
        """Ids of the programs among which the one of that place must be."""
        if place.layer is Hook.CLSACT:
            found = self.filters[place.direction]
            return (found,) if found else ()
        state = self.tcx.get(place.direction)
        return state.program_ids if state else ()


def read_hooks(ifindex: int) -> Hooks:
    """Read the hooks of a device.

    Raises:
        NotFoundError: The device is gone.
        BpfError: The kernel did not say whether it has tcx; programs there would be overlooked.
    """
    tcx = {side: TcxHook(ifindex, side).query() for side in Direction} if uses_tcx() else {}
    filters = query_filters(ifindex)
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
        StaleHandleError: The tcx hook has changed since; nothing was done.
        ExistsError: A filter of another program has the place.
        NotFoundError: The device is gone.
        PrivilegeError: ``CAP_BPF`` or ``CAP_NET_ADMIN`` is missing.
    """
    if place.layer is Hook.TCX:
        revision = hooks.tcx[place.direction].revision
        TcxHook(hooks.ifindex, place.direction).attach(program, revision=revision)
    else:
        _filter(place, hooks.ifindex).attach(program)


def replace(place: Place, program: Program, ifindex: int, *, expected: Program) -> None:
    """Replace a program at a place by another; every packet meets one of the two.

    Raises:
        StaleHandleError: ``expected`` is not at the place any more.
        NotFoundError: No program is at the place, or the device is gone.
    """
    if place.layer is Hook.TCX:
        TcxHook(ifindex, place.direction).replace(program, expected=expected)
    else:
        _filter(place, ifindex).replace(program, expected=expected)


def detach(place: Place, program: Program, ifindex: int) -> None:
    """Detach a program from a place; a program that is not there is no error."""
    if place.layer is Hook.TCX:
        TcxHook(ifindex, place.direction).detach(program)
    else:
        _filter(place, ifindex).detach(program)


def _filter(place: Place, ifindex: int) -> ClsactPlace:
    return ClsactPlace(ifindex=ifindex, direction=place.direction, priority=PRIORITY, handle=HANDLE)
