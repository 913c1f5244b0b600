# SPDX-License-Identifier: Apache-2.0
"""The hooks of one tunnel, where agent and guard stand: looked at, filled, put back and emptied.

Nothing here hangs on a lock: each attachment says what it expects to find, and the second of two looks again.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from functools import partial

import attrs

from mizarnet._datapath import hooks, survey
from mizarnet._datapath.hooks import PLACES, Place
from mizarnet._datapath.host import Host
from mizarnet._datapath.loader import build_text, installed_build, load_onto
from mizarnet._datapath.maps import Maps
from mizarnet._datapath.survey import Standing, Survey, recognise
from mizarnet._kernel.bpf import Program, with_program
from mizarnet.errors import ExistsError, NotFoundError, OutdatedWarning, StaleHandleError

# How often somebody else may change a hook between the look and the attachment.
_ATTEMPTS = 64


@attrs.frozen
class TunnelHooks:
    """The hooks of a tunnel, from any thread.

    Attributes:
        host: Host of the tunnel.
        name: Name of the tunnel's device, for messages.
        ifindex: Index of the tunnel's device.
    """

    host: Host
    name: str
    ifindex: int

    def survey(self, known: Mapping[int, Standing] | None = None) -> Survey:
        """What of ours stands there; raises as :func:`survey.survey` does."""
        return self.host.run_near(survey.survey, self.ifindex, known)

    def attach(self, place: Place, program: Program, seen: Survey) -> bool:
        """Attach a program at a place that was free when it was looked at.

        Returns:
            Whether the program stands there by this call; False: somebody else was faster, or changed the hook.

        Raises:
            ExistsError: A filter of somebody else has the place.
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
        return True

    def replace(self, place: Place, program: Program, *, expected: Program) -> None:
        """Put a program in the place of another; raises as :func:`hooks.replace` does."""
        self.host.run(hooks.replace, place, program, self.ifindex, expected=expected)

    def put_back(
        self, maps: Maps, layers: int, *, loaded: Mapping[str, Program] | None = None
    ) -> list[Place]:
        """Fill every place that is empty, guard first, with what stands elsewhere or is loaded for it; which ones.

        Args:
            maps: Maps of the data path, for programs that stand nowhere.
            layers: Bits of ``Layer``.
            loaded: Programs to use, by name.

        Raises:
            ExistsError: A filter of somebody else has a place; what could be put back was.
            StaleHandleError: Nothing of this data path stands any more: it was taken off on purpose.
            NotFoundError: The device is gone.
            VerifierError: The kernel does not accept a program of this package.
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
        raise StaleHandleError(f"the hooks of {self.name} were changed by somebody else all the time")

    def take_off(self, meta_id: int) -> None:
        """Take the programs of one data path off, guard last; the tunnel is down. What is gone is no error."""
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
