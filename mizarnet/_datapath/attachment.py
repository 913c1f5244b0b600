# SPDX-License-Identifier: Apache-2.0
"""Agent and guard on their places: put there, put back, and taken off.

Nothing here hangs on a lock: each attachment says what it expects to find, and who comes second looks again.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import ExitStack, suppress

from mizarnet._datapath import hooks
from mizarnet._datapath.hooks import PLACES, Place, wanted_places
from mizarnet._datapath.loader import build_text, installed_build, load_onto
from mizarnet._datapath.maps import Maps
from mizarnet._datapath.survey import Survey, recognise, survey
from mizarnet._kernel.bpf import Program
from mizarnet._kernel.netlink import Session
from mizarnet.errors import ExistsError, NotFoundError, OutdatedWarning, StaleHandleError

# How often somebody else may change a hook between the look and the attachment.
_ATTEMPTS = 64


def missing_places(found: Survey, layers: int) -> list[Place]:
    """Where nothing of ours stands, and something should."""
    return [place for place in wanted_places(layers) if place not in found.standing]


def put_back(
    session: Session,
    ifindex: int,
    maps: Maps,
    layers: int,
    *,
    loaded: Mapping[str, Program] | None = None,
) -> list[Place]:
    """Fill every place that is empty, guard first, with what stands elsewhere or is loaded for it; which ones.

    Args:
        session: Of the host's namespace.
        ifindex: Of the tunnel.
        maps: Of the data path, for programs that stand nowhere.
        layers: Bits of ``Layer``.
        loaded: Programs to use, by name.

    Raises:
        ExistsError: A filter of somebody else has a place; what could be put back was.
        StaleHandleError: Nothing of this data path stands any more: whoever took it off meant it.
        NotFoundError: The device is gone.
        VerifierError: The kernel does not accept a program of this package.
    """
    filled: list[Place] = []
    with ExitStack() as stack:
        programs = dict(loaded or {})
        for _ in range(_ATTEMPTS):
            found = session.run(survey, ifindex)
            if found.any is None or found.any.meta_id != maps.meta.id:
                raise StaleHandleError(f"the transit agent of interface {ifindex} was detached meanwhile")
            missing = missing_places(found, layers)
            if not missing:
                return filled
            place = missing[0]
            if place.program not in programs:
                programs[place.program] = _obtain(place.program, found, maps, stack)
            if _attach(session, place, programs[place.program], found):
                filled.append(place)
    raise StaleHandleError(f"the hooks of interface {ifindex} were changed by somebody else all the time")


def _attach(session: Session, place: Place, program: Program, found: Survey) -> bool:
    """Whether it is there now by this call; False: somebody else was faster, or changed the hook."""
    try:
        session.run(hooks.attach, place, program, found.hooks)
    except StaleHandleError:
        return False
    except ExistsError:
        if place in session.run(survey, found.hooks.ifindex).standing:
            return False
        raise
    return True


def _obtain(name: str, found: Survey, maps: Maps, stack: ExitStack) -> Program:
    """The program as it stands on another layer; else this package's own, on the living maps."""
    for place, standing in found.standing.items():
        if place.program == name:
            program = Program.open_id(standing.program_id)
            if program is not None:
                return stack.enter_context(program)
    if found.builds - {installed_build()}:
        warn_outdated(found.builds)
    loaded = stack.enter_context(load_onto(maps, [name]))
    maps.count_replacement()
    return loaded.programs[name]


def warn_outdated(builds: set[int]) -> None:
    """Warn that programs of another build than this package's are attached."""
    listed = ", ".join(sorted(map(build_text, builds)))
    warnings.warn(
        f"the transit agent was attached by another build of mizarnet ({listed}, this package has "
        f"{build_text(installed_build())}); TransitAgent.upgrade() replaces its programs",
        OutdatedWarning,
        stacklevel=2,
    )


def take_off(session: Session, ifindex: int, meta_id: int) -> None:
    """Take the programs of one data path off, guard last; the tunnel is down. What is gone is no error."""
    with suppress(NotFoundError):
        found = session.run(hooks.read_hooks, ifindex)
        for place in reversed(PLACES):
            for number in found.candidates(place):
                standing = recognise(number)
                program = Program.open_id(number) if standing and standing.meta_id == meta_id else None
                if program is not None:
                    with program:
                        session.run(hooks.detach, place, program, ifindex)


def running_ahead(found: Survey) -> list[tuple[str, int]]:
    """Side and id of what others put on the hooks that runs before the first of ours; id 0: no eBPF program."""
    ours = {standing.program_id for standing in found.standing.values()}
    ahead: list[tuple[str, int]] = []
    for side, order in found.hooks.order.items():
        for number in order:
            if number in ours:
                break
            ahead.append((side.value, number))
    return ahead
