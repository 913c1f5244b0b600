# SPDX-License-Identifier: Apache-2.0
"""Endpoints: the device of a container or VM on the tunnel, and its records.

Modules that creating one does not need are imported where they are used: a fresh process pays for each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, Self, final, overload

import attrs

from mizarnet._datapath.datapath import DataPath
from mizarnet._datapath.endpoints import LocalEndpoints, configuration, counters, life_of
from mizarnet._datapath.lock import SHARED_HOST, endpoint_writer, of_names
from mizarnet._datapath.maps import Maps
from mizarnet._kernel.jobs import stopping, whole
from mizarnet._model import arguments
from mizarnet._model.arguments import IPAddress
from mizarnet._model.codec import Record
from mizarnet._model.described import Described, Listing
from mizarnet._model.finding import Findings, messages, worst_first
from mizarnet._model.html import table
from mizarnet._model.public import public
from mizarnet._model.specs import (
    KEEP,
    AddressLike,
    DefaultRoute,
    EndpointSpec,
    InterfaceLike,
    Keep,
    Kind,
    Life,
    MacAddress,
    MacLike,
    MacvlanMode,
    NetnsLike,
    Route,
    parse_field,
)
from mizarnet._model.stats import EndpointStats
from mizarnet.agent import TransitAgent, datapath_of
from mizarnet.errors import (
    BulkError,
    EndpointNotFoundError,
    InvalidTypeError,
    InvalidValueError,
    LockTimeoutError,
    MizarnetError,
    NetnsNotFoundError,
    StaleHandleError,
)
from mizarnet.tap import MAKE_AGAIN, Tap, open_tap
from mizarnet.tunnel import place_of


@public
@attrs.frozen
class EndpointState(Described):
    """An endpoint as its record and the kernel described it.

    Attributes:
        life: How far the endpoint has come; what follows is of its device.
        up: Whether the device is administratively up; False without one.
        mtu: MTU of the device, in bytes; 0 without one.
        mac: MAC address of the device.
        mode: Mode of the device; it was created private. None without a device.
        addresses: Addresses of the device with their prefixes, in the kernel's order; link-local ones are left out.
        routes: Unicast routes of the main table through the device, one for each next hop, as they are: also such that
            no endpoint may ask for. None: this process cannot enter the namespace, since its name is not in the
            process's ``/run/netns`` or belongs to another namespace by now.
        labels: Labels of the endpoint.
    """

    life: Life
    up: bool
    mtu: int
    mac: MacAddress
    mode: MacvlanMode | None
    addresses: tuple[arguments.IPInterface, ...]
    routes: tuple[Route, ...] | None
    labels: Mapping[str, str]


@public
@final
class Endpoint(Described):
    """A handle of one endpoint. It keeps no kernel object open, so there is nothing to close.

    Made by :meth:`create`, :meth:`create_many`, :meth:`open` and :meth:`list`. Attributes are what was true then.
    :meth:`create_many` and :meth:`delete_many` collect the errors of single endpoints in ``BulkError.failed``.

    Attributes:
        spec: Complete specification of the endpoint, with the values of arguments that were left out.
        created: Whether the call that made this handle created the endpoint.
        ifindex: Index of the endpoint's device, in the endpoint's namespace.

    Raises:
        ClosedError: In each method, after the agent's handle was closed.
        ForkedError: In each method, in a child of the process that made the agent's handle.
        StaleHandleError: In each method but :meth:`delete`: the agent was detached or replaced, or its tunnel is gone.
        AgentNotFoundError: In each method: another program took agent and guard off every hook.
        LockTimeoutError: In each method that creates or deletes: another process held the host's lock for 10 s.
        PrivilegeError: In each method that creates or deletes: ``CAP_NET_ADMIN`` or ``CAP_SYS_ADMIN`` is missing.
    """

    _DESCRIBED = ("spec", "ifindex", "created")

    def __init__(self, agent: TransitAgent, record: Record, *, created: bool) -> None:
        """Not for users: see :meth:`create` and :meth:`open`."""
        self._agent = agent
        self._datapath = datapath_of(agent)
        self._record = record
        self.spec: EndpointSpec = record.spec
        self.ifindex: int = record.ifindex
        self.created = created

    @property
    def name(self) -> str:
        """Name of the endpoint, unique per agent: the caller's key."""
        return self.spec.name

    @property
    def vni(self) -> int:
        """VNI of the tenant network, 1 to 16,777,215."""
        return self.spec.vni

    @property
    def ip(self) -> IPAddress:
        """First address of the endpoint, IPv4 before IPv6."""
        return self.spec.ip[0].ip

    @property
    def addresses(self) -> tuple[arguments.IPInterface, ...]:
        """All addresses of the endpoint, with their on-link prefixes."""
        return self.spec.ip

    @property
    def mac(self) -> MacAddress:
        """MAC address of the endpoint's device."""
        return self._record.mac

    @property
    def netns(self) -> str | None:
        """Namespace of the endpoint, as the caller named it; None: the host's own."""
        return self.spec.netns

    @property
    def ifname(self) -> str:
        """Name of the endpoint's device."""
        return self.spec.ifname

    @property
    def kind(self) -> Kind:
        """Kind of the endpoint's device, MACVLAN or MACVTAP."""
        return self.spec.kind

    @property
    def labels(self) -> Mapping[str, str]:
        """Labels of the endpoint."""
        return self.spec.labels

    @overload
    @classmethod
    def create(cls, agent: TransitAgent, spec: EndpointSpec, /) -> Self: ...
    @overload
    @classmethod
    def create(
        cls,
        agent: TransitAgent,
        /,
        *,
        vni: int,
        ip: InterfaceLike | Sequence[InterfaceLike],
        name: str | None = None,
        netns: NetnsLike | None = None,
        ifname: str = "eth0",
        mac: MacLike | None = None,
        kind: Kind | Literal["macvlan", "macvtap"] = Kind.MACVLAN,
        gateway: AddressLike | Sequence[AddressLike] | None = None,
        default_route: DefaultRoute | Literal["always", "if-none", "never"] = DefaultRoute.ALWAYS,
        routes: Iterable[Route] = (),
        mtu: int | None = None,
        forwarding: bool = False,
        trust_user_namespace: bool = False,
        labels: Mapping[str, str] | None = None,
    ) -> Self: ...
    @classmethod
    @whole
    def create(
        cls,
        agent: TransitAgent,
        spec: EndpointSpec | None = None,
        /,
        *,
        vni: int | None = None,
        ip: InterfaceLike | Sequence[InterfaceLike] | None = None,
        name: str | None = None,
        netns: NetnsLike | None = None,
        ifname: str = "eth0",
        mac: MacLike | None = None,
        kind: Kind | Literal["macvlan", "macvtap"] = Kind.MACVLAN,
        gateway: AddressLike | Sequence[AddressLike] | None = None,
        default_route: DefaultRoute | Literal["always", "if-none", "never"] = DefaultRoute.ALWAYS,
        routes: Iterable[Route] = (),
        mtu: int | None = None,
        forwarding: bool = False,
        trust_user_namespace: bool = False,
        labels: Mapping[str, str] | None = None,
    ) -> Self:
        """Create an endpoint: its device, fully configured, in the container's namespace, and its records.

        The device of an existing endpoint is given back what it lacks: it is set up, and gets the MTU, the addresses
        and the routes that it was made with. What the container has put in the place of an address or a route stays.

        Args:
            agent: Transit agent of the host.
            spec: Specification of the endpoint, in place of all that follows.
            vni: Tenant network, 1 to 16,777,215.
            ip: Own addresses with their on-link prefixes, such as ``"10.0.0.1/24"``: any number of each family. It
                speaks from the first of a family unless told otherwise; the order of the others says nothing.
            name: The caller's key, unique per agent; None: ``"<vni>/<ip>"``.
            netns: Name under ``/run/netns`` or path of the container's namespace; None: the agent's own.
            ifname: Name of the device in that namespace.
            mac: MAC address; None: derived from VNI and first address, the same on every host.
            kind: ``"macvlan"`` for a container, ``"macvtap"`` for a VM.
            gateway: Default gateway, one per IP version at most; one in no own prefix, such as ``"fe80::1"``, is taken
                for a neighbour, too; ``()``: none; None: that of the network, if there is one and the namespace has no
                default route yet (never for the agent's own namespace).
            default_route: Whether the namespace gets a default route by the gateway: ``"always"``, ``"if-none"`` (if it
                has none of that IP version yet, as when a container joins its second network) or ``"never"``.
            routes: Other routes of the namespace through the device, in any order; a gateway of a route is a neighbour
                that is an endpoint, or the gateway of a network. A VM has none.
            mtu: MTU in bytes; None: the tunnel's.
            forwarding: Whether it may send from addresses that are not its own, and be the next hop of networks
                (``Network(via=...)``), whose packets it then gets.
            trust_user_namespace: Whether the namespace may belong to another user namespace, whose root could then add
                devices to the tunnel and copy frames of other tenants.
            labels: What the caller wants to find with the endpoint again, text by text: at most 128 bytes in all, with
                two for each. Nothing is decided by them.

        Returns:
            The endpoint; the existing one of that name, with ``created`` False, if it is as asked for: what is left out
            asks for its default, and for nothing with ``mac``, ``gateway`` and ``mtu``.

        Raises:
            ExistsError: An endpoint of that name exists and differs, or an address, the MAC, the device's name or a
                route is taken.
            CapacityError: A table is full.
            MtuError: The MTU is larger than the tunnel's, or too small for IPv6.
            NetnsNotFoundError: There is no such namespace, or the device lacks something there and no known name leads
                to the namespace.
            UntrustedNamespaceError: The namespace belongs to another user namespace.
        """
        fields: dict[str, object] = {
            "vni": vni,
            "ip": ip,
            "name": name,
            "netns": netns,
            "ifname": ifname,
            "mac": mac,
            "kind": kind,
            "gateway": gateway,
            "default_route": default_route,
            "routes": routes,
            "mtu": mtu,
            "forwarding": forwarding,
            "trust_user_namespace": trust_user_namespace,
            "labels": labels,
        }
        wanted = _specification(spec, fields)
        datapath = datapath_of(agent)
        with datapath.writing(*endpoint_writer(wanted.name)) as maps:
            record, created = LocalEndpoints(datapath, maps).find_or_make(wanted)
        if not created:
            LocalEndpoints.of(datapath).complete_device(record, netns=wanted.netns)
        return cls(agent, record, created=created)

    @classmethod
    @whole
    def create_many(cls, agent: TransitAgent, specs: Iterable[EndpointSpec]) -> list[Self]:
        """Create endpoints one after the other: each is all or nothing, and a failure does not stop the others.

        Args:
            agent: Transit agent of the host.
            specs: Specifications of the endpoints, each of another name.

        Returns:
            The endpoints, in the order of ``specs``.

        Raises:
            InvalidValueError: Two endpoints have one name; none was created.
            BulkError: Some endpoints were not created; ``failed`` has their errors by name.
        """
        given = arguments.check_items(specs, argument="specs", what="EndpointSpec")
        wanted = [_specification(spec, {}) for spec in given]
        counted = Counter(spec.name for spec in wanted)
        for name, count in counted.items():
            if count > 1:
                text = f"{count} of the endpoints are called {name!r}"
                raise InvalidValueError(text, argument="specs", value=name, hint="give each another name=")
        datapath_of(agent)  # one error for a wrong argument, instead of one for each endpoint
        made: dict[str, Self] = {}
        failed: dict[str, Exception] = {}
        for spec in wanted:
            if stopping():
                break  # the caller gets no result
            try:
                made[spec.name] = cls.create(agent, spec)
            except MizarnetError as error:
                failed[spec.name] = error
        if failed:
            raise _bulk_error("created", failed, [*made])
        return [*made.values()]

    @overload
    @classmethod
    def open(cls, agent: TransitAgent, name: str, /, *, dead: bool = False) -> Self: ...
    @overload
    @classmethod
    def open(cls, agent: TransitAgent, /, *, vni: int, ip: AddressLike, dead: bool = False) -> Self: ...
    @classmethod
    def open(
        cls,
        agent: TransitAgent,
        name: str | None = None,
        /,
        *,
        vni: int = 0,
        ip: AddressLike | None = None,
        dead: bool = False,
    ) -> Self:
        """A handle of an existing endpoint, by name or by address.

        Args:
            agent: Transit agent of the host.
            name: Name of the endpoint.
            vni: VNI of the endpoint, with ``ip`` in place of ``name``.
            ip: Any address of the endpoint.
            dead: Whether an endpoint that is not live will do, too: to look at its state, or to delete it.

        Raises:
            EndpointNotFoundError: There is no such endpoint, or it is not live, and ``dead`` is not given.
        """
        datapath = datapath_of(agent)
        arguments.check_bool(dead, argument="dead")
        if name is not None and ip is None and vni == 0:
            arguments.check_endpoint_name(name)
            endpoints, what = LocalEndpoints.of(datapath), repr(name)
            record = endpoints.named(name)
        elif name is None and ip is not None:
            address = arguments.check_address(ip)
            what = f"({arguments.check_vni(vni)}, {address})"
            endpoints = LocalEndpoints.of(datapath)
            record = endpoints.at(vni, address)
            if record is not None and address not in {each.ip for each in record.spec.ip}:
                record = None  # it comes or leaves
        else:
            raise InvalidTypeError("open an endpoint by name, or by vni= and ip=", argument="name")
        if record is None:
            raise EndpointNotFoundError(
                f"there is no endpoint {what} on this host", hint="Endpoint.list(agent) has those there are"
            )
        losses = [] if dead else endpoints.losses(record)
        if losses:
            raise EndpointNotFoundError(
                f"endpoint {what} is not whole: {messages(losses)}",
                hint="Endpoint.create() makes it again, Endpoint.delete_many() removes what is left",
            )
        return cls(agent, record, created=False)

    @classmethod
    def list(
        cls, agent: TransitAgent, *, prefix: str = "", vni: int | None = None, dead: bool = False
    ) -> list[Self]:
        """Handles of the live endpoints of this host, sorted by name.

        Args:
            agent: Transit agent of the host.
            prefix: Beginning of the names to list.
            vni: VNI of the endpoints to list; None: every VNI.
            dead: Whether to list those too that are not live: ``state().life`` says what they are.
        """
        if prefix != "":
            arguments.check_str(prefix, argument="prefix")
        if vni is not None:
            arguments.check_vni(vni)
        arguments.check_bool(dead, argument="dead")
        endpoints = LocalEndpoints.of(datapath_of(agent))
        records = [
            record
            for record in endpoints.recorded()
            if record.spec.name.startswith(prefix) and vni in (None, record.spec.vni)
        ]
        if not dead:
            records = [record for record, life in endpoints.lives(records) if life is Life.LIVE]
        return Listing(
            (cls(agent, record, created=False) for record in records),
            caption=f"endpoints on {place_of(agent.tunnel)}",
            columns=("name", "vni", "addresses", "mac", "netns", "ifname", "kind", "labels"),
        )

    def stats(self) -> EndpointStats:
        """Frames sent, received and refused, summed over the CPUs, and the reasons of what was refused.

        Raises:
            EndpointNotFoundError: The endpoint was deleted.
        """
        return counters.read(self._datapath.maps, self._current())

    @staticmethod
    def stats_all(agent: TransitAgent) -> Mapping[str, EndpointStats]:
        """What :meth:`stats` is of every endpoint of this host, by name; from few system calls.

        Args:
            agent: Transit agent of the host.
        """
        return {each.name: stats for each, stats in counters.read_all(datapath_of(agent).maps)}

    def state(self) -> EndpointState:
        """The endpoint's record and its device, read from the kernel.

        Raises:
            EndpointNotFoundError: The endpoint was deleted.
        """
        record, hooks = self._current(), self._datapath.hooks
        link = LocalEndpoints.of(self._datapath).device(record)
        with suppress(NetnsNotFoundError):  # the namespace ends just now
            return _state(record, None if link is None else configuration.read(record, link, hooks))
        return _state(record, None)

    def check(self) -> Findings:
        """What about the endpoint is not as it should be, the worst first; none is the good case.

        It covers the entries in the tables and the device with its addresses and routes. A read without a lock; each
        finding was seen twice, 0.1 s apart.

        Raises:
            EndpointNotFoundError: The endpoint was deleted.
        """
        from mizarnet._datapath.checks import endpoint_findings
        from mizarnet._datapath.checks.confirm import confirmed

        return worst_first(
            confirmed(lambda: endpoint_findings(LocalEndpoints.of(self._datapath), self._current()))
        )

    @staticmethod
    def state_all(agent: TransitAgent) -> Mapping[str, EndpointState]:
        """What :meth:`state` is of every endpoint of this host, by name; from a few messages for each namespace.

        Args:
            agent: Transit agent of the host.
        """
        endpoints = LocalEndpoints.of(datapath_of(agent))
        records, hooks = endpoints.recorded(), endpoints.datapath.hooks
        found = configuration.read_all(records, endpoints.devices(records), hooks)
        return {record.spec.name: _state(record, found.get(record.instance)) for record in records}

    @whole
    def update(
        self,
        *,
        ip: InterfaceLike | Sequence[InterfaceLike] | Keep = KEEP,
        gateway: AddressLike | Sequence[AddressLike] | Keep | None = KEEP,
        routes: Iterable[Route] | Keep = KEEP,
        mtu: int | Keep | None = KEEP,
        ifname: str | Keep = KEEP,
        forwarding: bool | Keep = KEEP,
        trust_user_namespace: bool | Keep = KEEP,
        labels: Mapping[str, str] | Keep | None = KEEP,
        vni: Keep = KEEP,
        kind: Keep = KEEP,
        mac: Keep = KEEP,
        name: Keep = KEEP,
        netns: Keep = KEEP,
        default_route: Keep = KEEP,
    ) -> tuple[str, ...]:
        """Change the endpoint while it is in use.

        What stays is never away, what comes is there before the call returns, and what leaves is refused by then. What
        a process that was killed left of it, the same call finishes, and any ``create``, ``update`` or ``delete`` of
        that name; the device's name is given by the same call only. The handle has the new values afterwards.

        Args:
            ip: Own addresses, all of them, as for :meth:`create`.
            gateway: Default gateways, all of them, as for :meth:`create`; None: those of the networks.
            routes: Other routes, all of them, as for :meth:`create`.
            mtu: MTU in bytes; None: the tunnel's, which it follows from then on.
            ifname: Name of the device in its namespace.
            forwarding: Whether it may forward, as for :meth:`create`.
            trust_user_namespace: Whether its namespace may belong to another user namespace.
            labels: Labels, all of them, as for :meth:`create`; None: none.
            vni: Cannot change, and neither can what follows: any value is an error.
            kind: The same.
            mac: The same.
            name: The same.
            netns: The same.
            default_route: The same.

        Returns:
            Names of the arguments that were not as given; none, if nothing was to change. In any case the endpoint is
            given back what it lacks, as by :meth:`create`.

        Raises:
            EndpointNotFoundError: The endpoint was deleted, or it is not live.
            ExistsError: An address, the default route or another route is taken.
            CapacityError: A table is full; nothing was changed.
            InvalidValueError: The values do not fit together: a gateway needs an address of its IP version, for one. Or
                one cannot change in place.
            MtuError: The MTU is larger than the tunnel's, or too small for IPv6.
            UnsupportedError: This kernel renames no device that is up (before 6.2).
            UntrustedNamespaceError: Its namespace belongs to another user namespace, which shall be trusted no more.
            NetnsNotFoundError: No name that is known leads to the endpoint's namespace.
            InUseError: It is the endpoint of a gateway, of which only labels change here.
        """
        fixed = {
            "vni": vni,
            "kind": kind,
            "mac": mac,
            "name": name,
            "netns": netns,
            "default_route": default_route,
        }
        _refuse_fixed(fixed)
        given = _checked(
            {
                "ip": ip,
                "gateway": gateway,
                "routes": routes,
                "mtu": mtu,
                "ifname": ifname,
                "forwarding": forwarding,
                "trust_user_namespace": trust_user_namespace,
                "labels": labels,
            }
        )
        from mizarnet._datapath.gateways import Gateways

        with self._datapath.writing(*endpoint_writer(self.name)) as maps:
            endpoints = LocalEndpoints(self._datapath, maps)
            record = self._current()
            Gateways(self._datapath, maps).refuse_change(record, given)
            losses = endpoints.losses(record)
            if losses:
                raise EndpointNotFoundError(
                    f"endpoint {self.name!r} is not whole: {messages(losses)}", hint=MAKE_AGAIN
                )
            record, changed = endpoints.update(record, given)
        self._record, self.spec = record, record.spec
        LocalEndpoints.of(self._datapath).complete_device(record)
        return changed

    @whole
    def open_tap(self, *, queues: int = 1) -> Tap:
        """Open descriptors of a MACVTAP endpoint for a VMM, and bring its device up.

        Args:
            queues: Number of queues, 1 to 256, each with a descriptor; all frames of a flow use the same queue.

        Raises:
            InvalidValueError: The endpoint is no MACVTAP.
            EndpointNotFoundError: The endpoint was deleted, or its device is gone.
            NetnsNotFoundError: The endpoint's namespace has no name in this process's ``/run/netns``.
            ExistsError: Another device took the endpoint's MAC while its device was down.
            PrivilegeError: ``CAP_SYS_ADMIN`` or ``CAP_MKNOD`` is missing.
        """
        arguments.check_int(queues, argument="queues", low=1, high=256)
        if self.kind is not Kind.MACVTAP:
            raise InvalidValueError(
                f"endpoint {self.name!r} is a {self.kind.value}",
                argument="kind",
                value=self.kind,
                hint='create it with kind="macvtap"',
            )
        return open_tap(self._current(), queues)

    @whole
    def delete(self) -> None:
        """Delete the endpoint; succeeds if it is gone, and leaves a later one of the same name alone.

        A process with ``CAP_NET_ADMIN`` over the endpoint's namespace can move the device to another namespace, or
        give it another MAC. Then the device is not found, and only the records are deleted. The device stays, unable
        to send or receive anything, until its namespace or the tunnel ends.

        Raises:
            InUseError: It is the endpoint of a gateway, and goes with that.
        """
        try:
            with self._datapath.writing(*endpoint_writer(self.name)) as maps:
                _refuse_own_of_gateway(self._datapath, maps, self._record)
                LocalEndpoints(self._datapath, maps).delete(self.name, instance=self._record.instance)
        except StaleHandleError:
            return  # detaching the agent deleted its endpoints

    @staticmethod
    @whole
    def delete_many(agent: TransitAgent, names: Iterable[str]) -> None:
        """Delete endpoints by name, however far each has come; names without an endpoint are no error.

        Their devices end side by side, those of one namespace together: far quicker than one after the other.

        Args:
            agent: Transit agent of the host.
            names: Names of the endpoints.

        Raises:
            BulkError: Some endpoints were not deleted; ``failed`` has their errors by name.
        """
        given = arguments.check_items(names, argument="names", what="names")
        wanted = [*dict.fromkeys(arguments.check_endpoint_name(name) for name in given)]
        datapath = datapath_of(agent)
        failed: dict[str, Exception] = {}
        for at in range(0, len(wanted), _TOGETHER):
            if stopping():
                break
            failed.update(_delete_together(datapath, wanted[at : at + _TOGETHER]))
        if failed:
            raise _bulk_error("deleted", failed, [name for name in wanted if name not in failed])

    def _current(self) -> Record:
        record = LocalEndpoints.of(self._datapath).named(self.name)
        if record is None or record.instance != self._record.instance:
            raise EndpointNotFoundError(f"endpoint {self.name!r} was deleted", hint=MAKE_AGAIN)
        return record

    def __repr__(self) -> str:
        where = f" in {self.netns}" if self.netns else ""
        return f"<Endpoint {self.name!r}: {self.ip} of VNI {self.vni}{where}>"

    def _repr_html_(self) -> str:
        rows = {**attrs.asdict(self.spec, recurse=False), "ifindex": self.ifindex, "created": self.created}
        caption = f"Endpoint {self.name} on {place_of(self._agent.tunnel)}"
        return table(caption, ("attribute", "value"), rows.items())


def _state(record: Record, found: configuration.Configuration | None) -> EndpointState:
    """The state of an endpoint whose device has what was ``found``; None: the device is gone."""
    if found is None:
        life = life_of(record, None)
        return EndpointState(
            life=life,
            up=False,
            mtu=0,
            mac=record.mac,
            mode=None,
            addresses=(),
            routes=(),
            labels=record.spec.labels,
        )
    link = found.link
    return EndpointState(
        life=life_of(record, link),
        up=link.up,
        mtu=link.mtu,
        mac=record.mac,  # by which the device was found
        mode=MacvlanMode(link.mode),
        addresses=found.addresses,
        routes=found.routes,
        labels=record.spec.labels,
    )


_TOGETHER = 256
"""Number of endpoints that are deleted under one lock."""
_SHORT = 0.2
"""Time to wait for the locks of many names, in seconds."""


def _delete_together(datapath: DataPath, names: Sequence[str]) -> Mapping[str, Exception]:
    """Delete endpoints; the errors, by name, of those that were not deleted.

    If another call holds the lock of one of the names, each is deleted by itself, so that the others do not wait.
    """
    alone = len(names) == 1
    try:
        with datapath.writing(SHARED_HOST, *of_names(names), timeout=None if alone else _SHORT) as maps:
            endpoints = LocalEndpoints(datapath, maps)
            failed: dict[str, Exception] = {}
            found: list[Record] = []
            for record in filter(None, map(endpoints.named, names)):
                try:
                    _refuse_own_of_gateway(datapath, maps, record)
                    found.append(record)
                except MizarnetError as error:
                    failed[record.spec.name] = error
            return {**failed, **endpoints.remove_many(found)}
    except LockTimeoutError as busy:
        if alone:
            return {names[0]: busy}
    except MizarnetError as error:
        return dict.fromkeys(names, error)
    failed = {}
    for name in names:
        failed.update(_delete_together(datapath, [name]))
    return failed


@public  # an import that fails is an error of one endpoint, and not of all that are deleted with it
def _refuse_own_of_gateway(datapath: DataPath, maps: Maps, record: Record) -> None:
    """Raises ``InUseError`` for the endpoint of a gateway, which goes with that."""
    if record.private and record.spec.kind is Kind.MACVLAN:
        from mizarnet._datapath.gateways import Gateways

        Gateways(datapath, maps).refuse_own(record)


def _refuse_fixed(given: Mapping[str, object]) -> None:
    for name, value in given.items():
        if value is not KEEP:
            raise InvalidValueError(
                f"{name} of an endpoint cannot change in place",
                argument=name,
                value=value,
                hint="delete and create the endpoint",
            )


def _checked(given: Mapping[str, object]) -> dict[str, Any]:
    """The values of an update, each as a specification has it, without those that stay."""
    changing = {name: value for name, value in given.items() if value is not KEEP}
    checked = {name: parse_field(name, value) for name, value in changing.items()}
    if "ip" in checked:
        EndpointSpec(vni=1, **checked)  # whether they fit together
    return checked


def _specification(spec: EndpointSpec | None, fields: Mapping[str, Any]) -> EndpointSpec:
    """The specification itself, or one of ``fields``, of which the required ones are None where they were left out."""
    if spec is None:
        return EndpointSpec(
            **{name: value for name, value in fields.items() if (name, value) not in _LEFT_OUT}
        )
    if not isinstance(spec, EndpointSpec) or any(fields[name] != _DEFAULTS[name] for name in fields):
        raise InvalidTypeError("give an EndpointSpec, or its fields by keyword", argument="spec")
    return spec


_REQUIRED = [field.name for field in attrs.fields(EndpointSpec) if field.default is attrs.NOTHING]
_LEFT_OUT = [(name, None) for name in _REQUIRED]
_DEFAULTS = {
    **{field.name: field.default for field in attrs.fields(EndpointSpec)},
    **dict(_LEFT_OUT),
}


def _bulk_error(verb: str, failed: dict[str, Exception], done: list[str]) -> BulkError:
    counted = f"{len(failed)} of {len(failed) + len(done)} endpoints were not {verb}"
    return BulkError(counted, failed=failed, done=done)
