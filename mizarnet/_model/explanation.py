# SPDX-License-Identifier: Apache-2.0
"""What became, or would become, of a packet, step by step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from typing import Any, Self, cast

import attrs

from mizarnet._model.arguments import IPAddress, check_int
from mizarnet._model.described import Described
from mizarnet._model.enumerations import Limit, Verdict
from mizarnet._model.html import escaped, table
from mizarnet._model.public import public
from mizarnet.errors import InvalidTypeError, InvalidValueError

_RANGES = {"port": (1, 65535), "vni": (1, Limit.VNI_MAX), "length": (0, 2**17), "ttl": (1, 255)}
"""What numbers of a packet between two hosts can be. The outer packet of one of 65,535 bytes is longer than that."""
_FRAME_BYTES = 14, 16000  # that the kernel runs a program on
_MARKS = {True: "ok", False: "x", None: "?"}


@public
@attrs.frozen
class Step(Described):
    """One thing that was looked at on the way of a packet.

    Attributes:
        at: Host that it was looked at on.
        looked_at: What it was, such as ``"route"``, ``"agent"`` or ``"underlay"``.
        matched: What was found there.
        ok: Whether the packet goes on from there; None: that cannot be known from here.
        verdict: Verdict of the program that was walked; None for all else.
        remark: What is not as it should be, though the packet goes on; else empty.
        remedy: What to do about it, or about the packet's end; else empty.
    """

    at: str
    looked_at: str
    matched: str
    ok: bool | None = True
    verdict: Verdict | None = None
    remark: str = ""
    remedy: str = ""

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], /) -> Self:
        """A step from what :meth:`to_dict` made of it.

        Raises:
            InvalidTypeError: It is no mapping, or a member of it has the wrong type.
            InvalidValueError: A member is missing, or no verdict has that name.
        """
        texts = {
            name: _member(data, name, str) for name in ("at", "looked_at", "matched", "remark", "remedy")
        }
        ok, verdict = _present(data, "ok"), _present(data, "verdict")
        if ok is not None and not isinstance(ok, bool):
            raise InvalidTypeError(f"ok must be a bool or None, not {type(ok).__name__}", argument="ok")
        return cls(ok=ok, verdict=None if verdict is None else _verdict(verdict), **texts)

    def __str__(self) -> str:
        found = f"{self.verdict.name}   {self.matched}" if self.verdict is not None else self.matched
        lines = [f" {_MARKS[self.ok]:<2} {self.at}  {self.looked_at}: {found}"]
        if self.remark:
            lines.append(f"    but  {self.remark}")
        if self.ok is not False and self.remedy:
            lines.append(f"    try  {self.remedy}")
        return "\n".join(lines)


@public
@attrs.frozen
class Crossing(Described):
    """A packet between two hosts, as one of the two sees it.

    Attributes:
        encap: Encapsulation, ``"vxlan"`` or ``"geneve"``.
        port: UDP port of the tunnel.
        source: Outer source address.
        destination: Outer destination address; on the host that it arrives at, the tunnel's.
        vni: VNI of the tenant network.
        length: Length of the outer packet in bytes; 0 on the host that it arrives at.
        ttl: TTL or hop limit of the outer packet.
        macs: MAC addresses, as text. Of the host that it leaves: that of the destination, if it is a neighbour and
            known. Of the host that it arrives at: those of the devices with the destination address.
        frame: The inner frame, from its Ethernet header on, in hexadecimal.
    """

    encap: str
    port: int
    source: IPAddress
    destination: IPAddress
    vni: int
    length: int
    ttl: int
    macs: tuple[str, ...]
    frame: str

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], /) -> Self:
        """A crossing from what :meth:`to_dict` made of it.

        Raises:
            InvalidTypeError: It is no mapping, or a member of it has the wrong type.
            InvalidValueError: A member is missing, or has a value that no packet between two hosts can have.
        """
        encap, frame = (_member(data, name, str) for name in ("encap", "frame"))
        numbers = {
            name: check_int(_member(data, name, int), argument=name, low=low, high=high)
            for name, (low, high) in _RANGES.items()
        }
        macs = tuple(map(str, cast("list[object]", _member(data, "macs", list))))
        source, destination = _address(data, "source"), _address(data, "destination")
        if source.version != destination.version:
            text = "source and destination are of two IP versions"
            raise InvalidValueError(text, argument="destination", value=str(destination))
        _refuse_frame(frame)
        return cls(encap=encap, source=source, destination=destination, macs=macs, frame=frame, **numbers)


@public
@attrs.frozen
class Explanation(Described):
    """What would become of a packet, and why. It is true if nothing is in its way that can be known.

    Attributes:
        steps: What was looked at, in the packet's order. A step that ends its way is the last.
        left: The packet as it leaves for another host; None: it does not.
        arrived: The packet as it came from another host; None: it did not.
    """

    steps: tuple[Step, ...]
    left: Crossing | None = None
    arrived: Crossing | None = None

    _DESCRIBED = ("ok", "verdict", "cause", "remedy", "at", "page", "steps", "left", "arrived")

    @property
    def ok(self) -> bool:
        """Whether no step ends the packet's way. A step that cannot be looked at from here does not."""
        return self._end is None

    @property
    def verdict(self) -> Verdict | None:
        """Verdict that ended its way, or the last one on it; None: no program saw it, or it ended elsewhere."""
        if self._end is not None:
            return self._end.verdict
        return next((step.verdict for step in reversed(self.steps) if step.verdict is not None), None)

    @property
    def cause(self) -> str:
        """What ended its way; empty if nothing did."""
        return "" if self._end is None else f"{self._end.looked_at}: {self._end.matched}"

    @property
    def remedy(self) -> str:
        """What to do about it; empty if nothing ended its way."""
        return "" if self._end is None else self._end.remedy

    @property
    def at(self) -> str:
        """Host that its way ends on."""
        return self.steps[-1].at if self.steps else ""

    @property
    def page(self) -> str:
        """Path of the page about the verdict, in the source tree; empty without a verdict."""
        return "" if self.verdict is None else self.verdict.page

    @property
    def _end(self) -> Step | None:
        return next((step for step in self.steps if step.ok is False), None)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], /) -> Self:
        """An explanation from what :meth:`to_dict` made of it, on this or another host.

        Raises:
            InvalidTypeError: It is no mapping, or a member of it has the wrong type.
            InvalidValueError: A member is missing, or has a value that it cannot have.
        """
        steps = cast("list[Mapping[str, Any]]", _member(data, "steps", list))
        if not steps:
            raise InvalidValueError("steps: an explanation has one at least", argument="steps", value=steps)
        walked = tuple(map(Step.from_dict, steps))
        left, arrived = (
            None if _present(data, name) is None else Crossing.from_dict(data[name])
            for name in ("left", "arrived")
        )
        return cls(walked, left, arrived)

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        lines = [str(step) for step in self.steps]
        if not self.ok:
            page = f"    docs  {self.page}" if self.page else ""
            lines.append(f"    try  {self.remedy or 'nothing that is known from here'}{page}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<Explanation {'ok' if self.ok else f'{self.at}: {self.cause}'}>"

    def _repr_html_(self) -> str:
        header = ("", "host", "looked at", "verdict", "found", "remark")
        rows = [
            (
                _MARKS[step.ok],
                step.at,
                step.looked_at,
                "" if step.verdict is None else step.verdict.name,
                step.matched,
                step.remark,
            )
            for step in self.steps
        ]
        caption = "The packet arrives, as far as is known" if self.ok else self.cause
        shown = table(caption, header, rows, marked={at for at, s in enumerate(self.steps) if s.ok is False})
        return shown + ("" if self.ok else f"<p>{escaped(self.remedy)}</p>")


def _present(data: object, name: str) -> Any:
    """A member of any type, or None, which must be there."""
    if not isinstance(data, Mapping):
        raise InvalidTypeError(f"data must be a mapping, not {type(data).__name__}", argument="data")
    members = cast("Mapping[str, Any]", data)
    if name not in members:
        raise InvalidValueError(f"data has no {name!r}", argument="data", value=[*members])
    return members[name]


def _member(data: object, name: str, kind: type) -> Any:
    value = _present(data, name)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise InvalidTypeError(f"{name} must be {kind.__name__}, not {type(value).__name__}", argument=name)
    return value


def _verdict(name: object) -> Verdict:
    found = [each for each in Verdict if each.name.lower() == name]
    if not found:
        raise InvalidValueError(f"there is no verdict {name!r}", argument="verdict", value=name)
    return found[0]


def _refuse_frame(text: str) -> None:
    """Raise ``InvalidValueError`` for what is no frame in hexadecimal, or longer than a program can be run on."""
    try:
        length = len(bytes.fromhex(text))
    except ValueError:
        length = 0
    low, high = _FRAME_BYTES
    if not low <= length <= high:
        raise InvalidValueError(
            f"frame must be {low} to {high} bytes in hexadecimal", argument="frame", value=text[: 2 * low]
        )


def _address(data: Mapping[str, Any], name: str) -> IPAddress:
    text = _member(data, name, str)
    try:
        return ip_address(text)
    except ValueError:
        raise InvalidValueError(f"{name} {text!r} is no address", argument=name, value=text) from None


def joined(parts: Iterable[Explanation]) -> Explanation:
    """The explanations of a packet on several hosts, in its order, as one."""
    given = list(parts)
    steps = tuple(step for part in given for step in part.steps)
    end = next((at for at, step in enumerate(steps) if step.ok is False), len(steps))
    return Explanation(
        steps[: end + 1], given[-1].left if given else None, given[0].arrived if given else None
    )
