# SPDX-License-Identifier: Apache-2.0
"""Endpoints: a container's device on the tunnel, and its records."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, Self, final, overload

import attrs

from mizarnet import checks, wiring
from mizarnet.abi.records import Record
from mizarnet.agent import TransitAgent
from mizarnet.checks import IPAddress
from mizarnet.errors import (
    BulkError,
    EndpointNotFoundError,
    ExistsError,
    InvalidTypeError,
    InvalidValueError,
    MizarnetError,
    StaleHandleError,
)
from mizarnet.html import table
from mizarnet.presence import device_of
from mizarnet.stats import EndpointStats
from mizarnet.store import Maps
from mizarnet.tap import Tap, open_tap
from mizarnet.values import AddressLike, EndpointSpec, InterfaceLike, Kind, MacAddress, MacLike, NetnsLike


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
    def addresses(self) -> tuple[checks.IPInterface, ...]:
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
            StaleHandleError: The agent was detached.
        """
        wanted = _specification(spec, arguments)
        with _checked(agent).store.writing() as maps:
            return cls._create(agent, maps, wanted)

    @classmethod
    def create_many(cls, agent: TransitAgent, specs: Iterable[EndpointSpec]) -> list[Self]:
        """Create endpoints under one lock: each is all or nothing, and the others go on.

        Raises:
            BulkError: Some failed; ``failed`` has their errors by name.
        """
        wanted = [_specification(spec, {}) for spec in specs]
        made: dict[str, Self] = {}
        failed: dict[str, Exception] = {}
        with _checked(agent).store.writing() as maps:
            for spec in wanted:
                try:
                    made[spec.name] = cls._create(agent, maps, spec)
                except MizarnetError as error:
                    failed[spec.name] = error
        if failed:
            raise _bulk_error("created", failed, list(made))
        return list(made.values())

    @classmethod
    def _create(cls, agent: TransitAgent, maps: Maps, wanted: EndpointSpec) -> Self:
        existing = agent.store.record(wanted.name)
        if existing is not None:
            if device_of(existing, agent.session) is not None:
                _compare(wanted, existing.spec)
                return cls(agent, existing, created=False)
            wiring.remove(maps, agent.session, existing)
        return cls(agent, wiring.make(agent.store, maps, agent.tunnel, wanted), created=True)

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
            record, what = agent.store.record(checks.check_endpoint_name(name)), repr(name)
        elif name is None and ip is not None:
            address = checks.check_address(ip)
            record, what = agent.store.record_at(checks.check_vni(vni), address), f"({vni}, {address})"
        else:
            raise InvalidTypeError("open an endpoint by name, or by vni= and ip=", argument="name")
        if record is None or device_of(record, agent.session) is None:
            raise EndpointNotFoundError(f"there is no endpoint {what} on this host")
        return cls(agent, record, created=False)

    @classmethod
    def list(cls, agent: TransitAgent, *, prefix: str = "", vni: int | None = None) -> list[Self]:
        """The endpoints of this host whose device exists, by name.

        Args:
            agent: Of the host.
            prefix: Only those whose name begins so.
            vni: Only those of that VNI.
        """
        if vni is not None:
            checks.check_vni(vni)
        return [
            cls(agent, record, created=False)
            for record in _checked(agent).store.all_records()
            if record.spec.name.startswith(prefix)
            and vni in (None, record.spec.vni)
            and device_of(record, agent.session) is not None
        ]

    def stats(self) -> EndpointStats:
        """Frames sent, received and refused; raises ``EndpointNotFoundError`` if the endpoint is gone."""
        self._current()
        slices = self._agent.store.maps.traffic.lookup_per_cpu(self._record.interface.to_bytes(4, "little"))
        return EndpointStats.unpack(slices or [])

    def state(self) -> EndpointState:
        """Read the device from the kernel; raises ``EndpointNotFoundError`` if the endpoint is gone."""
        link = device_of(self._current(), self._agent.session)
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
            PrivilegeError: ``CAP_SYS_ADMIN`` or ``CAP_MKNOD`` is missing.
        """
        checks.check_int(queues, argument="queues", low=1, high=256)
        if self.kind is not Kind.MACVTAP:
            raise InvalidValueError(
                f"endpoint {self.name!r} is a {self.kind.value}",
                argument="kind",
                value=self.kind,
                hint='create it with kind="macvtap"',
            )
        return open_tap(self._current(), queues)

    def delete(self) -> None:
        """Delete the endpoint; succeeds if it is gone, and leaves a later one of the same name alone."""
        try:
            with self._agent.store.writing() as maps:
                record = self._agent.store.record(self.name)
                if record is not None and record.instance == self._record.instance:
                    wiring.remove(maps, self._agent.session, record)
        except StaleHandleError:
            return  # the agent was detached, which takes its endpoints along

    @staticmethod
    def delete_many(agent: TransitAgent, names: Iterable[str]) -> None:
        """Delete endpoints by name under one lock; those that do not exist are no error.

        Raises:
            BulkError: Some failed; ``failed`` has their errors by name.
        """
        wanted = [checks.check_endpoint_name(name) for name in names]
        failed: dict[str, Exception] = {}
        with _checked(agent).store.writing() as maps:
            for name in wanted:
                record = agent.store.record(name)
                try:
                    if record is not None:
                        wiring.remove(maps, agent.session, record)
                except MizarnetError as error:
                    failed[name] = error
        if failed:
            raise _bulk_error("deleted", failed, [name for name in wanted if name not in failed])

    def _current(self) -> Record:
        record = self._agent.store.record(self.name)
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


def _compare(wanted: EndpointSpec, existing: EndpointSpec) -> None:
    """Raises ``ExistsError`` unless what is given of ``wanted`` is what exists."""
    differences: dict[str, tuple[object, object]] = {}
    open_fields = {"mac", "mtu", "gateway", *(["netns"] if wiring.is_private(existing) else [])}
    for field in attrs.fields(EndpointSpec):
        given, present = getattr(wanted, field.name), getattr(existing, field.name)
        left_open = given in (None, ()) and field.name in open_fields
        if not left_open and given != present:
            differences[field.name] = (given, present)
    if differences:
        listed = ", ".join(f"{key} is {b}, not {a}" for key, (a, b) in differences.items())
        raise ExistsError(
            f"endpoint {wanted.name!r} exists, but {listed}", holder=wanted.name, differences=differences
        )


def _bulk_error(verb: str, failed: dict[str, Exception], done: list[str]) -> BulkError:
    name, error = next(iter(failed.items()))
    return BulkError(
        f"{len(failed)} of {len(failed) + len(done)} endpoints were not {verb}, such as {name!r}: {error}",
        failed=failed,
        done=done,
    )
