# SPDX-License-Identifier: Apache-2.0
"""The tunnel's device: its facts, and making, finding, bringing up, taking down and deleting it."""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Literal

import attrs

from mizarnet._datapath.datapath import CREATE_AGAIN, DataPath
from mizarnet._datapath.endpoints import LocalEndpoints, refuse_users
from mizarnet._datapath.hooks import read_hooks
from mizarnet._datapath.host import Host
from mizarnet._datapath.tunnel_hooks import TunnelHooks
from mizarnet._kernel.jobs import stopping
from mizarnet._kernel.netlink import (
    IFINDEXES,
    Address,
    Link,
    create_tunnel,
    delete_address,
    delete_link,
    dump_links,
    get_link,
    list_addresses,
    primary_address,
    set_link,
    upper_links,
)
from mizarnet._model.arguments import (
    SMALLEST_IPV6_MTU,
    SMALLEST_MTU,
    UNFINISHED,
    IPAddress,
    check_host_address,
)
from mizarnet._model.codec import Meta
from mizarnet._model.differences import refuse_differences
from mizarnet._model.enumerations import Limit
from mizarnet._model.finding import Finding, FindingKind, Subject
from mizarnet._model.log import log
from mizarnet._model.specs import Encap, TunnelSpec
from mizarnet.errors import (
    AgentNotFoundError,
    ExistsError,
    InvalidValueError,
    KernelError,
    LayoutError,
    MtuError,
    NetlinkError,
    PrivilegeError,
    StaleHandleError,
    TunnelNotFoundError,
    UnderlayNotFoundError,
    UnsupportedError,
)

_DUPLICATE_DETECTION = 3.0
"""Time in seconds that duplicate address detection of IPv6 may take; with the kernel's settings it takes up to two."""
_SHOWN = 8
"""Number of devices that a message lists."""


# The kernel does not keep the underlay of a metadata-mode device. Until a transit agent is attached, the device's alias
# notes it. From then on ``meta`` has it, which, unlike the alias, other programs do not overwrite.
_ALIAS = re.compile(r"mizarnet underlay=(?P<underlay>[^\s/]+) index=(?P<index>\d{1,10}) local=(?P<local>\S+)")


@attrs.frozen
class TunnelDevice:
    """A tunnel's device, as it was when it was found.

    Attributes:
        host: Host of the device.
        link: Device, as the kernel described it.
        encap: Encapsulation.
        port: UDP port.
        local: Underlay address that outer packets come from.
        underlay: Name of the underlay's device.
        underlay_ifindex: Index of the underlay's device in the host's namespace; its name may change.
    """

    host: Host
    link: Link
    encap: Encap
    port: int
    local: IPAddress
    underlay: str
    underlay_ifindex: int

    @classmethod
    def open(cls, host: Host, name: str) -> TunnelDevice:
        """The tunnel of that name; raises ``TunnelNotFoundError`` if there is none."""
        link = get_link(host, name)
        if link is None:
            raise TunnelNotFoundError(f"there is no tunnel {name}", hint="make one with Tunnel.create()")
        found = cls.of(host, link)
        if found is None:
            raise TunnelNotFoundError(
                f"{name} is a device, but no mizarnet tunnel",
                hint="if it was made by Tunnel.create(), call that again with the same arguments",
            )
        return found

    @classmethod
    def of(cls, host: Host, link: Link) -> TunnelDevice | None:
        """The tunnel of a device; None if the device is no mizarnet tunnel.

        The kernel does not keep the underlay of a metadata-mode device: it is read from the data path or, without one,
        from the note in the device's alias.
        """
        if not link.external:
            return None
        facts = _facts_of_datapath(host, link) or _facts_of_note(link.alias)
        if facts is None:
            return None
        local, name, ifindex = facts
        underlay = get_link(host, ifindex=ifindex) or get_link(host, name)
        encap = Encap(link.kind)
        return cls(
            host=host,
            link=link,
            encap=encap,
            port=link.port or encap.default_port,
            local=local,
            underlay=name if underlay is None else underlay.name,
            underlay_ifindex=ifindex if underlay is None else underlay.ifindex,
        )

    @classmethod
    def all(cls, host: Host) -> list[TunnelDevice]:
        """Every tunnel of a host, by name."""
        links = [link for kind in Encap for link in dump_links(host, kind=kind.value)]
        found = [cls.of(host, link) for link in sorted(links, key=lambda link: link.name)]
        return [device for device in found if device is not None]

    @property
    def name(self) -> str:
        """Name of the device."""
        return self.link.name

    @property
    def ifindex(self) -> int:
        """Index of the device."""
        return self.link.ifindex

    @property
    def mtu(self) -> int:
        """Largest inner packet, in bytes, when the device was found."""
        return self.link.mtu

    @property
    def hooks(self) -> TunnelHooks:
        """Hooks of the device, where agent and guard are attached."""
        return TunnelHooks(self.host, self.name, self.ifindex)

    def find(self) -> Link | None:
        """The device as it is now; None if it is gone.

        The kernel may have given the index to another device since: kind, mode and port tell the two apart.
        """
        link = get_link(self.host, ifindex=self.ifindex)
        if link is None or not link.external or (link.kind, link.port) != (self.encap.value, self.port):
            return None
        return link

    def is_same(self, other: TunnelDevice) -> bool:
        """Whether both are one tunnel, found at two moments, whatever its name, address and underlay are now."""
        facts = ((each.ifindex, each.encap, each.port) for each in (self, other))
        return next(facts) == next(facts)

    def by(self, meta: Meta) -> TunnelDevice:
        """The tunnel, with the address and underlay that its data path knows by now."""
        if (meta.local, meta.underlay_ifindex) == (self.local, self.underlay_ifindex):
            return self
        return attrs.evolve(
            self, local=meta.local, underlay=meta.underlay, underlay_ifindex=meta.underlay_ifindex
        )

    def current(self) -> Link:
        """The device as it is now; raises ``TunnelNotFoundError`` if it is gone."""
        link = self.find()
        if link is None:
            raise TunnelNotFoundError(f"tunnel {self.name} is gone", hint=CREATE_AGAIN)
        return link

    def findings(self) -> list[Finding]:
        """A finding if the device is down or gone, for a tunnel with an agent; else none."""
        link = self.find()
        if link is not None and link.up:
            return []
        found = "gone" if link is None else "down"
        return [self.finding(FindingKind.TUNNEL_DOWN, "up", found, f"its device is {found}")]

    def finding(
        self, kind: FindingKind, wanted: object, found: object, text: str, remedy: str = ""
    ) -> Finding:
        """A finding about this tunnel."""
        return Finding(
            kind, Subject("tunnel", self.name), wanted, found, text, remedy, self.name, self.ifindex
        )

    def refuse_unfit(self) -> None:
        """Refuse a tunnel that cannot work as it was made, since its underlay has changed.

        Raises:
            UnderlayNotFoundError: The underlay is gone, or this host no longer has the tunnel's address.
            MtuError: The underlay's MTU is too small by now.
        """
        underlay = self.find_underlay()
        if underlay is None:
            raise UnderlayNotFoundError(
                f"the underlay {self.underlay} of {self.name} is gone",
                hint="bring it back, or give tunnel.update(underlay=) another one",
            )
        spec = TunnelSpec(encap=self.encap, underlay=underlay.name, local=self.local, mtu=self.current().mtu)
        try:
            own_address(self.host, spec, underlay)
        except UnderlayNotFoundError as lost:
            hint = (
                f"tunnel.update(local=None), or give it back: ip address add {self.local} dev {underlay.name}"
            )
            raise UnderlayNotFoundError(
                f"{self.name} sends from its address: {lost.message}", hint=hint
            ) from None
        try:
            fitting_mtu(spec, underlay, self.local)
        except MtuError as unfit:
            needed = self.current().mtu + self.encap.overhead(self.local.version)
            hint = (
                f"tunnel.update(mtu=None), or raise the underlay's: ip link set {underlay.name} mtu {needed}"
            )
            raise MtuError(unfit.message, argument="mtu", value=unfit.value, hint=hint) from None

    def seen_from(self, host: Host) -> TunnelDevice:
        """The same tunnel as it is now, through another host handle; raises ``TunnelNotFoundError`` if it is gone."""
        link = self.current()
        return TunnelDevice.of(host, link) or attrs.evolve(self, host=host, link=link)

    def find_underlay(self) -> Link | None:
        """The underlay's device, found by its index, or by its name if the index is gone; None if both are."""
        return get_link(self.host, ifindex=self.underlay_ifindex) or get_link(self.host, self.underlay)

    def bring_up(self) -> None:
        """Set the device up.

        Raises:
            ExistsError: Another device or a socket of this host uses the UDP port.
        """
        try:
            set_link(self.host, self.ifindex, up=True)
            log.info("%s set up", self.name)
        except KernelError as refused:
            if refused.errno != errno.EADDRINUSE:
                raise
            raise self._taken_port() from None

    def take_down(self) -> None:
        """Set the device down; a device that is gone is no error."""
        try:
            link = self.find()
            if link is None:
                return
            # Even if it is down: another process may set it up meanwhile.
            set_link(self.host, self.ifindex, up=False)
            if link.up:
                log.info("%s set down", self.name)
        except NetlinkError as refused:
            if refused.errno != errno.ENODEV:
                raise

    def set_mtu(self, mtu: int) -> None:
        """Give the device another MTU."""
        before = self.current().mtu
        if before != mtu:
            set_link(self.host, self.ifindex, mtu=mtu)
        if before < SMALLEST_IPV6_MTU <= mtu:  # the kernel gives it IPv6 anew, with an address
            set_link(self.host, self.ifindex, address_generation="none")
            for address in list_addresses(self.host, ifindex=self.ifindex):
                delete_address(self.host, self.ifindex, address.interface)

    def delete(self, *, force: bool) -> None:
        """Delete the device, and with it programs, maps and endpoints; a device that is gone is no error.

        Args:
            force: Whether to delete it although endpoints exist.

        Raises:
            InUseError: Endpoints exist, and ``force`` is not given.
            LayoutError: Another version of this package attached the agent, and ``force`` is not given.
            ExistsError: Programs of two data paths are on the hooks, and ``force`` is not given.
        """
        from mizarnet._datapath import (
            leftovers,
        )  # with gateways, switches and shortcuts; before the first change

        if self.find() is not None:
            if not force:
                self.refuse_in_use()
            # The kernel deletes the MACVLANs with the device, and after them the programs, which guard it to the end.
            delete_link(self.host, self.ifindex)
            log.info("%s deleted", self.name)
        leftovers.clear_host(self.host)

    def refuse_in_use(self) -> None:
        """Raises ``InUseError`` if there are live endpoints; other errors as for :meth:`delete`."""
        found = DataPath.find(self.hooks)
        if found is None:
            refuse_users(self.name, [link.name for _, link in upper_links(self.host, self.ifindex)])
            return
        try:
            LocalEndpoints.of(found).refuse_in_use()
        finally:
            found.close()

    def _taken_port(self) -> ExistsError:
        for link in port_holders(self.host, self.port):
            if link.ifindex != self.ifindex and link.up:
                return _port_error(link, self.port, hint="delete it, or create the tunnel with another port=")
        return ExistsError(
            f"UDP port {self.port} is taken by another socket of this host",
            holder=f"UDP port {self.port}",
            hint=f"stop that service (ss -ulpn sport = :{self.port}), or create the tunnel with another port=",
        )


def delete_named(host: Host, name: str, *, force: bool) -> None:
    """Delete the tunnel of that name, and what is left of tunnels that are gone; raises as ``TunnelDevice.delete``.

    Raises:
        TunnelNotFoundError: The device of that name is no mizarnet tunnel.
    """
    from mizarnet._datapath import leftovers

    if get_link(host, name) is None:
        leftovers.clear_host(host)
    else:
        TunnelDevice.open(host, name).delete(force=force)


def port_holders(host: Host, port: int) -> list[Link]:
    """VXLAN and Geneve devices of the host that use a UDP port, tunnels of ours and others."""
    return [link for kind in Encap for link in dump_links(host, kind=kind.value) if link.port == port]


def _port_error(holder: Link, port: int, *, hint: str) -> ExistsError:
    return ExistsError(
        f"{holder.kind} device {holder.name} uses UDP port {port}", holder=holder.name, hint=hint
    )


def _facts_of_datapath(host: Host, link: Link) -> tuple[IPAddress, str, int] | None:
    try:
        found = DataPath.find(TunnelHooks(host, link.name, link.ifindex))
    except (LayoutError, ExistsError):
        return None  # the note is used instead, since it must be possible to delete the tunnel
    if found is None:
        return None
    try:
        meta = found.maps.read_meta()
    except (StaleHandleError, AgentNotFoundError):
        return None  # another process ends it just now
    finally:
        found.close()
    return meta.local, meta.underlay, meta.underlay_ifindex


def _facts_of_note(alias: str) -> tuple[IPAddress, str, int] | None:
    known = _ALIAS.fullmatch(alias)
    if known is None:
        return None
    name, ifindex = known["underlay"], int(known["index"])
    # Another program may have written an alias of what cannot be, which the kernel would refuse to look for.
    if len(os.fsencode(name)) >= Limit.DEVICE_BYTES or ifindex not in IFINDEXES:
        return None
    with suppress(InvalidValueError):
        return check_host_address(known["local"]), name, ifindex
    return None


# -- made ------------------------------------------------------------------------------------------------


def find_or_make(host: Host, name: str, spec: TunnelSpec) -> tuple[TunnelDevice, bool]:
    """Make a tunnel, or find the existing one; the caller holds the host's lock.

    Returns:
        The tunnel, and whether this call made it.

    Raises:
        ExistsError: The name or the port is taken, or the tunnel exists and is not as specified.
        UnderlayNotFoundError: There is no such underlay, or the address is missing.
        MtuError: The MTU does not fit the underlay.
        UnsupportedError: This kernel lacks the encapsulation.
    """
    from mizarnet._datapath import leftovers

    link = get_link(host, name)
    if link is None:
        leftovers.clear_host(host)
        return _make(host, name, spec), True
    found = TunnelDevice.of(host, link)
    if found is None:
        return _adopted(host, link, spec), False
    _compare(found, spec)
    found.refuse_unfit()
    return found, False


def _known(host: Host, link: Link) -> TunnelDevice:
    found = TunnelDevice.of(host, link)
    if found is None:
        raise TunnelNotFoundError(f"tunnel {link.name} was changed by another process")
    return found


def unfinished(host: Host) -> Link | None:
    """The device of a tunnel whose maker died before it had its name; None if there is none.

    It is down, without a note and without programs. Whatever else has its name by now is in use.
    """
    link = get_link(host, UNFINISHED)
    return link if link is not None and _is_unfinished(host, link) else None


def _is_unfinished(host: Host, link: Link) -> bool:
    return link.external and not (link.up or link.alias or _has_programs(host, link.ifindex))


def _make_room(host: Host) -> None:
    """Free the name under which tunnels are made; raises ``ExistsError`` if a device in use has it."""
    link = get_link(host, UNFINISHED)
    if link is None:
        return
    if not _is_unfinished(host, link):
        raise ExistsError(
            f"a device is called {UNFINISHED}, as tunnels are until they are finished",
            holder=UNFINISHED,
            hint=f"give it another name: ip link set {UNFINISHED} name tunnel1",
        )
    delete_link(host, link.ifindex)


def _make(host: Host, name: str, spec: TunnelSpec) -> TunnelDevice:
    underlay = underlay_of(host, spec)
    local = own_address(host, spec, underlay)
    port = spec.port or spec.encap.default_port
    mtu = fitting_mtu(spec, underlay, local)
    _make_room(host)
    try:
        link = create_tunnel(
            host, name, kind=spec.encap.value, port=port, mtu=mtu, alias=note_of(underlay, local)
        )
    except (NetlinkError, PrivilegeError, UnsupportedError) as refused:
        raise _explain(refused, host, spec.encap, port) from None
    log.info("%s created: %s from %s port %d, MTU %d", name, spec.encap.value, local, port, mtu)
    # It is not read again: a call that fails once the device is there would have to delete it.
    return TunnelDevice(
        host=host,
        link=link,
        encap=spec.encap,
        port=port,
        local=local,
        underlay=underlay.name,
        underlay_ifindex=underlay.ifindex,
    )


def refuse_unfit_spec(tunnel: TunnelDevice, spec: TunnelSpec) -> None:
    """Raises as :func:`find_or_make` does for a tunnel that could not be made in the place of an existing one."""
    host = tunnel.host
    underlay = underlay_of(host, spec)
    refuse_own_underlay(tunnel.link, underlay)
    fitting_mtu(spec, underlay, own_address(host, spec, underlay))
    port = spec.port or spec.encap.default_port
    others = [each for each in port_holders(host, port) if each.ifindex != tunnel.ifindex]
    if others:
        raise _port_error(others[0], port, hint="give another port=")


def refuse_own_underlay(tunnel: Link, underlay: Link) -> None:
    """Raises ``InvalidValueError`` if both are one device."""
    if underlay.ifindex == tunnel.ifindex:
        raise InvalidValueError(
            f"{tunnel.name} cannot be its own underlay", argument="underlay", value=underlay.name
        )


def _adopted(host: Host, link: Link, spec: TunnelSpec) -> TunnelDevice:
    """A tunnel without an agent whose note was overwritten, recognised by settings that only mizarnet makes."""
    ours = link.external and link.kind == spec.encap.value and link.silent and link.num_tx_queues == 1
    if not ours or upper_links(host, link.ifindex) or _has_programs(host, link.ifindex):
        raise ExistsError(
            f"{link.name} exists and is no mizarnet tunnel", holder=link.name, hint="choose another name"
        )
    underlay = underlay_of(host, spec)
    refuse_own_underlay(link, underlay)
    local = own_address(host, spec, underlay)
    noted = attrs.evolve(link, alias=note_of(underlay, local))
    adopted = _known(host, noted)
    _compare(adopted, spec)
    adopted.refuse_unfit()
    set_link(host, link.ifindex, alias=noted.alias)
    log.info("%s adopted: its alias had been overwritten", link.name)
    return adopted


def underlay_of(host: Host, spec: TunnelSpec) -> Link:
    """The underlay of a specification; raises ``UnderlayNotFoundError`` if there is no such device."""
    underlay = get_link(host, spec.underlay)
    if underlay is None:
        raise no_underlay(host, spec.underlay)
    return underlay


def no_underlay(host: Host, name: str) -> UnderlayNotFoundError:
    """The error for an underlay that does not exist, with devices that do."""
    names = sorted(link.name for link in dump_links(host))
    listed = ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
    return UnderlayNotFoundError(
        f"there is no underlay device {name!r} in this namespace",
        hint=f"name the device that leads to the other hosts; there are {listed}",
    )


def own_address(
    host: Host, spec: TunnelSpec, underlay: Link, *, versions: Sequence[Literal[4, 6]] = (4, 6)
) -> IPAddress:
    """The address that a tunnel sends from.

    Args:
        host: Host of the tunnel.
        spec: Specification of the tunnel, whose address may be left open.
        underlay: Device of the underlay.
        versions: IP versions of an address that was left open, in the order in which they are looked for.

    Raises:
        UnderlayNotFoundError: This host does not have it, or cannot use it.
    """
    if spec.local is None:
        return _settled_address(host, underlay, versions)
    found = [address for address in list_addresses(host) if address.interface.ip == spec.local]
    if not found:
        raise UnderlayNotFoundError(
            f"{spec.local} is no address of this host",
            hint=f"give this host the address, or leave local= out for that of {underlay.name}",
        )
    if all(address.failed for address in found):
        raise _no_address(underlay, found)
    return spec.local


def _settled_address(host: Host, underlay: Link, versions: Sequence[Literal[4, 6]]) -> IPAddress:
    """The underlay's address. While IPv6 still asks if another host has it, as after a boot, that is waited for."""
    deadline = time.monotonic() + _DUPLICATE_DETECTION
    while True:
        for version in versions:
            found = primary_address(host, underlay.ifindex, version=version)
            if found is not None:
                return found.ip
        there = [each for each in list_addresses(host, ifindex=underlay.ifindex) if each.is_global]
        asking = any(each.tentative and not each.failed for each in there)
        if not (asking and underlay.up) or time.monotonic() > deadline or stopping():
            raise _no_address(underlay, there)
        time.sleep(0.05)


def _no_address(underlay: Link, there: Sequence[Address]) -> UnderlayNotFoundError:
    name = underlay.name
    for address in there:
        ip = address.interface.ip
        if address.failed:
            return UnderlayNotFoundError(
                f"{name} cannot use {ip}: another host has it (duplicate address detection)",
                hint="give one of the two hosts another address",
            )
        if address.tentative:
            return UnderlayNotFoundError(
                f"{name} cannot use {ip} yet: duplicate address detection goes on",
                hint=f"try again in a moment; it ends only while the device is up: ip link set {name} up",
            )
    return UnderlayNotFoundError(
        f"{name} has no global address",
        hint=f"give it one (ip address add ... dev {name}), or name another of this host with local=",
    )


def fitting_mtu(spec: TunnelSpec, underlay: Link, local: IPAddress) -> int:
    """The MTU of a tunnel, by default as large as the underlay allows; raises ``MtuError`` if it does not fit."""
    overhead = spec.encap.overhead(local.version)
    largest = underlay.mtu - overhead
    mtu = spec.mtu or largest
    if not SMALLEST_MTU <= mtu <= largest:
        needed = max(mtu, SMALLEST_MTU) + overhead
        hint = f"raise the underlay's MTU: ip link set {spec.underlay} mtu {needed}"
        raise MtuError(
            f"mtu {mtu} does not fit {spec.underlay}, which takes {underlay.mtu} bytes: "
            f"{spec.encap.value} over IPv{local.version} adds {overhead}, which leaves {largest}",
            argument="mtu",
            value=mtu,
            hint=hint if largest < SMALLEST_MTU else f"give at most {largest}, or {hint}",
        )
    return mtu


def _compare(found: TunnelDevice, spec: TunnelSpec) -> None:
    """Raises ``ExistsError`` unless the tunnel is as specified. Underlays are compared by index, not by name."""
    given = get_link(found.host, spec.underlay)
    same_underlay = given is not None and given.ifindex == found.underlay_ifindex
    existing = {
        "encap": found.link.kind,
        "underlay": spec.underlay if same_underlay else found.underlay,
        "local": found.local,
        "port": found.link.port,
        "mtu": found.mtu,
    }
    wanted = {**attrs.asdict(spec, recurse=False), "encap": spec.encap.value}
    refuse_differences(
        f"tunnel {found.name}",
        wanted,
        existing,
        holder=found.name,
        hint="leave the argument out; tunnel.update() changes local, underlay and mtu",
    )


def note_of(underlay: Link, local: IPAddress) -> str:
    """The alias of a tunnel's device, which notes what the kernel does not keep."""
    return f"mizarnet underlay={underlay.name} index={underlay.ifindex} local={local}"


def _has_programs(host: Host, ifindex: int) -> bool:
    return any(host.run(read_hooks, ifindex).order.values())


def _explain(
    refused: NetlinkError | PrivilegeError | UnsupportedError, host: Host, encap: Encap, port: int
) -> Exception:
    """The error for a tunnel device that the kernel refused: with the device in the way, where one has the port."""
    if isinstance(refused, UnsupportedError):
        other = "vxlan" if encap is Encap.GENEVE else "geneve"
        return UnsupportedError(
            f"this kernel has no {encap.value} device (CONFIG_{encap.name})",
            feature=encap.value,
            hint=f'load its module, or use encap="{other}" on all hosts',
        )
    if isinstance(refused, KernelError) and refused.errno not in (errno.EEXIST, errno.EBUSY):
        return refused
    # A PrivilegeError may also mean that a geneve device of the other mode has the port.
    holders = port_holders(host, port)
    if not holders:
        return refused
    taken = _port_error(holders[0], port, hint="delete it, or give another port=")
    taken.add_note(f"the kernel said: {refused}")
    return taken
