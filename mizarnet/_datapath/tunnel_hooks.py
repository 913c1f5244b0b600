# SPDX-License-Identifier: Apache-2.0
"""The hooks of one tunnel: reading them, and attaching, replacing and detaching agent and guard.

Nothing here depends on a lock: each attachment tells the kernel which state of the hook it expects, and the second of
two processes is refused and reads the hooks again.
"""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from types import FrameType

import attrs

from mizarnet._datapath import hooks, survey
from mizarnet._datapath.hooks import PLACES, Place
from mizarnet._datapath.host import Host
from mizarnet._datapath.loader import build_text, installed_build, load_onto
from mizarnet._datapath.maps import Maps
from mizarnet._datapath.survey import Survey, recognise
from mizarnet._kernel.bpf import Program, with_program
from mizarnet._kernel.jobs import calling_frame
from mizarnet._model.codec import FIRST, u32
from mizarnet._model.log import log
from mizarnet.errors import ExistsError, NotFoundError, OutdatedWarning, StaleHandleError

# Attempts, each of which fails if another process changes a hook between the survey and the attachment.
_ATTEMPTS = 64
# Beginnings of the paths of the code between a user's call and a warning: a ``with`` of ours passes contextlib.
_INSIDE = (f"{Path(__file__).parents[1]}/", contextlib.__file__)


@attrs.frozen
class TunnelHooks:
    """The hooks of a tunnel, for calls from any thread.

    Attributes:
        host: Host of the tunnel.
        name: Name of the tunnel's device, for messages.
        ifindex: Index of the tunnel's device.
    """

    host: Host
    name: str
    ifindex: int

    def survey(self) -> Survey:
        """Programs of ours on the hooks; raises as :func:`survey.survey` does."""
        return self.host.run(survey.survey, self.ifindex)

    def attach(self, place: Place, program: Program, seen: Survey) -> bool:
        """Attach a program at a place that was free in a survey.

        Args:
            place: Place of the program.
            program: Program to attach.
            seen: The survey.

        Returns:
            Whether this call attached the program; False: another process took the place first, or changed the hook.

        Raises:
            ExistsError: A filter of another program has the place.
            NotFoundError: The device is gone.
        """
        try:
            self.host.run(hooks.attach, place, program, seen.hooks)
        except StaleHandleError:
            return False
        except ExistsError:
            if place in self.survey().standing:
                return False
            raise
        log.info("%s of %s: program %d attached", place, self.name, program.id)
        return True

    def replace(self, place: Place, program: Program, *, expected: Program) -> None:
        """Replace a program at a place by another; raises as :func:`hooks.replace` does."""
        self.host.run(hooks.replace, place, program, self.ifindex, expected=expected)
        log.info("%s of %s: program %d in place of %d", place, self.name, program.id, expected.id)

    def write_lifeline(self, maps: Maps) -> None:
        """Write the tunnel's index into the maps by which programs on the underlay know that their tunnel lives."""
        # The kernel looks the index up in the namespace of the thread that writes it.
        for each in maps.lifelines:
            self.host.run(each.update, FIRST, u32(self.ifindex))

    def put_back(
        self, maps: Maps, layers: int, *, loaded: Mapping[str, Program] | None = None
    ) -> list[Place]:
        """Attach a program at every empty place, guard first: one that is attached elsewhere, or a newly loaded one.

        Args:
            maps: Maps of the data path, on which programs are loaded that are attached nowhere.
            layers: Layers of the data path, as bits of ``Layer``.
            loaded: Programs to use, by name.

        Returns:
            Places that this call filled.

        Raises:
            ExistsError: A filter of another program has a place; places before it were filled.
            StaleHandleError: No program of this data path is attached any more: it was detached on purpose.
            NotFoundError: The device is gone.
            VerifierError: The kernel's verifier rejected a program of this package.
        """
        filled: list[Place] = []
        with ExitStack() as stack:
            programs = dict(loaded or {})
            for _ in range(_ATTEMPTS):
                found = self.survey()
                if found.any is None or found.any.meta_id != maps.meta.id:
                    raise StaleHandleError(f"the transit agent of {self.name} was detached meanwhile")
                missing = found.missing(layers)
                if not missing:
                    return filled
                place = missing[0]
                if place.program not in programs:
                    programs[place.program] = _obtain(place.program, found, maps, stack)
                if self.attach(place, programs[place.program], found):
                    filled.append(place)
        raise StaleHandleError(f"another process kept changing the hooks of {self.name}")

    def take_off(self, meta_id: int) -> None:
        """Detach the programs of one data path, guard last, from a tunnel that is down.

        A program or device that is gone is no error.

        Args:
            meta_id: Id of the data path's map ``meta``.
        """
        with suppress(NotFoundError):
            found = self.host.run(hooks.read_hooks, self.ifindex)
            for place in reversed(PLACES):
                for program_id in found.candidates(place):
                    standing = recognise(program_id)
                    if standing is None or standing.meta_id != meta_id:
                        continue
                    with_program(program_id, partial(self._detach, place))

    def _detach(self, place: Place, program: Program) -> None:
        self.host.run(hooks.detach, place, program, self.ifindex)
        log.info("%s of %s: program %d detached", place, self.name, program.id)


def _obtain(name: str, found: Survey, maps: Maps, stack: ExitStack) -> Program:
    """The program that is attached on another layer; else this package's own, loaded on the maps in use."""
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
    text = (
        f"the transit agent was attached by another build of mizarnet ({listed}, this package has "
        f"{build_text(installed_build())}); TransitAgent.upgrade() replaces its programs"
    )
    caller = _outside()
    warnings.warn_explicit(
        text,
        OutdatedWarning,
        filename=caller.f_code.co_filename,
        lineno=caller.f_lineno,
        registry=caller.f_globals.setdefault("__warningregistry__", {}),
    )


def _outside() -> FrameType:
    """The innermost frame outside this package."""
    frame = calling_frame() or inspect.currentframe()
    assert frame is not None  # CPython has frames
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_INSIDE):
        frame = frame.f_back
    return frame
