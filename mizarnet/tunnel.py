# SPDX-License-Identifier: Apache-2.0
"""The one tunnel device of a host."""

from __future__ import annotations

import errno
import re
from contextlib import ExitStack, suppress
from ipaddress import ip_address
from types import TracebackType
from typing import Literal, Self, final

import attrs

from mizarnet._datapath import leftovers
from mizarnet._datapath.datapath import DataPath
from mizarnet._datapath.hooks import read_hooks
from mizarnet._datapath.lock import locked
from mizarnet._datapath.presence import present
from mizarnet._kernel.netlink import (
    Link,
    Session,
    create_tunnel,
    delete_link,
    dump_links,
    get_link,
    list_addresses,
    primary_address,
    set_link,
    upper_links,
)
from mizarnet._model import arguments
from mizarnet._model.arguments import IPAddress
from mizarnet._model.html import table
from mizarnet._model.specs import AddressLike, Encap, NetnsLike, parse_member
from mizarnet.errors import (
    ExistsError,
    InUseError,
    KernelError,
    LayoutError,
    MtuError,
    NetlinkError,
    PrivilegeError,
    TunnelNotFoundError,
    UnderlayNotFoundError,
    UnsupportedError,
)

# What a metadata-mode device itself does not know, as a note on the device until a transit agent is attached. From then
# on the data path says it: others may write this text, too.
_ALIAS = re.compile(r"mizarnet underlay=(?P<underlay>\S+) index=(?P<index>\d{1,9}) local=(?P<local>\S+)")


@attrs.frozen
class TunnelState:
    """A tunnel as the kernel described it.

    Attributes:
        up: Whether it carries traffic: the transit agent sets it up and takes it down.
        mtu: Of inner packets, in bytes.
        mac: Of the device; nothing is ever sent to it.
        qdisc: ``"noqueue"``; anything else would mix up destinations, see ``docs/design.md``.
        silent: Whether ARP and multicast are off, as created.
    """

    up: bool
    mtu: int
    mac: str
    qdisc: str
    silent: bool


@final
class Tunnel:
    """A handle of a host's tunnel device. Closing it, or leaving its ``with``, touches nothing in the kernel.

    Made by :meth:`create` and :meth:`open`. Attributes are what was true then; :meth:`state` reads the kernel.

    Attributes:
        name: Of the device.
        encap: Encapsulation.
        port: UDP port.
        mtu: Of inner packets, in bytes.
        local: Underlay address that outer packets come from.
        underlay: Name of the underlay's device.
        underlay_ifindex: Of the underlay's device; its name may change.
        ifindex: Of the device.
        netns: Host namespace as it was named; None: the calling thread's.
        created: Whether this call made the device.
    """

    def __init__(self, session: Session, link: Link, *, netns: str | None, created: bool) -> None:
        """Not for users: see :meth:`create` and :meth:`open`."""
        facts = _Facts.of(session, link) if link.external else None
        if facts is None:
            raise TunnelNotFoundError(
                f"{link.name} is a device, but no mizarnet tunnel",
                hint="if it was made by Tunnel.create(), call that again with the same arguments",
            )
        self.session = session
        self.name: str = link.name
        self.encap: Encap = Encap(link.kind)
        self.port: int = link.port or self.encap.default_port
        self.mtu: int = link.mtu
        self.local: IPAddress = facts.local
        self.underlay: str = facts.underlay
        self.underlay_ifindex: int = facts.underlay_ifindex
        self.ifindex: int = link.ifindex
        self.netns = netns
        self.created = created

    @classmethod
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
            name: Of the device, at most 15 bytes.
            encap: Encapsulation; both ends must use the same.
            underlay: Device that leads to the other hosts.
            local: Own underlay address; None: the underlay's first global one, IPv4 before IPv6.
            port: UDP port; None: the one IANA assigned (VXLAN 4789, Geneve 6081).
            mtu: Of inner packets, in bytes; None: what fits, the underlay's less 50 (IPv4) or 70 (IPv6). Endpoints
                with IPv6 addresses need 1280.
            netns: Host namespace, a name under ``/run/netns`` or a path; None: the calling thread's.

        Returns:
            The tunnel; the existing one, with ``created`` False, if it is as asked for.

        Raises:
            ExistsError: The name or the port is taken, or the tunnel exists and a given argument differs.
            UnderlayNotFoundError: No such underlay, or it has no (such) address.
            MtuError: The MTU does not fit the underlay.
            UnsupportedError: This kernel lacks the encapsulation.
            PrivilegeError: ``CAP_NET_ADMIN`` (or ``CAP_SYS_ADMIN``, to enter ``netns``) is missing.
            LockTimeoutError: Another process is writing all the time.
        """
        arguments.check_device_name(name)
        wanted = _Wanted(
            encap=parse_member(Encap, encap, argument="encap"),
            underlay=arguments.check_device_name(underlay, argument="underlay"),
            local=None if local is None else arguments.check_host_address(local, argument="local"),
            port=None if port is None else arguments.check_port(port),
            mtu=None if mtu is None else arguments.check_mtu(mtu),
        )
        return cls._in(name, netns, wanted)

    @classmethod
    def open(cls, name: str, *, netns: NetnsLike | None = None) -> Self:
        """A handle of an existing tunnel.

        Raises:
            TunnelNotFoundError: There is no device of that name, or it is no tunnel made here.
        """
        arguments.check_device_name(name)
        return cls._in(name, netns, None)

    @classmethod
    def _in(cls, name: str, netns: NetnsLike | None, wanted: _Wanted | None) -> Self:
        where = None if netns is None else arguments.check_netns(netns)
        with ExitStack() as undo:
            session = undo.enter_context(Session.open(where))
            link, created = _find(session, name) if wanted is None else wanted.find_or_make(session, name)
            tunnel = cls(session, link, netns=where, created=created)
            undo.pop_all()
            return tunnel

    def copy(self) -> Self:
        """Another handle of the same tunnel, to be closed on its own."""
        with ExitStack() as undo:
            with self.session.open_netns() as where:
                session = undo.enter_context(Session.open(where))
            tunnel = type(self)(session, self._device(), netns=self.netns, created=False)
            undo.pop_all()
            return tunnel

    def state(self) -> TunnelState:
        """Read the device from the kernel; raises ``TunnelNotFoundError`` if it is gone."""
        link = self._device()
        return TunnelState(up=link.up, mtu=link.mtu, mac=link.mac or "", qdisc=link.qdisc, silent=link.silent)

    def delete(self, *, force: bool = False) -> None:
        """Delete the device and take the transit agent off, if there is one; succeeds if it is gone already.

        Args:
            force: Delete the endpoints on it as well.

        Raises:
            InUseError: Endpoints exist, and ``force`` is not given.
            LayoutError: Another version of this package attached its agent, and ``force`` is not given.
            LockTimeoutError: Another process is writing all the time.
        """
        with locked(self.session.cookie):
            if self.find_device() is not None:
                self._refuse_in_use(force=force)
                # The kernel deletes the MACVLANs with it, and then the programs, which guard it to its end.
                delete_link(self.session, self.ifindex)
            leftovers.clear_host(self.session)

    def _refuse_in_use(self, *, force: bool) -> None:
        if force:
            return  # what stands on it ends with the device, whatever it is
        found = DataPath.find(self.session, self.name, self.ifindex)
        try:
            refuse_in_use(self.session, self.name, self.ifindex, found)
        finally:
            if found is not None:
                found.close()

    def find_device(self) -> Link | None:
        """The tunnel's device; None if it is gone.

        The kernel may give its index to another device afterwards: kind, mode and port tell.
        """
        link = get_link(self.session, ifindex=self.ifindex)
        if link is None or not link.external or (link.kind, link.port) != (self.encap.value, self.port):
            return None
        return link

    def _device(self) -> Link:
        link = self.find_device()
        if link is None:
            raise TunnelNotFoundError(f"tunnel {self.name} is gone")
        return link

    def find_underlay(self) -> Link | None:
        """The underlay's device: by its index, whatever it is called now; else another of its name."""
        return _find_underlay(self.session, self.underlay_ifindex, self.underlay)

    def close(self) -> None:
        """Let go of the handle; again is harmless."""
        self.session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        where = f" in {self.netns}" if self.netns else ""
        return f"<Tunnel {self.name}{where}: {self.encap.value} {self.local}:{self.port} mtu={self.mtu}>"

    def _repr_html_(self) -> str:
        rows = [(key, getattr(self, key)) for key in ("encap", "local", "port", "mtu", "underlay", "netns")]
        return table(f"Tunnel {self.name}", ("attribute", "value"), rows)


def refuse_in_use(session: Session, name: str, ifindex: int, found: DataPath | None) -> None:
    """Raises ``InUseError`` while endpoints exist on a tunnel: those on record, and without records every device."""
    if found is not None:
        # In another namespace, to which the tunnel was moved, the records do not lead to the devices: all may be there.
        moved = found.maps.read_meta().head.netns_cookie != session.cookie
        users = [record.spec.name for record in (found.all_records() if moved else present(found))]
    else:
        users = [link.name for link in upper_links(session, ifindex)]
    if users:
        raise InUseError(
            f"{len(users)} endpoints use {name}, such as {users[0]!r}",
            users=users,
            hint="delete them first, or give force=True",
        )


def port_holders(session: Session, port: int) -> list[Link]:
    """The devices of that UDP port, ours and others'."""
    return [link for kind in Encap for link in dump_links(session, kind=kind.value) if link.port == port]


@attrs.frozen
class _Facts:
    """What a metadata-mode device does not know of itself.

    Attributes:
        local: Underlay address.
        underlay: Name of the underlay now, or then if it is gone.
        underlay_ifindex: Index of the underlay.
    """

    local: IPAddress
    underlay: str
    underlay_ifindex: int

    @classmethod
    def of(cls, session: Session, link: Link) -> _Facts | None:
        """What is known of a device, from its data path, or from its note where it has none; None if it is not ours."""
        facts = cls._from_datapath(session, link) or cls._from_alias(link.alias)
        if facts is None:
            return None
        underlay = _find_underlay(session, facts.underlay_ifindex, facts.underlay)
        if underlay is None:
            return facts
        return cls(facts.local, underlay.name, underlay.ifindex)

    @classmethod
    def _from_datapath(cls, session: Session, link: Link) -> _Facts | None:
        try:
            found = DataPath.find(session, link.name, link.ifindex)
        except (LayoutError, ExistsError):
            return None  # the note has to do: it must at least be possible to delete the tunnel
        if found is None:
            return None
        try:
            meta = found.maps.read_meta()
        finally:
            found.close()
        return cls(meta.local, meta.underlay, meta.underlay_ifindex)

    @classmethod
    def _from_alias(cls, alias: str) -> _Facts | None:
        known = _ALIAS.fullmatch(alias)
        with suppress(ValueError):  # anybody may write there what is no address
            return known and cls(ip_address(known["local"]), known["underlay"], int(known["index"]))
        return None


def _find_underlay(session: Session, ifindex: int, name: str) -> Link | None:
    return get_link(session, ifindex=ifindex) or get_link(session, name)


def _find(session: Session, name: str) -> tuple[Link, bool]:
    link = get_link(session, name)
    if link is None:
        raise TunnelNotFoundError(f"there is no tunnel {name}", hint="make one with Tunnel.create()")
    return link, False


@attrs.frozen
class _Wanted:
    """The arguments of ``create``: None means not given."""

    encap: Encap
    underlay: str
    local: IPAddress | None
    port: int | None
    mtu: int | None

    def find_or_make(self, session: Session, name: str) -> tuple[Link, bool]:
        """The device, and whether it was made now. One writer at a time: a second one finds what the first made."""
        with locked(session.cookie):
            link = get_link(session, name)
            if link is None:
                leftovers.clear_host(session)
                return self._make(session, name), True
            facts = _Facts.of(session, link) if link.external else None
            if facts is None:
                return self._adopt(session, link), False
            self._compare(session, link, facts)
            return link, False

    def _make(self, session: Session, name: str) -> Link:
        underlay = self._given_underlay(session)
        local = self._own_address(session, underlay)
        port = self.port or self.encap.default_port
        try:
            return create_tunnel(
                session,
                name,
                kind=self.encap.value,
                port=port,
                mtu=self._fitting_mtu(underlay, local),
                alias=_note(underlay, local),
            )
        except (NetlinkError, PrivilegeError, UnsupportedError) as refused:
            raise _explain(refused, session, self.encap, port) from None

    def _adopt(self, session: Session, link: Link) -> Link:
        """A tunnel without an agent whose note somebody overwrote: only what was made here is silent like that."""
        ours = link.external and link.kind == self.encap.value and link.silent and link.num_tx_queues == 1
        if not ours or list(upper_links(session, link.ifindex)) or _has_programs(session, link.ifindex):
            raise ExistsError(
                f"{link.name} exists and is no mizarnet tunnel", holder=link.name, hint="choose another name"
            )
        underlay = self._given_underlay(session)
        local = self._own_address(session, underlay)
        self._compare(session, link, _Facts(local, underlay.name, underlay.ifindex))
        set_link(session, link.ifindex, alias=_note(underlay, local))
        noted = get_link(session, ifindex=link.ifindex)
        if noted is None:
            raise TunnelNotFoundError(f"tunnel {link.name} is gone")
        return noted

    def _given_underlay(self, session: Session) -> Link:
        underlay = get_link(session, self.underlay)
        if underlay is None:
            raise UnderlayNotFoundError(f"there is no underlay device {self.underlay!r} in this namespace")
        return underlay

    def _own_address(self, session: Session, underlay: Link) -> IPAddress:
        if self.local is None:
            for version in (4, 6):
                found = primary_address(session, underlay.ifindex, version=version)
                if found is not None:
                    return found.ip
            raise UnderlayNotFoundError(
                f"{self.underlay} has no global address", hint="give it one, or name another with local="
            )
        if self.local not in {address.interface.ip for address in list_addresses(session)}:
            raise UnderlayNotFoundError(f"{self.local} is no address of this host")
        return self.local

    def _fitting_mtu(self, underlay: Link, local: IPAddress) -> int:
        overhead = self.encap.overhead(local.version)
        largest = underlay.mtu - overhead
        mtu = self.mtu or largest
        if not arguments.SMALLEST_MTU <= mtu <= largest:
            raise MtuError(
                f"mtu {mtu} does not fit {self.underlay}, which takes {underlay.mtu} bytes: "
                f"{self.encap.value} over IPv{local.version} adds {overhead}, which leaves {largest}",
                argument="mtu",
                value=mtu,
                hint=f"give at most {largest}, or raise the underlay's MTU",
            )
        return mtu

    def _compare(self, session: Session, link: Link, facts: _Facts) -> None:
        """Raises ``ExistsError`` unless the existing device is as wanted. The underlay is compared as a device."""
        given = get_link(session, self.underlay)
        same_underlay = given is not None and given.ifindex == facts.underlay_ifindex
        existing = {
            "encap": link.kind,
            "underlay": self.underlay if same_underlay else facts.underlay,
            "local": facts.local,
            "port": link.port,
            "mtu": link.mtu,
        }
        wanted = {**attrs.asdict(self), "encap": self.encap.value}
        differences = {
            key: (value, existing[key])
            for key, value in wanted.items()
            if value is not None and value != existing[key]
        }
        if differences:
            listed = ", ".join(f"{key} is {b}, not {a}" for key, (a, b) in differences.items())
            raise ExistsError(
                f"tunnel {link.name} exists, but {listed}", holder=link.name, differences=differences
            )


def _note(underlay: Link, local: IPAddress) -> str:
    return f"mizarnet underlay={underlay.name} index={underlay.ifindex} local={local}"


def _has_programs(session: Session, ifindex: int) -> bool:
    hooks = session.run(read_hooks, ifindex)
    return any(hooks.order.values())


def _explain(
    refused: NetlinkError | PrivilegeError | UnsupportedError, session: Session, encap: Encap, port: int
) -> Exception:
    """Why the kernel refused a tunnel device: it names neither the device in the way nor a way out."""
    if isinstance(refused, UnsupportedError):
        other = "vxlan" if encap is Encap.GENEVE else "geneve"
        return UnsupportedError(
            f"this kernel has no {encap.value} device (CONFIG_{encap.name})",
            feature=encap.value,
            hint=f'load its module, or use encap="{other}" on all hosts',
        )
    if isinstance(refused, KernelError) and refused.errno not in (errno.EEXIST, errno.EBUSY):
        return refused
    # A PrivilegeError may be geneve's way to say that the port has a device of the other mode.
    holders = port_holders(session, port)
    if not holders:
        return refused
    holder = holders[0]
    return ExistsError(
        f"{holder.kind} device {holder.name} uses UDP port {port}",
        holder=holder.name,
        hint="delete it, or give another port=",
    )
