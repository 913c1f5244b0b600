# SPDX-License-Identifier: Apache-2.0
"""Transit switches: XDP programs on underlay devices, with the forwarding that they need. They outlive their tunnel.

Every change is noted in the map ``switching`` before it is made, and forwarding is turned on only when the program is
attached, which keeps the map. So any process that detaches the program can undo the changes, even if the tunnel is gone
and the process that attached it died.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from typing import ClassVar

import attrs

from mizarnet._datapath import closing, forwarding
from mizarnet._datapath.datapath import DataPath
from mizarnet._datapath.host import Host
from mizarnet._datapath.loader import SWITCH, load_onto
from mizarnet._datapath.maps import Maps
from mizarnet._datapath.survey import recognise
from mizarnet._datapath.underlay_program import UnderlayProgram, tell_device
from mizarnet._kernel.bpf import Map, Program, XdpHook
from mizarnet._kernel.netlink import Link, dump_links, get_link, has_gro
from mizarnet._model.codec import FIRST, Switching
from mizarnet._model.enumerations import SwitchFlag
from mizarnet._model.layouts import SWITCHING
from mizarnet._model.log import log
from mizarnet._model.specs import XdpMode
from mizarnet.errors import BpfError, ExistsError, NotFoundError, UnsupportedError

# What says nothing about the driver, so generic mode is no answer to it.
_SHORTAGES = {errno.ENOMEM, errno.ENOBUFS, errno.EMFILE, errno.ENFILE, errno.EPERM, errno.EACCES}


@attrs.frozen
class StandingSwitch(UnderlayProgram):
    """A transit switch's program on a device of a host."""

    KIND: ClassVar[str] = "switch"

    @property
    def mode(self) -> XdpMode:
        """Where the program runs: in the driver or above it; raises ``NotFoundError`` if the device is gone."""
        hook = XdpHook(self.link.ifindex)
        return XdpMode.GENERIC if self.host.run(hook.query).generic else XdpMode.NATIVE

    def remove(self) -> None:
        """Undo the switch's changes to its device, then detach the program, whose map ``switching`` notes them.

        The note goes before the program, by which it is found.
        """
        hook = XdpHook(self.link.ifindex)
        with ExitStack() as stack:
            stack.enter_context(suppress(NotFoundError))  # a device that is gone has no program
            mode = self.mode
            switching = self._open_note()
            noted = None if switching is None else _read_note(stack.enter_context(switching))
            # A device that was moved here from another namespace has left its settings there.
            own = noted is not None and noted.ifindex == hook.ifindex
            if switching is not None and noted is not None and own:
                forwarding.restore(self.host, noted.ifindex, noted.flags)
                close_devices(self.host, noted.flags, but=noted.ifindex)
                # The program runs on: on the generic hook checksums may be unfinished.
                _forget(switching, noted, flags=noted.flags & SwitchFlag.GENERIC_XDP)
            program = Program.open_id(self.standing.program_id)
            if program is not None:
                stack.callback(program.close)
                self.host.run(hook.detach, program, mode=mode)
                log.info("transit switch detached from %s", self.link.name)
            if switching is not None and noted is not None and own and mode is XdpMode.GENERIC:
                _forget(switching, noted)

    def changes(self) -> int:
        """The changes of its device's forwarding that it has noted, as bits of ``forwarding.py``."""
        switching = self._open_note()
        if switching is None:
            return 0
        with switching:
            noted = _read_note(switching)
            return noted.flags if noted.ifindex == self.link.ifindex else 0

    def take_over(self, ifindex: int, changes: int) -> bool:
        """Whether the switch needs a device, and has changes of its forwarding in its note from now on.

        Args:
            ifindex: Index of the device.
            changes: The changes, as bits of ``forwarding.py``.
        """
        switching = self._open_note()
        if switching is None:
            return False
        with switching:
            noted = _read_note(switching)
            if noted.ifindex == ifindex:
                close_devices(self.host, changes, also=ifindex)
                switching.update(FIRST, attrs.evolve(noted, flags=noted.flags | changes).pack())
            return noted.ifindex == ifindex

    def _open_note(self) -> Map | None:
        """Handle of the switch's map ``switching``; None if it is gone, or of another version."""
        for map_id in self.standing.map_ids:
            each = Map.open_id(map_id)
            if each is None:
                continue
            if (each.name, each.value_size) == ("switching", SWITCHING.size):
                return each
            each.close()
        return None


def find(host: Host, *, links: Iterable[Link] | None = None) -> list[StandingSwitch]:
    """The transit switches on a host's devices, whether their tunnels exist or not.

    Args:
        host: Host whose devices are searched.
        links: Devices to search; None: all of the host's.

    Raises:
        PrivilegeError: ``CAP_SYS_ADMIN`` is missing.
    """
    found: list[StandingSwitch] = []
    for link in dump_links(host) if links is None else links:
        for program_id in link.xdp_ids:
            standing = recognise(program_id)
            if standing is not None:
                found.append(StandingSwitch(host, link, standing))
    return found


def close_devices(host: Host, changes: int, *, also: int = 0, but: int = 0) -> None:
    """Close the devices that switches make routers, where ``changes``, as bits of ``SwitchFlag``, are of one of them.

    Args:
        host: Host of the switches.
        changes: What was changed of a device, or is about to be.
        also: Index of that device, if a switch needs it from now on, whose note may say so later.
        but: Index of that device, if no switch needs it any more.
    """
    if not changes & SwitchFlag.SET_FORWARDING_IPV4:
        return
    others = find(host, links=[each for each in dump_links(host) if each.ifindex not in (also, but)])
    routers = {each.link.ifindex for each in others if each.changes() & SwitchFlag.SET_FORWARDING_IPV4}
    closing.close(host, (routers | {also}) - {0})


def own(datapath: DataPath, *, links: Iterable[Link] | None = None) -> list[StandingSwitch]:
    """The switches of a data path: at most one, unless two processes attached one each at the same moment.

    Args:
        datapath: The data path.
        links: Devices to search; None: all of the host's.
    """
    found = find(datapath.host, links=links)
    return [each for each in found if each.standing.meta_id == datapath.meta_id]


def clear(datapath: DataPath) -> None:
    """Detach the switch of a data path, and undo noted changes of a process that died before it attached one."""
    for switch in own(datapath):
        switch.remove()
    # If the tunnel was moved to another namespace, the noted index is another device's there.
    if datapath.maps.read_meta().head.netns_cookie == datapath.host.cookie:
        noted = datapath.maps.read_switching()
        if noted.ifindex:
            forwarding.restore(datapath.host, noted.ifindex, noted.flags)
            close_devices(datapath.host, noted.flags, but=noted.ifindex)
            _forget(datapath.maps.switching, noted)


def attach(datapath: DataPath, maps: Maps, device: Link, wanted: XdpMode | None) -> XdpMode:
    """Attach a switch to a device that has none, and turn forwarding on.

    Args:
        datapath: Data path whose tables the switch reads.
        maps: Maps of the data path.
        device: Device of the underlay.
        wanted: Where the program shall run; None: native where the driver has XDP, else generic.

    Returns:
        Where the program runs: native or generic.

    Raises:
        UnsupportedError: The driver has no XDP (native mode), or generic mode would meet packets merged by GRO.
        ExistsError: Another XDP program is on the device.
    """
    clear(datapath)  # changes are left if a process died, or if another program detached the switch
    changes = forwarding.needed(datapath.host, device.name, maps.read_meta().local.version)
    with load_onto(maps, [SWITCH]) as loaded:
        count = maps.read_switching().generation + 1
        _note(maps, 0, SwitchFlag.GENERIC_XDP, count)  # no change yet: nobody would find it without a program
        try:
            tell_device(datapath.host, loaded, SWITCH, device.ifindex)
            used = datapath.host.run(_attach_program, loaded.programs[SWITCH], device, wanted)
            _note(maps, device.ifindex, changes | SwitchFlag.GENERIC_XDP, count)
            close_devices(datapath.host, changes, also=device.ifindex)
            forwarding.enable(datapath.host, device.name, changes)
            # On the generic hook checksums may be unfinished: the flag is set until the mode is known to be native.
            if used is XdpMode.NATIVE:
                _note(maps, device.ifindex, changes, count)
        except BaseException:
            clear(datapath)
            raise
    return used


def complete(datapath: DataPath, maps: Maps, existing: StandingSwitch) -> None:
    """Complete the note, and turn forwarding on: the process that attached the switch may have died before that."""
    noted, link = maps.read_switching(), existing.link
    existing.settle_in()
    changes = forwarding.needed(datapath.host, link.name, maps.read_meta().local.version)
    kept = noted.flags & ~SwitchFlag.GENERIC_XDP if existing.mode is XdpMode.NATIVE else noted.flags
    if (link.ifindex, kept | changes) != (noted.ifindex, noted.flags):
        _note(maps, link.ifindex, kept | changes, noted.generation)
    close_devices(datapath.host, noted.flags | changes, also=link.ifindex)
    forwarding.enable(datapath.host, link.name, changes)


def follows(datapath: DataPath, former: int, device: Link) -> bool:
    """Whether a data path has a switch that goes where its tunnel does: it is on the underlay, or its device is gone.

    One that was given another device stays there.

    Args:
        datapath: The data path.
        former: Index of the underlay's device up to now.
        device: The underlay's device from now on, where a process that was killed may have led it already.

    Raises:
        ExistsError: It would go there, and another XDP program is on the device.
    """
    noted = datapath.maps.read_switching().ifindex
    standing = {each.link.ifindex for each in own(datapath)}
    places = (standing | {noted}) - {0}
    is_gone = noted not in standing | {0} and get_link(datapath.host, ifindex=noted) is None
    if not (is_gone or places & {former, device.ifindex}) or places == standing == {device.ifindex}:
        return False
    if standing and device.ifindex not in standing and device.xdp_ids:
        holder = f"XDP program {device.xdp_ids[0]}"
        raise ExistsError(
            f"{holder} is on {device.name}, where the transit switch is to move",
            holder=holder,
            hint="detach it first, or the switch",
        )
    return True


def move(datapath: DataPath, maps: Maps, device: Link) -> None:
    """Have the switch of a data path, if it has one, on another device of the underlay, in the mode that goes there.

    The old program goes first: the kernel takes none off a port of a bridge that has one. Meanwhile the guard bounces
    packets. The note tells of the new device before that, so whoever finds no program there knows what is missing.

    Raises:
        ExistsError: Another XDP program is on the device.
        UnsupportedError: The device has no hook for it, or it would meet packets merged by GRO.
    """
    noted, standing = maps.read_switching(), own(datapath)
    places = [each.link.ifindex for each in standing]
    if places == [device.ifindex] == [noted.ifindex] or not (places or noted.ifindex):
        return
    count = noted.generation + 1
    if noted.ifindex != device.ifindex:
        forwarding.restore(datapath.host, noted.ifindex, noted.flags)
        close_devices(datapath.host, noted.flags, but=noted.ifindex)
        changes = forwarding.needed(datapath.host, device.name, maps.read_meta().local.version)
        _note(maps, device.ifindex, changes | SwitchFlag.GENERIC_XDP, count)
    for each in standing:
        if each.link.ifindex != device.ifindex:
            each.remove()
    if device.ifindex not in places:
        with load_onto(maps, [SWITCH]) as loaded:
            tell_device(datapath.host, loaded, SWITCH, device.ifindex)
            datapath.host.run(_attach_program, loaded.programs[SWITCH], device, None)
    for each in own(datapath):
        complete(datapath, maps, each)


def _attach_program(program: Program, device: Link, wanted: XdpMode | None) -> XdpMode:
    mode = wanted or XdpMode.NATIVE
    if mode is XdpMode.GENERIC:
        _refuse_merged_packets(device)
    try:
        XdpHook(device.ifindex).attach(program, mode=mode)
    except (BpfError, UnsupportedError) as refused:
        if wanted is not None or (isinstance(refused, BpfError) and refused.errno in _SHORTAGES):
            raise
        return _attach_program(program, device, XdpMode.GENERIC)
    log.info("transit switch attached to %s: %s XDP", device.name, mode.value)
    return mode


def _refuse_merged_packets(device: Link) -> None:
    # On a physical NIC the generic hook runs after GRO, and the packets that it transmits are not segmented again.
    if not device.kind and has_gro(device.name):
        raise UnsupportedError(
            f"generic XDP on {device.name} would bounce packets that GRO merged",
            feature="generic_xdp",
            hint=f"switch GRO off: ethtool -K {device.name} gro off",
        )


def _note(maps: Maps, ifindex: int, flags: int, generation: int) -> None:
    maps.switching.update(FIRST, Switching(ifindex=ifindex, flags=flags, generation=generation).pack())


def _read_note(switching: Map) -> Switching:
    return Switching.unpack(switching.lookup(FIRST) or bytes(switching.value_size))


def _forget(switching: Map, noted: Switching, *, flags: int = 0) -> None:
    """Write into the map ``switching`` that there is no switch, and no change to undo."""
    switching.update(FIRST, attrs.evolve(noted, ifindex=0, flags=flags).pack())
