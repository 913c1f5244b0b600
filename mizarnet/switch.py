# SPDX-License-Identifier: Apache-2.0
"""The transit switch of a host: an XDP program on the underlay that bounces tunnel packets on to other hosts."""

from __future__ import annotations

from contextlib import suppress
from typing import Literal, Self, final

import attrs

from mizarnet._datapath import forwarding, switches
from mizarnet._datapath.checks import switch_findings
from mizarnet._datapath.checks.confirm import confirmed
from mizarnet._datapath.datapath import DataPath
from mizarnet._datapath.gateways import rules
from mizarnet._datapath.host import Host
from mizarnet._datapath.switches import StandingSwitch
from mizarnet._datapath.tunnel_device import no_underlay
from mizarnet._kernel.jobs import whole
from mizarnet._kernel.netlink import Link, get_link
from mizarnet._model import arguments
from mizarnet._model.described import Described
from mizarnet._model.differences import refuse_differences
from mizarnet._model.finding import Finding, worst_first
from mizarnet._model.public import public
from mizarnet._model.specs import NetnsLike, XdpMode, parse_member
from mizarnet.agent import TransitAgent, datapath_of
from mizarnet.errors import (
    AgentNotFoundError,
    InvalidTypeError,
    MizarnetError,
    StaleHandleError,
    SwitchNotFoundError,
)
from mizarnet.tunnel import device_of, place_of


@public
@attrs.frozen
class SwitchState(Described):
    """A transit switch as the kernel described it.

    Attributes:
        attached: Whether the program is on a device.
        forwarding: Whether the device forwards packets; without forwarding, every packet takes the way through the
            guard.
    """

    attached: bool
    forwarding: bool


@public
@final
class TransitSwitch(Described):
    """A handle of the transit switch of one host. It keeps no kernel object open, so there is nothing to close.

    Made by :meth:`attach` and :meth:`open`. The switch decides by the tables of the agent. On a host without a switch,
    the guard bounces the same packets, more slowly.

    Attributes:
        agent: Agent whose tables the switch reads.
        underlay: Name of the underlay device that the program was on when this handle was made.
        ifindex: Index of that device, in the host's namespace.
        mode: Where the program runs: in the driver, or above it.
        created: Whether the call that made this handle attached the switch.

    Raises:
        ClosedError: In each method, after the agent's handle was closed.
        ForkedError: In each method, in a child of the process that made the agent's handle.
        StaleHandleError: In each method but :meth:`detach`: the agent was detached or replaced, or its tunnel is gone.
        AgentNotFoundError: In each method but :meth:`detach`: another program took agent and guard off every hook.
        LockTimeoutError: In :meth:`attach` and :meth:`detach`: another process held the host's lock for 10 s.
    """

    _DESCRIBED = ("underlay", "ifindex", "mode", "created")

    def __init__(self, agent: TransitAgent, device: Link, *, mode: XdpMode, created: bool) -> None:
        """Not for users: see :meth:`attach` and :meth:`open`."""
        self.agent = agent
        self._datapath = datapath_of(agent)
        self.underlay: str = device.name
        self.ifindex: int = device.ifindex
        self.mode: XdpMode = mode
        self.created = created

    @classmethod
    @whole
    def attach(
        cls,
        agent: TransitAgent,
        *,
        underlay: str | None = None,
        mode: XdpMode | Literal["auto", "native", "generic"] = "auto",
    ) -> Self:
        """Attach the agent's XDP program to an underlay device, and turn forwarding on for that device.

        Args:
            agent: Transit agent of the host.
            underlay: Name of the underlay device; None: the tunnel's.
            mode: Where the program runs; ``"auto"``: native where the driver has XDP, else generic.

        Returns:
            The switch; the existing one, with ``created`` False, if it is as asked for.

        Raises:
            UnderlayNotFoundError: There is no such device.
            UnsupportedError: The driver has no XDP (``"native"``), or generic mode would meet packets merged by GRO.
            ExistsError: The existing switch differs from a given argument, or another XDP program is on the device.
            PrivilegeError: A capability is missing.
        """
        datapath = datapath_of(agent)
        name = None if underlay is None else arguments.check_device_name(underlay, argument="underlay")
        wanted = None if mode == "auto" else parse_member(XdpMode, mode, argument="mode")
        with datapath.writing() as maps:
            existing = _standing(datapath)
            if existing is not None:
                _compare(existing, underlay=name, mode=wanted)
                switches.complete(datapath, maps, existing)
                return cls._existing(agent, existing)
            device = (
                device_of(agent.tunnel).by(maps.read_meta()).find_underlay()
                if name is None
                else get_link(datapath.host, name)
            )
            if device is None:
                raise no_underlay(datapath.host, name or agent.tunnel.underlay)
            used = switches.attach(datapath, maps, device, wanted)
            _tell_gateways(datapath.host)
        return cls(agent, device, mode=used, created=True)

    @classmethod
    def open(cls, agent: TransitAgent) -> Self:
        """A handle of the switch that is attached.

        Args:
            agent: Transit agent of the host.

        Raises:
            SwitchNotFoundError: No switch of this agent is attached.
        """
        existing = _standing(datapath_of(agent))
        if existing is None:
            raise SwitchNotFoundError(
                "this host is no transit switch", hint="make it one with TransitSwitch.attach()"
            )
        return cls._existing(agent, existing)

    @classmethod
    def _existing(cls, agent: TransitAgent, existing: StandingSwitch) -> Self:
        return cls(agent, existing.link, mode=existing.mode, created=False)

    def state(self) -> SwitchState:
        """The switch, read from the kernel, on whatever device it is by now."""
        standing = _standing(self._datapath)
        link = get_link(self._datapath.host, ifindex=self.ifindex) if standing is None else standing.link
        version = self.agent.tunnel.local.version
        return SwitchState(
            attached=standing is not None,
            forwarding=link is not None and forwarding.is_on(self._datapath.host, link.name, version),
        )

    def check(self) -> list[Finding]:
        """What about the switch is not as it should be, the worst first; none is the good case.

        A read without a lock; each finding was seen twice, 0.1 s apart.
        """
        return worst_first(confirmed(lambda: [*switch_findings(self._datapath)]))

    @whole
    def detach(self: TransitSwitch | str, *, netns: NetnsLike | None = None) -> None:
        """Detach the program and set forwarding to what it was before; succeeds if the switch is gone already.

        ``TransitSwitch.detach("eth0")`` needs nothing but the device's name, whether or not the tunnel of the switch
        still exists.

        Args:
            netns: Host namespace of a device given by name; None: the calling thread's.

        Raises:
            UnderlayNotFoundError: There is no device of that name.
            PrivilegeError: ``CAP_SYS_ADMIN`` or ``CAP_NET_ADMIN`` is missing.
        """
        if isinstance(self, str):
            _detach_from(arguments.check_device_name(self, argument="underlay"), netns)
            return
        if netns is not None:
            raise InvalidTypeError("netns= goes with the name of a device", argument="netns")
        if not isinstance(self, TransitSwitch):
            raise InvalidTypeError(
                f"switch must be a TransitSwitch, not {type(self).__name__}", argument="switch"
            )
        with self._datapath.host.locked(), suppress(StaleHandleError, AgentNotFoundError):
            # Detaching the agent detached the switch.
            switches.clear(self._datapath)
            _tell_gateways(self._datapath.host)

    def __repr__(self) -> str:
        return f"<TransitSwitch on {self.underlay}: {self.mode.value} XDP>"

    def _caption(self) -> str:
        return f"Transit switch on {self.underlay}, by the tables of {place_of(self.agent.tunnel)}"


def _standing(datapath: DataPath) -> StandingSwitch | None:
    """The switch of a data path on any device; None if there is none."""
    _ = datapath.maps  # raises an error if the agent is gone
    return next(iter(switches.own(datapath)), None)


def _compare(existing: StandingSwitch, *, underlay: str | None, mode: XdpMode | None) -> None:
    """Raises ``ExistsError`` unless the switch is as asked for."""
    refuse_differences(
        "the transit switch",
        {"underlay": underlay, "mode": mode},
        {"underlay": existing.link.name, "mode": existing.mode},
        holder=existing.link.name,
        hint="leave the argument out, or detach the switch first",
    )


def _detach_from(name: str, netns: NetnsLike | None) -> None:
    where = None if netns is None else arguments.check_netns(netns)
    with Host.open(where) as host, host.locked():
        link = get_link(host, name)
        if link is None:
            raise no_underlay(host, name)
        for each in switches.find(host, links=[link]):
            each.remove()
        _tell_gateways(host)


def _tell_gateways(host: Host) -> None:
    """Let the rules of a host's gateways follow; the switch has rules of its own, so a check tells of a failure."""
    with suppress(MizarnetError):
        rules.follow_switch(host)
