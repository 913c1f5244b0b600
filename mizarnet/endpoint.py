# SPDX-License-Identifier: Apache-2.0
"""Endpoints: a container's device on the tunnel, and its records."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, Literal, Self, final, overload

import attrs

from mizarnet import wiring
from mizarnet._datapath.maps import Maps
from mizarnet._datapath.presence import device_of, is_present, remove
from mizarnet._kernel.netlink import resolve
from mizarnet._model import arguments
from mizarnet._model.arguments import IPAddress
from mizarnet._model.codec import Record, u32
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
    ExistsError,
    InvalidTypeError,
    InvalidValueError,
    MizarnetError,
    NetnsNotFoundError,
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
            return cls._create(agent, maps, wanted)

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

    @classmethod
    def _create(cls, agent: TransitAgent, maps: Maps, wanted: EndpointSpec) -> Self:
        existing = agent.datapath.record(wanted.name)
        if existing is not None:
            if is_present(existing, agent.session) and _is_its_namespace(wanted, existing):
                _compare(wanted, existing)
                wiring.complete(maps, existing)
                return cls(agent, existing, created=False)
            wiring.refuse_other_maker(agent.session, existing)
            remove(maps, agent.session, existing)
        return cls(agent, wiring.make(agent.datapath, maps, agent.tunnel, wanted), created=True)

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
            record, what = agent.datapath.record(arguments.check_endpoint_name(name)), repr(name)
        elif name is None and ip is not None:
            address = arguments.check_address(ip)
            record, what = agent.datapath.record_at(arguments.check_vni(vni), address), f"({vni}, {address})"
        else:
            raise InvalidTypeError("open an endpoint by name, or by vni= and ip=", argument="name")
        if record is None or not is_present(record, agent.session):
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
        if prefix != "":
            arguments.check_str(prefix, argument="prefix")
        if vni is not None:
            arguments.check_vni(vni)
        return [
            cls(agent, record, created=False)
            for record in _checked(agent).datapath.all_records()
            if record.spec.name.startswith(prefix)
            and vni in (None, record.spec.vni)
            and is_present(record, agent.session)
        ]

    def stats(self) -> EndpointStats:
        """Frames sent, received and refused; raises ``EndpointNotFoundError`` if the endpoint is gone."""
        self._current()
        slices = self._agent.datapath.maps.traffic.lookup_per_cpu(u32(self._record.interface))
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
                record = self._agent.datapath.record(self.name)
                if record is not None and record.instance == self._record.instance:
                    remove(maps, self._agent.session, record)
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
                    record = agent.datapath.record(name)
                    if record is not None:
                        remove(maps, agent.session, record)
            except MizarnetError as error:
                failed[name] = error
        if failed:
            raise _bulk_error("deleted", failed, [name for name in wanted if name not in failed])

    def _current(self) -> Record:
        record = self._agent.datapath.record(self.name)
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


def _is_its_namespace(wanted: EndpointSpec, existing: Record) -> bool:
    """Whether the name still means the namespace that the endpoint lives in."""
    if wanted.netns is None or wanted.netns != existing.spec.netns:
        return True  # left open, or perhaps a difference to be named
    return _lives_in(wanted.netns, existing)


def _lives_in(netns: str, existing: Record) -> bool:
    """Whether a name or path leads to the endpoint's namespace, whatever it was called when the endpoint was made."""
    with resolve(netns) as found:
        return found.netns.identity == existing.netns_id


def _leads_to(netns: str, existing: Record) -> bool:
    with suppress(NetnsNotFoundError):
        return _lives_in(netns, existing)
    return False


def _compare(wanted: EndpointSpec, existing: Record) -> None:
    """Raises ``ExistsError`` unless what is given of ``wanted`` is what exists."""
    differences: dict[str, tuple[object, object]] = {}
    open_fields = {"mac", "mtu", "gateway", *(["netns"] if existing.private else [])}
    for field in attrs.fields(EndpointSpec):
        given, present = getattr(wanted, field.name), getattr(existing.spec, field.name)
        if given == present or (given is None and field.name in open_fields):
            continue
        if field.name == "netns" and given is not None and _leads_to(given, existing):
            continue
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
