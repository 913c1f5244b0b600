# SPDX-License-Identifier: Apache-2.0
"""The one tunnel device of a host.

Modules that opening one does not need are imported where they are used: a fresh process pays for each.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from typing import Literal, Self, final

import attrs

from mizarnet._datapath.host import Host
from mizarnet._datapath.losses import read_losses
from mizarnet._datapath.tunnel_device import TunnelDevice, delete_named, find_or_make
from mizarnet._kernel.closing import Closing
from mizarnet._kernel.jobs import whole
from mizarnet._model import arguments
from mizarnet._model.arguments import IPAddress
from mizarnet._model.described import Described, Listing
from mizarnet._model.finding import Finding, Findings, worst_first
from mizarnet._model.public import public
from mizarnet._model.specs import (
    KEEP,
    AddressLike,
    Encap,
    Keep,
    MacAddress,
    NetnsLike,
    TunnelSpec,
    parse_member,
)
from mizarnet.errors import InvalidTypeError, MizarnetError


@public
@attrs.frozen
class TunnelState(Described):
    """A tunnel as the kernel described it.

    Attributes:
        up: Whether the device is administratively up: attaching the transit agent sets it up, detaching takes it down.
        mtu: Largest inner packet, in bytes.
        mac: MAC address of the device; no frame is ever sent to it.
        qdisc: Queueing discipline of the device: ``"noqueue"``; any other would mix up destinations, see
            ``docs/design.md``.
        silent: Whether ARP and multicast are off, as the device was created.
        lost: Packets that the device lost behind the verdicts of agent and guard, by the kernel's names of its
            counters (``ip -s -s link``), without those that are 0. Some of them: ``tx_carrier_errors``, no route to
            the other host, or no answer from its next hop; ``rx_otherhost_dropped`` (kernel 5.19), no device on the
            tunnel has the destination's MAC, as when it is down.
    """

    up: bool
    mtu: int
    mac: MacAddress
    qdisc: str
    silent: bool
    lost: Mapping[str, int]


@public
@final
class Tunnel(Described, Closing):
    """A handle of a host's tunnel device. Closing it, or leaving its ``with``, touches nothing in the kernel.

    Made by :meth:`create` and :meth:`open`. Attributes are what was true then; :meth:`state` reads the kernel.

    Attributes:
        name: Name of the device.
        encap: Encapsulation.
        port: UDP port.
        mtu: Largest inner packet, in bytes.
        local: Underlay address that outer packets come from.
        underlay: Name of the underlay's device.
        underlay_ifindex: Index of the underlay's device in the host's namespace; its name may change.
        ifindex: Index of the device, in the host's namespace.
        netns: Host namespace, as the caller named it; None: that of the thread that made the handle.
        created: Whether the call that made this handle created the device.

    Raises:
        ClosedError: In :meth:`copy`, :meth:`state` and :meth:`delete`, after :meth:`close`.
        ForkedError: In the same methods, in a child of the process that made the handle.
        LockTimeoutError: In :meth:`create`, :meth:`update` and :meth:`delete`: another process held the host's lock for
            10 s.
    """

    _DESCRIBED = (
        "name",
        "encap",
        "local",
        "port",
        "mtu",
        "underlay",
        "underlay_ifindex",
        "ifindex",
        "netns",
        "created",
    )

    def __init__(self, device: TunnelDevice, *, netns: str | None, created: bool) -> None:
        """Not for users: see :meth:`create` and :meth:`open`."""
        self._host: Host = device.host
        self.netns = netns
        self.created = created
        self._learn(device)

    def _learn(self, device: TunnelDevice) -> None:
        """Take over what is known of the tunnel by now."""
        self._device = device
        self.name: str = device.name
        self.encap: Encap = device.encap
        self.port: int = device.port
        self.mtu: int = device.mtu
        self.local: IPAddress = device.local
        self.underlay: str = device.underlay
        self.underlay_ifindex: int = device.underlay_ifindex
        self.ifindex: int = device.ifindex

    @classmethod
    @whole
    def create(
        cls,
        name: str,
        *,
        encap: Encap | Literal["vxlan", "geneve"],
        underlay: str,
        local: AddressLike | None = None,
        port: int | None = None,
        mtu: int | None = None,
        netns: NetnsLike | None = None,
    ) -> Self:
        """Create the tunnel device, silent and down; the transit agent brings it up.

        Args:
            name: Name of the device, at most 15 bytes; not ``mizarnet-new``, as it is called until it is finished.
            encap: Encapsulation; all hosts must use the same.
            underlay: Name of the device that leads to the other hosts.
            local: Underlay address of this host; None: the underlay's first global one, IPv4 before IPv6.
            port: UDP port; None: the one that IANA assigned (VXLAN 4789, Geneve 6081).
            mtu: Largest inner packet, in bytes; None: the underlay's MTU less 50 (IPv4) or 70 (IPv6). Endpoints with
                IPv6 addresses need at least 1280.
            netns: Host namespace, a name under ``/run/netns`` or a path; None: the calling thread's.

        Returns:
            The tunnel; the existing one, with ``created`` False, if it is as asked for.

        Raises:
            ExistsError: The name or the port is taken, or the tunnel exists and a given argument differs.
            UnderlayNotFoundError: There is no such underlay device, or it has no global address, or the host does not
                have the address ``local``.
            MtuError: The MTU does not fit the underlay.
            UnsupportedError: This kernel lacks the encapsulation.
            NetnsNotFoundError: There is no such namespace.
            PrivilegeError: ``CAP_NET_ADMIN`` (or ``CAP_SYS_ADMIN``, to enter ``netns``) is missing.
        """
        arguments.check_tunnel_name(name)
        spec = TunnelSpec(
            encap=parse_member(Encap, encap, argument="encap"),
            underlay=arguments.check_device_name(underlay, argument="underlay"),
            local=None if local is None else arguments.check_host_address(local, argument="local"),
            port=None if port is None else arguments.check_port(port),
            mtu=None if mtu is None else arguments.check_mtu(mtu),
        )
        where = None if netns is None else arguments.check_netns(netns)
        with ExitStack() as undo:
            host = undo.enter_context(Host.open(where))
            with host.locked():
                device, created = find_or_make(host, name, spec)
                try:
                    _close_ports(host)
                except BaseException as error:
                    if created:
                        _undo(device, error)
                    raise
            undo.pop_all()
            return cls(device, netns=where, created=created)

    @classmethod
    def open(cls, name: str, *, netns: NetnsLike | None = None) -> Self:
        """A handle of an existing tunnel.

        Args:
            name: Name of the device.
            netns: Host namespace, a name under ``/run/netns`` or a path; None: the calling thread's.

        Raises:
            TunnelNotFoundError: There is no device of that name, or it is no mizarnet tunnel.
            NetnsNotFoundError: There is no such namespace.
        """
        arguments.check_device_name(name)
        where = None if netns is None else arguments.check_netns(netns)
        with ExitStack() as undo:
            device = TunnelDevice.open(undo.enter_context(Host.open(where)), name)
            undo.pop_all()
            return cls(device, netns=where, created=False)

    @classmethod
    def list(cls, *, netns: NetnsLike | None = None) -> list[Self]:
        """Handles of all tunnels of a host, by name, each to be closed on its own.

        Args:
            netns: Network namespace of the host, a name under ``/run/netns`` or a path; None: that of the calling
                thread.

        Raises:
            NetnsNotFoundError: No such network namespace.
            PrivilegeError: ``CAP_SYS_ADMIN`` is missing.
        """
        where = None if netns is None else arguments.check_netns(netns)
        with ExitStack() as undo, Host.open(where) as host, host.open_netns() as here:
            found: list[Self] = []
            for device in TunnelDevice.all(host):
                own = undo.enter_context(Host.open(here))
                found.append(cls(attrs.evolve(device, host=own), netns=where, created=False))
            undo.pop_all()
            columns = ("name", "encap", "local", "port", "mtu", "underlay")
            return Listing(found, caption=f"tunnels of {where or os.uname().nodename}", columns=columns)

    def copy(self) -> Self:
        """Another handle of the same tunnel, to be closed on its own.

        Raises:
            TunnelNotFoundError: The tunnel is gone.
        """
        with ExitStack() as undo:
            with self._host.open_netns() as where:
                host = undo.enter_context(Host.open(where))
            device = self._device.seen_from(host)
            undo.pop_all()
            return type(self)(device, netns=self.netns, created=False)

    def state(self) -> TunnelState:
        """The device, read from the kernel.

        Raises:
            TunnelNotFoundError: The tunnel is gone.
        """
        link = self._device.current()
        mac = MacAddress.parse(link.mac or b"")
        return TunnelState(
            up=link.up,
            mtu=link.mtu,
            mac=mac,
            qdisc=link.qdisc,
            silent=link.silent,
            lost=read_losses(self._device),
        )

    def check(self) -> Findings:
        """What about the device and its underlay is not as it should be, the worst first; none is the good case.

        A read without a lock; each finding was seen twice, 0.1 s apart.
        """
        from mizarnet._datapath.checks.confirm import confirmed

        return worst_first(confirmed(self._look))

    def _look(self) -> Findings:
        from mizarnet._datapath.checks import found_datapath, look_at_tunnel, unless_it_went
        from mizarnet._datapath.checks.agent import is_being_changed

        with found_datapath(self._device) as found, unless_it_went(self._device):
            if isinstance(found, Finding):
                return [found]
            return [] if found and is_being_changed(found) else look_at_tunnel(self._device, found)
        return []

    @whole
    def update(
        self,
        *,
        local: AddressLike | Keep | None = KEEP,
        underlay: str | Keep = KEEP,
        mtu: int | Keep | None = KEEP,
    ) -> tuple[str, ...]:
        """Change the tunnel while it is in use: another address, another NIC or a bridge before it, another MTU.

        Every endpoint stays, with its device. Programs are replaced as by :meth:`TransitAgent.upgrade`. Before that
        the transit switch moves to the new underlay, unless it was given another device than the old one. So do
        gateways whose ``egress`` was the old underlay, unless the host still leads out by that. Nobody else is told:
        other hosts need the new address in their tables and among their peers, and this one's peers stay as they are.

        Endpoints whose MTU is larger get the tunnel's, and so do those with a smaller one that nobody asked for. One
        that was asked for comes back as soon as the tunnel has room for it again. What a process that was killed left
        of it, the same call finishes. This handle has the new values afterwards; those of
        others keep what was true for them.

        Args:
            local: Underlay address of this host, of the same IP version; None: the underlay's first global one.
            underlay: Name of the device that leads to the other hosts, also if it was only renamed.
            mtu: Largest inner packet, in bytes; None: as large as the underlay allows.

        Returns:
            Names of the arguments that were not as given; none, if nothing was to change. What is left out is not
            among them, not even an underlay that was renamed, whose new name is noted.

        Raises:
            TunnelNotFoundError: The tunnel is gone.
            UnderlayNotFoundError: There is no such device, or it has no global address, or this host does not have the
                address ``local``; nothing was changed.
            InvalidValueError: ``local`` is of the other IP version; nothing was changed.
            MtuError: The MTU does not fit the underlay, or is too small for an endpoint with IPv6; nothing was changed.
            ExistsError: The transit switch would move to a device with an XDP program of others; nothing was changed.
            UnsupportedError: A gateway with an IPv6 address would move, the host forwards no IPv6, and the kernel
                cannot forward that of one device alone; nothing was changed.
            AgentNotFoundError: The transit agent is being attached or detached; nothing was changed.
            LayoutError: Another version of this package attached the agent; nothing was changed.
            PrivilegeError: A capability is missing.
        """
        given: dict[str, object] = {}
        if local is not KEEP:
            given["local"] = None if local is None else arguments.check_host_address(local, argument="local")
        if underlay is not KEEP:
            given["underlay"] = arguments.check_device_name(underlay, argument="underlay")
        if mtu is not KEEP:
            given["mtu"] = None if mtu is None else arguments.check_mtu(mtu)
        from mizarnet._datapath.relocation import relocate  # with upgrade and self-test

        with self._host.locked():
            device, changed = relocate(self._device, given)
        self._learn(device)
        return changed

    @whole
    def delete(self: Tunnel | str, *, force: bool = False, netns: NetnsLike | None = None) -> None:
        """Delete the device, and with it the transit agent if one is attached; succeeds if it is gone already.

        ``Tunnel.delete("tunnel0")`` needs nothing but the name. It also removes what a call that was ended halfway left
        of tunnels that are gone: a transit switch, private namespaces of VMs.

        Args:
            force: Whether to delete the endpoints on the tunnel as well.
            netns: Host namespace of a tunnel given by name; None: the calling thread's.

        Raises:
            InUseError: Endpoints exist, and ``force`` is not given.
            LayoutError: Another version of this package attached the tunnel's agent, and ``force`` is not given.
            ExistsError: Programs of two agents are on the tunnel's hooks, and ``force`` is not given.
            TunnelNotFoundError: A device of that name is no mizarnet tunnel.
            PrivilegeError: ``CAP_NET_ADMIN`` or ``CAP_SYS_ADMIN`` is missing.
        """
        arguments.check_bool(force, argument="force")
        if isinstance(self, str):
            arguments.check_device_name(self)
            with Host.open(None if netns is None else arguments.check_netns(netns)) as host, host.locked():
                delete_named(host, self, force=force)
                with suppress(MizarnetError):  # a port that stays closed is told by a check
                    _close_ports(host)
            return
        if netns is not None:
            raise InvalidTypeError("netns= goes with the name of a tunnel", argument="netns")
        device = device_of(self)
        with device.host.locked():
            device.delete(force=force)
            with suppress(MizarnetError):
                _close_ports(device.host)

    @whole
    def close(self) -> None:
        """Close the handle; closing it again is harmless."""
        self._host.close()

    def __repr__(self) -> str:
        where = f" in {self.netns}" if self.netns else ""
        return f"<Tunnel {self.name}{where}: {self.encap.value} {self.local}:{self.port} mtu={self.mtu}>"

    def _caption(self) -> str:
        return f"Tunnel {place_of(self)}"


def _undo(device: TunnelDevice, error: BaseException) -> None:
    """Delete a tunnel that was just made, and whose port tenants of gateways may still reach."""
    try:
        device.delete(force=True)
    except MizarnetError as refused:
        error.add_note(f"Tunnel {device.name} is still there: {refused}")


def _close_ports(host: Host) -> None:
    """Let the rules of a host's gateways close the ports of the tunnels that it has now."""
    from mizarnet._datapath import gateway_notes

    if gateway_notes.read_all(host):
        from mizarnet._datapath.gateways import rules  # with all that runs nft

        rules.follow_tunnels(host)


def device_of(tunnel: Tunnel) -> TunnelDevice:
    """The device of a tunnel, for the modules above; raises ``InvalidTypeError`` for anything but a tunnel."""
    if not isinstance(tunnel, Tunnel):
        raise InvalidTypeError(f"tunnel must be a Tunnel, not {type(tunnel).__name__}", argument="tunnel")
    return tunnel._device  # pyright: ignore[reportPrivateUsage]  this function is what others may use


def successor_of(tunnel: Tunnel) -> Tunnel:
    """The tunnel that has the name of ``tunnel`` now, on the same host; closing either handle closes both.

    Raises:
        TunnelNotFoundError: There is none of that name.
    """
    device = TunnelDevice.open(device_of(tunnel).host, tunnel.name)
    return Tunnel(device, netns=tunnel.netns, created=False)


def learn(tunnel: Tunnel, device: TunnelDevice) -> None:
    """Let a handle know what is known of its tunnel by now."""
    tunnel._learn(device)  # pyright: ignore[reportPrivateUsage]  this function is what others may use


def place_of(tunnel: Tunnel) -> str:
    """Tunnel and host as people call them, such as ``"tunnel0 of lab-h1"``."""
    return f"{tunnel.name} of {tunnel.netns or os.uname().nodename}"
