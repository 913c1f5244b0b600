# SPDX-License-Identifier: Apache-2.0
"""Replacing the programs that run by this package's; every packet meets an old or a new one.

The new programs are loaded on the maps in use, with their secrets and the constants that ``meta`` tells. So a packet
that is between agent and guard meets the other's program with the same marks. A place of the guard's changes first, the
agent's last, one by one, so both mixed pairs run for a moment. A process that dies in between leaves old and new
programs, all of which work, and the next call replaces the rest. The caller holds the host's lock.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager

import attrs

from mizarnet._datapath import self_test, shortcuts, switches
from mizarnet._datapath.datapath import DataPath
from mizarnet._datapath.hooks import Place, wanted_places
from mizarnet._datapath.host import Host
from mizarnet._datapath.loader import AGENT, GUARD, SHORTCUT, SWITCH, constants, installed_build, load_onto
from mizarnet._datapath.maps import Maps
from mizarnet._datapath.shortcuts import StandingShortcut
from mizarnet._datapath.survey import Standing, Survey
from mizarnet._datapath.switches import StandingSwitch
from mizarnet._datapath.tunnel_hooks import TunnelHooks
from mizarnet._datapath.underlay_program import tell_device
from mizarnet._kernel.bpf import Object, Program, XdpHook
from mizarnet._model.codec import FIRST
from mizarnet._model.log import log
from mizarnet.errors import ExistsError, MizarnetError, NotFoundError, StaleHandleError


def upgrade(datapath: DataPath) -> None:
    """Replace every program of a whole data path that is of another build, or has other constants than ``meta`` says.

    Raises:
        SelfTestError: A program of this package fails its self-test; nothing was changed.
        StaleHandleError: Another process changed a hook meanwhile; replaced programs are attached again.
        VerifierError: The kernel's verifier rejected a program of this package; nothing was changed.
    """
    instance = datapath.maps.read_meta().head.instance
    replace_programs(datapath.hooks, datapath.maps, datapath.survey(), find_beside(datapath.host, instance))


@attrs.frozen
class Beside:
    """Programs of a data path that do not stand on its tunnel."""

    switches: tuple[StandingSwitch, ...]
    shortcuts: tuple[StandingShortcut, ...]


def find_beside(host: Host, instance: int) -> Beside:
    """Switch and shortcut of a data path, whichever of its maps they read: a move to other ones may have ended there.

    Args:
        host: Host of the data path.
        instance: Its random id.
    """
    return Beside(
        tuple(each for each in switches.find(host) if each.standing.head.instance == instance),
        tuple(each for each in shortcuts.find(host) if each.standing.head.instance == instance),
    )


def replace_programs(hooks: TunnelHooks, maps: Maps, seen: Survey, beside: Beside) -> None:
    """Replace every program that does not read these maps, or is of another build, or has other constants.

    The first of the tunnel's places changes first, and its last one last. So whatever else is new, the tunnel's hooks
    tell that programs of both kinds are there. Raises as :func:`upgrade` does.

    Args:
        hooks: Hooks of the tunnel.
        maps: Maps that all programs shall read.
        seen: Programs on the hooks, one at each place.
        beside: Programs elsewhere.
    """
    current = _Current(maps.meta.id, installed_build(), constants(maps))
    old_switches = [each for each in beside.switches if not current.fits(each.standing)]
    old_shortcuts = [each for each in beside.shortcuts if not current.fits(each.standing)]
    standing = [*seen.standing.values(), *(each.standing for each in (*old_switches, *old_shortcuts))]
    if all(map(current.fits, standing)):
        return
    if any(each.build != current.build for each in standing):
        self_test.check()
    names = [GUARD, AGENT, *([SWITCH] if old_switches else []), *([SHORTCUT] if old_shortcuts else [])]
    with load_onto(maps, names) as loaded, ExitStack() as opened, ExitStack() as roll_back:
        own = {maps.meta.id, *(each.meta_id for each in seen.standing.values())}
        swap = _Swap(hooks, maps, frozenset(own), current, loaded, opened, roll_back)
        maps.count_replacement()
        first, *others = (each for each in wanted_places(maps.read_meta().layers) if each in seen.standing)
        swap.at(first)
        for switch in old_switches:
            swap.switch(switch)
        for shortcut in old_shortcuts:
            swap.shortcut(shortcut)
        for place in others:
            swap.at(place)
        _note_build(maps, current.build)
        roll_back.pop_all()


def _note_build(maps: Maps, build: int) -> None:
    meta = maps.read_meta()
    head = attrs.evolve(meta.head, build=build)
    maps.meta.update(FIRST, attrs.evolve(meta, head=head).pack())


@attrs.frozen
class _Current:
    """What a program is to be.

    Attributes:
        meta_id: Id of the map ``meta`` that it is to have.
        build: Digest of the object that it is loaded from.
        constants: Its constants, packed.
    """

    meta_id: int
    build: int
    constants: bytes

    def fits(self, standing: Standing) -> bool:
        """Whether a program is so already."""
        return (standing.meta_id, standing.build, standing.constants) == attrs.astuple(self)


@attrs.frozen
class _Swap:
    """One replacement of all programs.

    Attributes:
        hooks: Hooks of the tunnel whose programs are replaced.
        maps: Maps that the new programs read.
        own: Ids of the maps ``meta`` of programs that may be replaced: others are of a process that was faster.
        current: What the programs are to be.
        loaded: Object with the new programs.
        opened: Stack that closes the handles of the old programs.
        roll_back: Stack that attaches the old programs again, unless it is emptied.
    """

    hooks: TunnelHooks
    maps: Maps
    own: frozenset[int]
    current: _Current
    loaded: Object
    opened: ExitStack
    roll_back: ExitStack

    def at(self, place: Place) -> None:
        """Replace the program at one place, unless it is as it is to be."""
        standing = self.hooks.survey().standing.get(place)
        if standing is not None and self.current.fits(standing):
            return
        old, new = self._open(standing), self.loaded.programs[place.program]
        if standing is None or old is None:
            raise StaleHandleError(f"another program took {place} off {self.hooks.name} meanwhile")
        if standing.meta_id not in self.own:
            raise StaleHandleError(f"another process moved {self.hooks.name} to tables of its own meanwhile")
        self.roll_back.callback(self._put_back, place, old, new)  # first: it may fail with the place changed
        self.hooks.replace(place, new, expected=old)
        there = self.hooks.survey().standing.get(place)
        if there is None or there.program_id != new.id:
            raise StaleHandleError(
                f"{place} of {self.hooks.name} does not hold the program that was just attached"
            )

    def _put_back(self, place: Place, old: Program, new: Program) -> None:
        with _rolling_back(str(place)):
            if not self._is_overtaken():
                self.hooks.replace(place, old, expected=new)

    def _is_overtaken(self) -> bool:
        """Whether another process went on with new maps of this one, so that the old ones may be out of use."""
        ours = {each.id for each in self.loaded.programs.values()}
        return self.own != frozenset([self.maps.meta.id]) and any(
            each.meta_id == self.maps.meta.id and each.program_id not in ours
            for each in self.hooks.survey().standing.values()
        )

    def switch(self, switch: StandingSwitch) -> None:
        """Replace the program of a transit switch; one that was detached meanwhile is no error."""
        old, new = self._open(switch.standing), self.loaded.programs[SWITCH]
        if old is None:
            return
        hook = XdpHook(switch.link.ifindex)
        mode = switch.mode
        tell_device(switch.host, self.loaded, SWITCH, switch.link.ifindex)
        self.roll_back.callback(self._put_switch_back, switch, old, new)
        switch.host.run(hook.replace, new, expected=old, mode=mode)
        log.info("transit switch on %s: program %d in place of %d", switch.link.name, new.id, old.id)
        noted = self.maps.read_switching()
        again = attrs.evolve(noted, generation=noted.generation + 1)
        self.maps.switching.update(FIRST, again.pack())

    def _put_switch_back(self, switch: StandingSwitch, old: Program, new: Program) -> None:
        with _rolling_back(f"the switch on {switch.link.name}"):
            if not self._is_overtaken():
                hook = XdpHook(switch.link.ifindex)
                switch.host.run(hook.replace, old, expected=new, mode=switch.mode)

    def shortcut(self, shortcut: StandingShortcut) -> None:
        """Replace the program of a shortcut; one that was detached meanwhile is no error."""
        old, new = self._open(shortcut.standing), self.loaded.programs[SHORTCUT]
        if old is None:
            return
        tell_device(shortcut.host, self.loaded, SHORTCUT, shortcut.link.ifindex)
        self.roll_back.callback(self._put_shortcut_back, shortcut, old, new)
        shortcut.replace(new, expected=old)

    def _put_shortcut_back(self, shortcut: StandingShortcut, old: Program, new: Program) -> None:
        with _rolling_back(f"the shortcut on {shortcut.link.name}"):
            if not self._is_overtaken():
                shortcut.replace(old, expected=new)

    def _open(self, standing: Standing | None) -> Program | None:
        program = None if standing is None else Program.open_id(standing.program_id)
        return None if program is None else self.opened.enter_context(program)


@contextmanager
def _rolling_back(what: str) -> Generator[None, None, None]:
    """Let the error that made the roll-back needed be the one that is raised."""
    try:
        yield
    except (StaleHandleError, NotFoundError, ExistsError):
        pass  # another process changed the place, or the old program still has it
    except MizarnetError as refused:
        log.warning("%s keeps the new program, which could not be replaced again: %s", what, refused)
