# SPDX-License-Identifier: Apache-2.0
"""What became of one frame, as a program told it, and which frames a reader wants."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final, NamedTuple

import attrs

from mizarnet._model import arguments, layouts
from mizarnet._model.arguments import IPAddress
from mizarnet._model.codec import ip_fields, ip_from
from mizarnet._model.described import Described
from mizarnet._model.enumerations import EventFlag, Program, Verdict, Wish
from mizarnet._model.public import public
from mizarnet._model.question import OfEndpoint
from mizarnet._model.specs import EndpointSpec
from mizarnet.errors import InvalidTypeError, InvalidValueError

EVENT_BYTES: Final = layouts.EVENT.size
"""Bytes of an event as programs tell it."""
_VERDICTS = frozenset(Verdict)
_MOST_SAMPLED = 2**32 - 1
_IPV4, _IPV6, _ARP = 0x0800, 0x86DD, 0x0806
_ICMPV6, _NO_PROTOCOL = 58, 256
_NAMES = {1: "icmp", 6: "tcp", 17: "udp", _ICMPV6: "icmp"}
_WITH_PORTS = ("tcp", "udp")
_ND_TYPES = range(133, 138)
_PORTS = struct.Struct("!HH")


class Whose(NamedTuple):
    """The endpoint that an event is of.

    Attributes:
        name: Name of the endpoint.
        labels: Labels of the endpoint.
    """

    name: str
    labels: Mapping[str, str]


@public
@attrs.frozen
class Event(Described):
    """What became of one frame.

    Attributes:
        at: Host that it was seen on: the name of its network namespace, or of the machine.
        time: Moment at which the verdict was counted, in UTC. It becomes a date when it is read: a clock that was set
            or a machine that slept meanwhile shifts it.
        program: Program that decided.
        verdict: Verdict of the program.
        vni: VNI of the tenant network; None: none is known.
        endpoint: Name of the endpoint of this host that the verdict counts for: of the agent the sender, of the others
            the receiver. None: it counts for none, or the endpoint is gone.
        source: Source address, of ARP that of the asker; None: there is none, or it cannot be read.
        destination: Destination address, of ARP the one that is asked for.
        protocol: What the packet carries: ``"tcp"``, ``"udp"``, ``"icmp"``, ``"nd"``, ``"arp"``, else its number as
            text; None: it has none, as a later fragment, or cannot be read.
        source_port: Source port of TCP or UDP; None: there is none, or it is not among the bytes of ``data``.
        destination_port: Destination port, as the source port.
        length: Length of the frame in bytes, as it is counted.
        data: First bytes of the frame as the program left it, at most 128.
        claimed: Whether nobody proved the VNI: a stranger wrote it, or it is that of a MAC that anybody could use.
        labels: Labels of the endpoint.
    """

    at: str
    time: datetime
    program: Program
    verdict: Verdict
    vni: int | None
    endpoint: str | None
    source: IPAddress | None
    destination: IPAddress | None
    protocol: str | None
    source_port: int | None
    destination_port: int | None
    length: int
    data: bytes = attrs.field(repr=False)
    claimed: bool = False
    labels: Mapping[str, str] = attrs.field(factory=dict[str, str], repr=False, hash=False)

    def to_dict(self) -> dict[str, object]:
        """The attributes in a form that JSON can hold: ``data`` in hexadecimal, ``time`` as ISO 8601 has it."""
        return {**super().to_dict(), "time": self.time.isoformat()}

    def __str__(self) -> str:
        whose = f" {self.endpoint}" if self.endpoint else ""
        vni = "" if self.vni is None else f" VNI {self.vni}{' (claimed)' if self.claimed else ''}"
        way = f" {self.source or '?'} -> {self.destination or '?'}" if self.source or self.destination else ""
        port = "" if self.destination_port is None else f" port {self.destination_port}"
        carried = f" {self.protocol}{port}" if self.protocol else ""
        program, verdict = self.program.name.lower(), self.verdict.name
        return f"{self.time:%H:%M:%S.%f} {self.at} {program} {verdict}{vni}{whose}{way}{carried} {self.length} bytes"

    @property
    def comment(self) -> str:
        """What a capture file says beside the frame."""
        parts = [f"{self.program.name.lower()}: {self.verdict.name}"]
        if self.vni is not None:
            parts.append(f"VNI {self.vni}{' (claimed)' if self.claimed else ''}")
        if self.endpoint is not None:
            parts.append(f"endpoint {self.endpoint}")
        return f"{', '.join(parts)}. {self.verdict.cause}"


def unpack_event(
    data: bytes, *, at: str, date: Callable[[int], datetime], whose: Callable[[int], Whose | None]
) -> Event | None:
    """An event of a packed ``mzn_event``; None: programs of a newer version have a verdict that this one does not know.

    Args:
        data: Packed event.
        at: Name of the host.
        date: Date of a moment of the kernel's clock, in nanoseconds.
        whose: Endpoint of an instance; None: it is gone.
    """
    found = layouts.Event.unpack(data)
    if found.verdict not in _VERDICTS:
        return None
    frame = found.data[: found.captured]
    protocol = _protocol(found, frame)
    ports = _ports(frame, found.payload) if protocol in _WITH_PORTS else (None, None)
    owner = whose(found.endpoint) if found.endpoint else None
    return Event(
        at=at,
        time=date(found.time),
        program=Program(found.program),
        verdict=Verdict(found.verdict),
        vni=found.vni or None,
        endpoint=owner.name if owner else None,
        source=ip_from(found.source),
        destination=ip_from(found.destination),
        protocol=protocol,
        source_port=ports[0],
        destination_port=ports[1],
        length=found.length,
        data=frame,
        claimed=bool(found.flags & EventFlag.CLAIMED),
        labels=owner.labels if owner else {},
    )


def _protocol(found: layouts.Event, frame: bytes) -> str | None:
    if found.ethertype == _ARP:
        return "arp"
    if found.ethertype not in (_IPV4, _IPV6) or not found.source.family or found.protocol == _NO_PROTOCOL:
        return None
    if found.protocol == _ICMPV6 and frame[found.payload : found.payload + 1] in map(_byte, _ND_TYPES):
        return "nd"
    return _NAMES.get(found.protocol, str(found.protocol))


def _byte(number: int) -> bytes:
    return bytes((number,))


def _ports(frame: bytes, at: int) -> tuple[int, int] | tuple[None, None]:
    return _PORTS.unpack_from(frame, at) if len(frame) >= at + _PORTS.size else (None, None)


def name_of(endpoint: object, *, argument: str) -> str:
    """Name of an endpoint that a caller gave as a handle or a name; raises ``InvalidTypeError`` for anything else."""
    if isinstance(endpoint, str):
        return arguments.check_str(endpoint, argument=argument)
    if isinstance(endpoint, OfEndpoint) and isinstance(endpoint.spec, EndpointSpec):
        return endpoint.spec.name
    text = f"{argument} must be an Endpoint or its name, not {type(endpoint).__name__}"
    raise InvalidTypeError(text, argument=argument)


@attrs.frozen(kw_only=True)
class Interest:
    """Which frames a reader wants.

    Attributes:
        drops: Whether it wants those that were dropped.
        passes: Whether it wants those that went on.
        vni: The one VNI; None: any.
        address: Address of either side; None: any.
        sample: One of so many is wanted, on each CPU.
    """

    drops: bool
    passes: bool
    vni: int | None
    address: IPAddress | None
    sample: int

    @classmethod
    def check(
        cls, *, drops: bool, passes: bool, vni: int | None, address: str | IPAddress | None, sample: int
    ) -> Interest:
        """The interest of a call's arguments.

        Raises:
            InvalidTypeError: An argument has the wrong type.
            InvalidValueError: An argument cannot be right, or nothing at all is wanted.
        """
        made = cls(
            drops=arguments.check_bool(drops, argument="drops"),
            passes=arguments.check_bool(passes, argument="passes"),
            vni=None if vni is None else arguments.check_vni(vni),
            address=None if address is None else arguments.check_address(address, argument="address"),
            sample=arguments.check_int(sample, argument="sample", low=1, high=_MOST_SAMPLED),
        )
        if not (drops or passes):
            raise InvalidValueError(
                "events of neither drops nor passes are none",
                argument="drops",
                value=drops,
                hint="passes=True",
            )
        return made

    @property
    def wishes(self) -> int:
        """Bits of ``Wish``."""
        return Wish.DROPS * self.drops | Wish.PASSES * self.passes


def reader(interest: Interest, *, owner: int, slot: int = 0, endpoint: int = 0) -> layouts.Reader:
    """A reader without a lease.

    Args:
        interest: What it wants.
        owner: Random number of the reader.
        slot: Slot of the one endpoint that it wants.
        endpoint: Instance of that endpoint; 0: of any.
    """
    return layouts.Reader(
        until=0,
        owner=owner,
        endpoint=endpoint,
        slot=slot,
        wishes=interest.wishes,
        vni=interest.vni or 0,
        sample=interest.sample,
        ip=ip_fields(interest.address),
    )
