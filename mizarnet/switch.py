# SPDX-License-Identifier: Apache-2.0
"""The transit switch of a host: XDP on the underlay that bounces tunnel packets on."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self, final

import attrs

from mizarnet import attachment, bpf, checks, forwarding
from mizarnet.abi.records import META_KEY, Meta
from mizarnet.agent import TransitAgent
from mizarnet.bpf import Link, Program, XdpMode
from mizarnet.errors import (
    BpfError,
    InvalidTypeError,
    NotFoundError,
    StaleHandleError,
    SwitchNotFoundError,
    UnderlayNotFoundError,
    UnsupportedError,
)
from mizarnet.netlink import Link as Device
from mizarnet.netlink import get_link, has_gro
from mizarnet.numbers import SwitchFlag
from mizarnet.store import Maps, read_meta
from mizarnet.values import parse_member


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
        name = (
            agent.tunnel.underlay
            if underlay is None
            else checks.check_device_name(underlay, argument="underlay")
        )
        wanted = parse_member(XdpMode, mode, argument="mode")
        with agent.store.writing() as maps:
            existing = _read(maps)
            if existing.switch_ifindex and _is_attached(agent):
                return cls._existing(agent, _settle(agent, maps, existing))
            device = get_link(agent.session, name)
            if device is None:
                raise UnderlayNotFoundError(f"there is no underlay device {name!r}")
            _remove(agent, maps)  # what a process that died may have left
            used = _install(agent, maps, device, wanted)
        return cls(agent, device, mode=used, created=True)

    @classmethod
    def open(cls, agent: TransitAgent) -> Self:
        """A handle of the switch that is attached; raises ``SwitchNotFoundError`` if there is none."""
        known = _read(_check_agent(agent).store.maps)
        if not known.switch_ifindex or not _is_attached(agent):
            raise SwitchNotFoundError(
                "this host is no transit switch", hint="make it one with TransitSwitch.attach()"
            )
        return cls._existing(agent, known)

    @classmethod
    def _existing(cls, agent: TransitAgent, known: Meta) -> Self:
        device = get_link(agent.session, ifindex=known.switch_ifindex)
        if device is None:
            raise SwitchNotFoundError("the device of the transit switch is gone")
        mode = XdpMode.GENERIC if known.switch_flags & SwitchFlag.GENERIC_XDP else XdpMode.NATIVE
        return cls(agent, device, mode=mode, created=False)

    def state(self) -> SwitchState:
        """Read the switch from the kernel."""
        return SwitchState(
            attached=_is_attached(self.agent),
            forwarding=forwarding.is_on(self.agent.session, self.underlay, self.agent.tunnel.local.version),
        )

    def detach(self) -> None:
        """Take the program off and put forwarding back; succeeds if it is gone already.

        Raises:
            LockTimeoutError: Another process is writing all the time.
        """
        try:
            with self.agent.store.writing() as maps:
                _remove(self.agent, maps)
        except StaleHandleError:
            return  # the agent was detached, which takes the switch along

    def __repr__(self) -> str:
        return f"<TransitSwitch on {self.underlay}: {self.mode} XDP>"


def _check_agent(agent: TransitAgent) -> TransitAgent:
    if not isinstance(agent, TransitAgent):
        raise InvalidTypeError(f"agent must be a TransitAgent, not {type(agent).__name__}", argument="agent")
    return agent


def _pin(agent: TransitAgent) -> Path:
    return agent.store.directory / attachment.SWITCH_LINK


def _read(maps: Maps) -> Meta:
    known = read_meta(maps.meta)
    assert known is not None  # of an agent that could be opened
    return known


def _is_attached(agent: TransitAgent) -> bool:
    try:
        with Link.open_pinned(str(_pin(agent))) as link:
            return bool(link.ifindex)
    except NotFoundError:
        return False


def _install(agent: TransitAgent, maps: Maps, device: Device, wanted: XdpMode) -> XdpMode:
    """The record of every change comes before the change, so that it can be put back whatever happens."""
    changes = forwarding.needed(agent.session, device.name, agent.tunnel.local.version)
    _record(maps, device.ifindex, changes | SwitchFlag.GENERIC_XDP)
    try:
        forwarding.enable(agent.session, device.name, changes)
        with Program.open_pinned(str(agent.store.directory / attachment.SWITCH)) as program:
            used = agent.session.run(_attach, agent, program, device, wanted)
        # Until it is known to be native, a checksum is not to be trusted: hence the flag from the start.
        _record(maps, device.ifindex, changes | (SwitchFlag.GENERIC_XDP if used is XdpMode.GENERIC else 0))
    except BaseException:
        _remove(agent, maps)
        raise
    return used


def _record(maps: Maps, ifindex: int, flags: int) -> None:
    known = attrs.evolve(_read(maps), switch_ifindex=ifindex, switch_flags=flags)
    maps.meta.update(META_KEY, known.pack())


def _settle(agent: TransitAgent, maps: Maps, known: Meta) -> Meta:
    """Whoever attached the switch may have died before it could note that the mode is native."""
    if agent.session.run(bpf.query_xdp, known.switch_ifindex).native:
        _record(maps, known.switch_ifindex, known.switch_flags & ~SwitchFlag.GENERIC_XDP)
    return _read(maps)


def _attach(agent: TransitAgent, program: Program, device: Device, wanted: XdpMode) -> XdpMode:
    mode = XdpMode.NATIVE if wanted is XdpMode.AUTO else wanted
    if mode is XdpMode.GENERIC:
        _refuse_merged_packets(device)
    try:
        link = bpf.attach_xdp(program, device.ifindex, mode=mode)
    except (BpfError, UnsupportedError):
        if wanted is not XdpMode.AUTO:
            raise
        return _attach(agent, program, device, XdpMode.GENERIC)
    with link:
        link.pin(str(_pin(agent)))
    return mode


def _refuse_merged_packets(device: Device) -> None:
    # On a real NIC the generic hook comes after GRO, and what it transmits is not split again.
    if not device.kind and has_gro(device.name):
        raise UnsupportedError(
            f"generic XDP on {device.name} would bounce packets that GRO merged",
            feature="generic_xdp",
            hint=f"switch GRO off: ethtool -K {device.name} gro off",
        )


def _remove(agent: TransitAgent, maps: Maps) -> None:
    attachment.detach_link(_pin(agent))
    known = _read(maps)
    if known.switch_ifindex:
        forwarding.restore(agent.session, known.switch_ifindex, known.switch_flags)
        _record(maps, 0, 0)
