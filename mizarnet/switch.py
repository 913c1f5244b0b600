# SPDX-License-Identifier: Apache-2.0
"""The transit switch of a host: XDP on the underlay that bounces tunnel packets on."""

from __future__ import annotations

from contextlib import suppress
from typing import Literal, Self, final

import attrs

from mizarnet._datapath import forwarding, leftovers
from mizarnet._datapath.loader import SWITCH, load_onto
from mizarnet._datapath.lock import locked
from mizarnet._datapath.maps import Maps
from mizarnet._datapath.survey import StandingSwitch, find_switches
from mizarnet._kernel.bpf import Program, XdpHook, XdpMode
from mizarnet._kernel.netlink import Link as Device
from mizarnet._kernel.netlink import Session, get_link, has_gro
from mizarnet._model import arguments
from mizarnet._model.codec import FIRST, Switching
from mizarnet._model.enumerations import SwitchFlag
from mizarnet._model.specs import NetnsLike, parse_member
from mizarnet.agent import TransitAgent
from mizarnet.errors import (
    AgentNotFoundError,
    BpfError,
    InvalidTypeError,
    StaleHandleError,
    SwitchNotFoundError,
    UnderlayNotFoundError,
    UnsupportedError,
)


@attrs.frozen
class SwitchState:
    """A transit switch as the kernel described it.

    Attributes:
        attached: Whether the program is on the device.
        forwarding: Whether the device forwards, without which every packet takes the way through the guard.
    """

    attached: bool
    forwarding: bool


@final
class TransitSwitch:
    """A handle of the transit switch of one host. It holds nothing of the kernel, so there is nothing to close.

    Made by :meth:`attach` and :meth:`open`. The switch bounces by the tables of the agent. Without one the guard
    does the same, more slowly.

    Attributes:
        agent: The agent whose tables it reads.
        underlay: Name of the device.
        ifindex: Of the device.
        mode: Where the program runs: ``"native"`` in the driver, or ``"generic"`` above it.
        created: Whether this call attached it.
    """

    def __init__(self, agent: TransitAgent, device: Device, *, mode: XdpMode, created: bool) -> None:
        """Not for users: see :meth:`attach` and :meth:`open`."""
        self.agent = agent
        self.underlay: str = device.name
        self.ifindex: int = device.ifindex
        self.mode: Literal["native", "generic"] = "generic" if mode is XdpMode.GENERIC else "native"
        self.created = created

    @classmethod
    def attach(
        cls,
        agent: TransitAgent,
        *,
        underlay: str | None = None,
        mode: Literal["auto", "native", "generic"] = "auto",
    ) -> Self:
        """Attach the agent's XDP program to the underlay, and turn forwarding on for that device.

        Args:
            agent: Of the host.
            underlay: Device; None: the tunnel's.
            mode: ``"auto"``: native where the driver can, else generic.

        Returns:
            The switch; the existing one, with ``created`` False, if there is one.

        Raises:
            UnderlayNotFoundError: There is no such device.
            UnsupportedError: The driver has no XDP (``"native"``), or generic mode would meet merged packets (GRO).
            ExistsError: Another XDP program is on the device.
            PrivilegeError: A capability is missing.
            LockTimeoutError: Another process is writing all the time.
        """
        _check_agent(agent)
        name = None if underlay is None else arguments.check_device_name(underlay, argument="underlay")
        wanted = parse_member(XdpMode, mode, argument="mode")
        with agent.datapath.writing() as maps:
            existing = _standing(agent)
            if existing is not None:
                _complete(agent, maps, existing)
                return cls._existing(agent, existing)
            device = agent.tunnel.find_underlay() if name is None else get_link(agent.session, name)
            if device is None:
                raise UnderlayNotFoundError(f"there is no underlay device {name or agent.tunnel.underlay!r}")
            # What a process that died, or somebody who took the program off, may have left.
            leftovers.clear_switches(agent.datapath)
            used = _install(agent, maps, device, wanted)
        return cls(agent, device, mode=used, created=True)

    @classmethod
    def open(cls, agent: TransitAgent) -> Self:
        """A handle of the switch that is attached; raises ``SwitchNotFoundError`` if there is none."""
        existing = _standing(_check_agent(agent))
        if existing is None:
            raise SwitchNotFoundError(
                "this host is no transit switch", hint="make it one with TransitSwitch.attach()"
            )
        return cls._existing(agent, existing)

    @classmethod
    def _existing(cls, agent: TransitAgent, existing: StandingSwitch) -> Self:
        mode = leftovers.xdp_mode(agent.session, existing.link)
        return cls(agent, existing.link, mode=mode, created=False)

    def state(self) -> SwitchState:
        """Read the switch from the kernel."""
        link = get_link(self.agent.session, ifindex=self.ifindex)
        version = self.agent.tunnel.local.version
        return SwitchState(
            attached=_standing(self.agent) is not None,
            forwarding=link is not None and forwarding.is_on(self.agent.session, link.name, version),
        )

    def detach(self: TransitSwitch | str, *, netns: NetnsLike | None = None) -> None:
        """Take the program off and put forwarding back; succeeds if it is gone already.

        ``TransitSwitch.detach("eth0")`` does so with nothing but the device's name, whatever became of the tunnel that
        the switch was for.

        Args:
            netns: Host namespace of a device given by name; None: the calling thread's.

        Raises:
            UnderlayNotFoundError: There is no device of that name.
            PrivilegeError: ``CAP_SYS_ADMIN`` or ``CAP_NET_ADMIN`` is missing.
            LockTimeoutError: Another process is writing all the time.
        """
        if isinstance(self, str):
            _detach_from(arguments.check_device_name(self, argument="underlay"), netns)
            return
        if netns is not None:
            raise InvalidTypeError("netns= goes with the name of a device", argument="netns")
        with locked(self.agent.session.cookie), suppress(StaleHandleError, AgentNotFoundError):
            # If the agent was detached, that took the switch along.
            leftovers.clear_switches(self.agent.datapath)

    def __repr__(self) -> str:
        return f"<TransitSwitch on {self.underlay}: {self.mode} XDP>"


def _check_agent(agent: TransitAgent) -> TransitAgent:
    if not isinstance(agent, TransitAgent):
        raise InvalidTypeError(f"agent must be a TransitAgent, not {type(agent).__name__}", argument="agent")
    return agent


def _standing(agent: TransitAgent) -> StandingSwitch | None:
    """The switch of this agent, on whatever device."""
    _ = agent.datapath.maps  # raises if the agent is gone
    return next(iter(agent.datapath.own_switches()), None)


def _detach_from(name: str, netns: NetnsLike | None) -> None:
    where = None if netns is None else arguments.check_netns(netns)
    with Session.open(where) as session, locked(session.cookie):
        link = get_link(session, name)
        if link is None:
            raise UnderlayNotFoundError(f"there is no device {name!r}")
        for each in find_switches(session, links=[link]):
            leftovers.remove_switch(session, each)


def _install(agent: TransitAgent, maps: Maps, device: Device, wanted: XdpMode) -> XdpMode:
    """The note of every change comes before the change, and the program, which keeps the note, before forwarding.

    So whoever takes the program off can put everything back, whenever its maker died and whatever became of the tunnel.
    """
    changes = forwarding.needed(agent.session, device.name, agent.tunnel.local.version)
    with load_onto(maps, [SWITCH]) as loaded:
        count = maps.read_switching().generation + 1
        _note(maps, device.ifindex, changes | SwitchFlag.GENERIC_XDP, count)
        try:
            used = agent.session.run(_attach, loaded.programs[SWITCH], device, wanted)
            forwarding.enable(agent.session, device.name, changes)
        except BaseException:
            leftovers.clear_switches(agent.datapath)
            raise
    # Until it is known to be native, a checksum is not to be trusted: hence the flag from the start.
    _note(maps, device.ifindex, changes | (SwitchFlag.GENERIC_XDP if used is XdpMode.GENERIC else 0), count)
    return used


def _complete(agent: TransitAgent, maps: Maps, existing: StandingSwitch) -> None:
    """Whoever attached the switch may have died before the end, or somebody may have turned forwarding off."""
    noted, link = maps.read_switching(), existing.link
    changes = forwarding.needed(agent.session, link.name, agent.tunnel.local.version)
    native = leftovers.xdp_mode(agent.session, link) is XdpMode.NATIVE
    kept = noted.flags & ~SwitchFlag.GENERIC_XDP if native else noted.flags
    if (link.ifindex, kept | changes) != (noted.ifindex, noted.flags):
        _note(maps, link.ifindex, kept | changes, noted.generation)
    forwarding.enable(agent.session, link.name, changes)


def _note(maps: Maps, ifindex: int, flags: int, generation: int) -> None:
    maps.switching.update(FIRST, Switching(ifindex=ifindex, flags=flags, generation=generation).pack())


def _attach(program: Program, device: Device, wanted: XdpMode) -> XdpMode:
    mode = XdpMode.NATIVE if wanted is XdpMode.AUTO else wanted
    if mode is XdpMode.GENERIC:
        _refuse_merged_packets(device)
    try:
        XdpHook(device.ifindex).attach(program, mode=mode)
    except (BpfError, UnsupportedError):
        if wanted is not XdpMode.AUTO:
            raise
        return _attach(program, device, XdpMode.GENERIC)
    return mode


def _refuse_merged_packets(device: Device) -> None:
    # On a real NIC the generic hook comes after GRO, and what it transmits is not split again.
    if not device.kind and has_gro(device.name):
        raise UnsupportedError(
            f"generic XDP on {device.name} would bounce packets that GRO merged",
            feature="generic_xdp",
            hint=f"switch GRO off: ethtool -K {device.name} gro off",
        )
