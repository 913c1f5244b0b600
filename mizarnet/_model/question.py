# SPDX-License-Identifier: Apache-2.0
"""Which packet is asked about: the arguments of an explanation, judged before any system call."""

from __future__ import annotations

import enum
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple, Protocol, cast, runtime_checkable

import attrs

from mizarnet._model import arguments
from mizarnet._model.arguments import IPAddress
from mizarnet._model.specs import EndpointSpec, parse_member
from mizarnet.errors import InvalidTypeError, InvalidValueError

_SHORTEST_FRAME = 14
_LONGEST_FRAME = 16000  # that the kernel runs a program on
_LONGEST_PACKET = 65535


@runtime_checkable
class OfEndpoint(Protocol):
    """What is made for an endpoint, such as its handle."""

    @property
    def spec(self) -> EndpointSpec:
        """Specification of the endpoint."""
        ...


class Upper(enum.Enum):
    """What a packet carries."""

    ICMP = "icmp"
    TCP = "tcp"
    UDP = "udp"
    ARP = "arp"
    ND = "nd"

    @property
    def is_question(self) -> bool:
        """Whether it asks for a neighbour, which the agent answers."""
        return self in (Upper.ARP, Upper.ND)

    @property
    def has_ports(self) -> bool:
        """Whether it has ports."""
        return self in (Upper.TCP, Upper.UDP)

    def headers(self, version: int) -> int:
        """Bytes of its own header and that of IP."""
        return (20 if version == 4 else 40) + (20 if self is Upper.TCP else 8)


class Who(NamedTuple):
    """A sender or receiver, as the caller named it: an endpoint's handle, its name, or an address.

    Attributes:
        name: Name of the endpoint.
        ip: Address.
        spec: Specification of the endpoint of a handle.
    """

    name: str | None = None
    ip: IPAddress | None = None
    spec: EndpointSpec | None = None

    @classmethod
    def parse(cls, value: object, *, argument: str) -> Who:
        """From a handle, or from text or an address; a text that reads as an address is one.

        Raises:
            InvalidTypeError: It is none of these.
            InvalidValueError: It is a text or an address that nobody can have.
        """
        if isinstance(value, (IPv4Address, IPv6Address)):
            return cls(ip=arguments.check_address(value, argument=argument))
        if isinstance(value, str):
            if _reads_as_address(value):
                return cls(ip=arguments.check_address(value, argument=argument))
            return cls(name=arguments.check_str(value, argument=argument))
        if isinstance(value, OfEndpoint) and isinstance(value.spec, EndpointSpec):
            return cls(name=value.spec.name, spec=value.spec)
        raise InvalidTypeError(
            f"{argument} must be an Endpoint, a name or an address, not {type(value).__name__}",
            argument=argument,
        )

    @property
    def vni(self) -> int | None:
        """VNI of the endpoint of a handle; None: not known before the tables are read."""
        return None if self.spec is None else self.spec.vni


@attrs.frozen(kw_only=True)
class Question:
    """A packet that is asked about.

    Attributes:
        source: Who sends it; None: the frame says it, and it comes from outside.
        destination: Who it is for; None: the frame says it.
        vni: VNI that was given.
        upper: What it carries.
        port: Destination port, for TCP and UDP.
        size: Bytes of the IP packet; None: a small one.
        frame: A whole Ethernet frame in place of destination, protocol, port and size.
        outer: Host that it comes from; None: from an endpoint of this host.
    """

    source: Who | None
    destination: Who | None
    vni: int | None
    upper: Upper
    port: int | None
    size: int | None
    frame: bytes | None
    outer: IPAddress | None

    @classmethod
    def check(
        cls,
        source: object,
        destination: object,
        *,
        vni: int | None,
        protocol: object,
        port: int | None,
        size: int | None,
        frame: object,
        outer: str | IPAddress | None,
    ) -> Question:
        """The question of a call's arguments.

        Raises:
            InvalidTypeError: An argument has the wrong type.
            InvalidValueError: An argument cannot be right, or does not fit to the others.
        """
        made = cls(
            source=None if source is None else Who.parse(source, argument="source"),
            destination=None if destination is None else Who.parse(destination, argument="destination"),
            vni=None if vni is None else arguments.check_vni(vni),
            upper=parse_member(Upper, protocol, argument="protocol"),
            port=None if port is None else arguments.check_port(port),
            size=None if size is None else _size(size),
            frame=None if frame is None else _frame(frame),
            outer=None if outer is None else arguments.check_host_address(outer, argument="outer"),
        )
        made._refuse_misfits()
        return made

    def _refuse_misfits(self) -> None:
        if self.frame is not None:
            self._refuse_beside_frame()
        elif self.source is None:
            raise _unfit("source", None, "a packet has a source, unless it is given as frame= with outer=")
        elif self.destination is None:
            raise _unfit("destination", None, "a packet has a destination, unless it is given as frame=")
        if self.outer is not None and self.vni is None:
            raise _unfit("vni", None, "what comes from another host has a VNI: give vni=")
        if self.outer is not None and self.upper.is_question:
            raise _unfit(
                "protocol", self.upper.value, "questions for neighbours do not come from other hosts"
            )
        self._refuse_misfits_of_protocol()
        self._refuse_unknown_vni()

    def _refuse_beside_frame(self) -> None:
        for name in ("destination", "port", "size"):
            if getattr(self, name) is not None:
                raise _unfit(name, getattr(self, name), f"frame= stands in place of {name}=")
        if self.upper is not Upper.ICMP:
            raise _unfit("protocol", self.upper.value, "frame= stands in place of protocol=")
        if self.outer is None and self.source is None:
            raise _unfit(
                "source", None, "a frame is sent by an endpoint, or comes from another host (outer=)"
            )
        if self.outer is not None and self.source is not None:
            raise _unfit("source", self.source, "a frame from another host says its source itself: give None")

    def _refuse_misfits_of_protocol(self) -> None:
        if self.port is not None and not self.upper.has_ports:
            raise _unfit("port", self.port, f"{self.upper.value} has no ports")
        if self.size is not None and self.upper.is_question:
            raise _unfit("size", self.size, f"the size of {self.upper.value} is fixed")
        versions = {who.ip.version for who in (self.source, self.destination) if who and who.ip}
        if len(versions) == 2:
            raise _unfit("destination", self.destination, "source and destination are of two IP versions")
        wanted = {Upper.ARP: 4, Upper.ND: 6}.get(self.upper)
        if wanted and versions - {wanted}:
            raise _unfit("protocol", self.upper.value, f"{self.upper.value} is for IPv{wanted}")

    def _refuse_unknown_vni(self) -> None:
        parties = [who for who in (self.source, self.destination) if who is not None]
        known = {who.vni for who in parties if who.vni is not None} | ({self.vni} - {None})
        if len(known) > 1:
            argument = "destination" if self.vni is None else "vni"
            raise _unfit(
                argument, self.vni, f"there are two VNIs: {', '.join(map(str, sorted(known, key=str)))}"
            )
        if self.vni is None and parties and all(who.ip is not None for who in parties):
            raise _unfit("vni", None, "an address needs vni=, unless the other side is an endpoint")


def _reads_as_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _unfit(argument: str, value: object, text: str) -> InvalidValueError:
    shown = value.name or value.ip if isinstance(value, Who) else value
    return InvalidValueError(f"{argument}: {text}", argument=argument, value=shown)


def _size(size: int) -> int:
    return arguments.check_int(size, argument="size", low=28, high=_LONGEST_PACKET)


def _frame(frame: object) -> bytes:
    if not isinstance(frame, (bytes, bytearray, memoryview)):
        raise InvalidTypeError(f"frame must be bytes, not {type(frame).__name__}", argument="frame")
    packed = bytes(cast("bytes", frame))
    if not _SHORTEST_FRAME <= len(packed) <= _LONGEST_FRAME:
        raise InvalidValueError(
            f"frame has {len(packed)} bytes, and one that can be looked at {_SHORTEST_FRAME} to {_LONGEST_FRAME}",
            argument="frame",
            value=packed[:_SHORTEST_FRAME],
        )
    return packed
