# SPDX-License-Identifier: Apache-2.0
"""Endpoints: a container's device on the tunnel, and its records."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, Self, final, overload

import attrs

from mizarnet._datapath.endpoints import LocalEndpoints, device
from mizarnet._model import arguments
from mizarnet._model.arguments import IPAddress
from mizarnet._model.codec import Record, u32
from mizarnet._model.finding import messages
from mizarnet._model.html import table
from mizarnet._model.specs import (
    AddressLike,
    EndpointSpec,
    InterfaceLike,
    Kind,
    MacAddress,
    MacLike,
    NetnsLike,
)
from mizarnet._model.stats import EndpointStats
from mizarnet.agent import TransitAgent
from mizarnet.errors import (
    BulkError,
    EndpointNotFoundError,
    InvalidTypeError,
    InvalidValueError,
    MizarnetError,
    StaleHandleError,
)
from mizarnet.tap import Tap, open_tap


@attrs.frozen
class EndpointState:
    """An endpoint's device as the kernel described it.

    Attributes:
        up: Whether it is administratively up.
        mtu: In bytes.
        mac: Its MAC now.
        mode: ``"private"``, as created.
    """

    up: bool
    mtu: int
    mac: str
    mode: str


@final
class Endpoint:
    """A handle of one endpoint. It holds nothing of the kernel, so there is nothing to close.

    Made by :meth:`create`, :meth:`create_many`, :meth:`open` and :meth:`list`. Attributes are what was true then.

    Attributes:
        spec: Its complete specification.
        created: Whether this call made it.
        ifindex: Of its device, in its namespace.
    """

    def __init__(self, agent: TransitAgent, record: Record, *, created: bool) -> None:
        """Not for users: see :meth:`create` and :meth:`open`."""
        self._agent = agent
        self._record = record
        self.spec: EndpointSpec = record.spec
        self.ifindex: int = record.ifindex
        self.created = created

    @property
    def name(self) -> str:
        """The caller's key."""
        return self.spec.name

    @property
    def vni(self) -> int:
        """Tenant network."""
        return self.spec.vni

    @property
    def ip(self) -> IPAddress:
        """The first of its addresses, IPv4 before IPv6."""
        return self.spec.ip[0].ip

    @property
    def addresses(self) -> tuple[arguments.IPInterface, ...]:
        """All its addresses, with their on-link prefixes."""
        return self.spec.ip

    @property
    def mac(self) -> MacAddress:
        """Of its device."""
        return self._record.mac

    @property
    def netns(self) -> str | None:
        """Its namespace as it was named; None: the host's own."""
        return self.spec.netns

    @property
    def ifname(self) -> str:
        """Name of its device."""
        return self.spec.ifname

    @property
    def kind(self) -> Kind:
        """Kind of its device."""
        return self.spec.kind

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
        mtu: int | None = None,
        forwarding: bool = False,
        trust_user_namespace: bool = False,
    ) -> Self: ...
    @classmethod
    def create(cls, agent: TransitAgent, spec: EndpointSpec | None = None, /, **arguments: Any) -> Self:
        """Create an endpoint: its device, finished, in the container's namespace, and its records.

        Args:
            agent: Of the host.
            spec: The specification; or its fields by keyword, see :class:`mizarnet.EndpointSpec`.
            **arguments: The fields.

        Returns:
            The endpoint; the existing one of that name, with ``created`` False, if it is as asked for.

        Raises:
            ExistsError: It exists and differs, or its address, MAC or device name is taken.
            CapacityError: A table is full.
            MtuError: The MTU is larger than the tunnel's.
            NetnsNotFoundError: There is no such namespace.
            UntrustedNamespaceError: It belongs to another user namespace.
            StaleHandleError: The agent was detached.
            LockTimeoutError: Another process is writing all the time.
        """
        wanted = _specification(spec, arguments)
        with _checked(agent).datapath.writing() as maps:
            record, created = LocalEndpoints(agent.datapath, maps).find_or_make(wanted)
        return cls(agent, record, created=created)

    @classmethod
    def create_many(cls, agent: TransitAgent, specs: Iterable[EndpointSpec]) -> list[Self]:
        """Create endpoints one after the other: each is all or nothing, and the others go on.

        Raises:
            BulkError: Some failed; ``failed`` has their errors by name.
        """
        given = arguments.check_items(specs, argument="specs", what="EndpointSpec")
        wanted = [_specification(spec, {}) for spec in given]
        _checked(agent)
        made: dict[str, Self] = {}
        failed: dict[str, Exception] = {}
        for spec in wanted:
            try:
                made[spec.name] = cls.create(agent, spec)
            except MizarnetError as error:
                failed[spec.name] = error
        if failed:
            raise _bulk_error("created", failed, [*made])
        return [made[spec.name] for spec in wanted]

    @overload
    @classmethod
    def open(cls, agent: TransitAgent, name: str, /) -> Self: ...
    @overload
    @classmethod
    def open(cls, agent: TransitAgent, /, *, vni: int, ip: AddressLike) -> Self: ...
    @classmethod
    def open(
        cls, agent: TransitAgent, name: str | None = None, /, *, vni: int = 0, ip: AddressLike | None = None
    ) -> Self:
        """A handle of an existing endpoint, by name or by address.

        Raises:
            EndpointNotFoundError: There is none, or its device is gone.
        """
        _checked(agent)
        if name is not None and ip is None:
            arguments.check_endpoint_name(name)
            endpoints, what = LocalEndpoints.of(agent.datapath), repr(name)
            record = endpoints.named(name)
        elif name is None and ip is not None:
            address, what = arguments.check_address(ip), f"({arguments.check_vni(vni)}, {ip})"
            endpoints = LocalEndpoints.of(agent.datapath)
            record = endpoints.at(vni, address)
        else:
            raise InvalidTypeError("open an endpoint by name, or by vni= and ip=", argument="name")
        if record is None:
            raise EndpointNotFoundError(f"there is no endpoint {what} on this host")
        losses = endpoints.losses(record)
        if losses:
            raise EndpointNotFoundError(
                f"endpoint {what} is not whole: {messages(losses)}",
                hint="Endpoint.create() makes it again, Endpoint.delete_many() removes what is left",
            )
        return cls(agent, record, created=False)

    @classmethod
    def list(cls, agent: TransitAgent, *, prefix: str = "", vni: int | None = None) -> list[Self]:
        """The endpoints of this host whose device exists, by name.

        Args:
            agent: Of the host.
            prefix: Only those whose name begins so.
            vni: Only those of that VNI.
        """
        if prefix != "":
            arguments.check_str(prefix, argument="prefix")
        if vni is not None:
            arguments.check_vni(vni)
        endpoints = LocalEndpoints.of(_checked(agent).datapath)
        return [
            cls(agent, record, created=False)
            for record in endpoints.recorded()
            if record.spec.name.startswith(prefix)
            and vni in (None, record.spec.vni)
            and endpoints.is_present(record)
        ]

    def stats(self) -> EndpointStats:
        """Frames sent, received and refused; raises ``EndpointNotFoundError`` if the endpoint is gone."""
        self._current()
        slices = self._agent.datapath.maps.traffic.lookup_per_cpu(u32(self._record.interface))
        return EndpointStats.unpack(slices or [])

    def state(self) -> EndpointState:
        """Read the device from the kernel; raises ``EndpointNotFoundError`` if the endpoint is gone."""
        link = device.find(self._current(), self._agent.datapath.hooks)
        if link is None:
            raise EndpointNotFoundError(f"the device of endpoint {self.name!r} is gone")
        return EndpointState(up=link.up, mtu=link.mtu, mac=link.mac or "", mode=link.mode or "")

    def open_tap(self, *, queues: int = 1) -> Tap:
        """Open descriptors of a MACVTAP endpoint for a VMM, and bring its device up.

        Args:
            queues: How many, 1 to 256; a flow keeps to one.

        Raises:
            InvalidValueError: The endpoint is no MACVTAP.
            EndpointNotFoundError: The endpoint is gone.
            ExistsError: Another device took its MAC while it was down.
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

    def delete(self) -> None:
        """Delete the endpoint; succeeds if it is gone, and leaves a later one of the same name alone.

        Whoever has ``CAP_NET_ADMIN`` over its namespace can move the device to another, or give it another MAC.
        Then it is not found, and the endpoint counts as gone: the records are deleted, and the device stays, unable
        to send or receive anything, until its namespace or the tunnel ends.

        Raises:
            LockTimeoutError: Another process is writing all the time.
        """
        try:
            with self._agent.datapath.writing() as maps:
                endpoints = LocalEndpoints(self._agent.datapath, maps)
                record = endpoints.named(self.name)
                if record is not None and record.instance == self._record.instance:
                    endpoints.remove(record)
        except StaleHandleError:
            return  # the agent was detached, which takes its endpoints along

    @staticmethod
    def delete_many(agent: TransitAgent, names: Iterable[str]) -> None:
        """Delete endpoints by name, one after the other; those that do not exist are no error.

        Raises:
            BulkError: Some failed; ``failed`` has their errors by name.
        """
        given = arguments.check_items(names, argument="names", what="names")
        wanted = [arguments.check_endpoint_name(name) for name in given]
        _checked(agent)
        failed: dict[str, Exception] = {}
        for name in wanted:
            try:
                with agent.datapath.writing() as maps:
                    endpoints = LocalEndpoints(agent.datapath, maps)
                    record = endpoints.named(name)
                    if record is not None:
                        endpoints.remove(record)
            except MizarnetError as error:
                failed[name] = error
        if failed:
            raise _bulk_error("deleted", failed, [name for name in wanted if name not in failed])

    def _current(self) -> Record:
        record = LocalEndpoints.of(self._agent.datapath).named(self.name)
        if record is None or record.instance != self._record.instance:
            raise EndpointNotFoundError(f"endpoint {self.name!r} was deleted")
        return record

    def __repr__(self) -> str:
        where = f" in {self.netns}" if self.netns else ""
        return f"<Endpoint {self.name!r}: {self.ip} of VNI {self.vni}{where}>"

    def _repr_html_(self) -> str:
        rows = [(key, getattr(self, key)) for key in ("vni", "addresses", "mac", "netns", "ifname", "kind")]
        return table(f"Endpoint {self.name}", ("attribute", "value"), rows)


def _checked(agent: TransitAgent) -> TransitAgent:
    if not isinstance(agent, TransitAgent):
        raise InvalidTypeError(f"agent must be a TransitAgent, not {type(agent).__name__}", argument="agent")
    return agent


def _specification(spec: EndpointSpec | None, arguments: dict[str, Any]) -> EndpointSpec:
    if spec is None:
        return EndpointSpec(**arguments)
    if not isinstance(spec, EndpointSpec) or arguments:
        raise InvalidTypeError("give an EndpointSpec, or its fields by keyword", argument="spec")
    return spec


def _bulk_error(verb: str, failed: dict[str, Exception], done: list[str]) -> BulkError:
    name, error = next(iter(failed.items()))
    return BulkError(
        f"{len(failed)} of {len(failed) + len(done)} endpoints were not {verb}, such as {name!r}: {error}",
        failed=failed,
        done=done,
    )
