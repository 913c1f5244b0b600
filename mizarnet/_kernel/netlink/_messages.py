# SPDX-License-Identifier: Apache-2.0
"""The one seam to pyroute2: its message classes write and read rtnetlink's bytes.

pyroute2 ships no types and is imported on first use only, because that takes about 0.2 s.
"""

from __future__ import annotations

import enum
import functools
import importlib
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, cast

import attrs

from mizarnet.errors import UnsupportedError

Attribute: TypeAlias = tuple[str, object]


class Rtm(enum.IntEnum):
    """Message types of rtnetlink that are used here."""

    NEWLINK = 16
    DELLINK = 17
    GETLINK = 18
    SETLINK = 19
    NEWADDR = 20
    DELADDR = 21
    GETADDR = 22
    NEWROUTE = 24
    DELROUTE = 25
    GETROUTE = 26
    NEWNSID = 88
    GETNSID = 90


class Flag(enum.IntFlag):
    """Header flags of a request. Every request also asks for an acknowledgement."""

    NONE = 0
    DUMP_INTERRUPTED = 0x10
    ACK_TLVS = 0x200
    DUMP = 0x300
    EXCLUSIVE = 0x200
    CREATE = 0x400


_REQUEST_AND_ACK = 0x5
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr

_CODECS: Mapping[int, tuple[str, str]] = {
    **dict.fromkeys((16, 17, 18, 19), ("pyroute2.netlink.rtnl.ifinfmsg", "ifinfmsg")),
    **dict.fromkeys((20, 21, 22), ("pyroute2.netlink.rtnl.ifaddrmsg", "ifaddrmsg")),
    **dict.fromkeys((24, 25, 26), ("pyroute2.netlink.rtnl.rtmsg", "rtmsg")),
    **dict.fromkeys((88, 90), ("pyroute2.netlink.rtnl.nsidmsg", "nsidmsg")),
}


class _Codec(Protocol):
    """What is used of pyroute2's ``nlmsg``."""

    data: bytearray

    def encode(self) -> None: ...
    def decode(self) -> None: ...
    def get_attr(self, attr: str) -> Any: ...
    def __setitem__(self, key: str, value: object) -> None: ...
    def __getitem__(self, key: str) -> Any: ...


class _CodecType(Protocol):
    def __call__(self, data: bytes | None = None) -> _Codec: ...


@functools.cache
def _codec(module: str, name: str) -> _CodecType:
    return cast(_CodecType, getattr(importlib.import_module(module), name))


@functools.cache
def prepare() -> None:
    """Import pyroute2, which takes a while: before a deadline runs, not within it."""
    for module, name in _CODECS.values():
        _codec(module, name)


def nested(*attributes: Attribute) -> dict[str, list[Attribute]]:
    """Return attributes in the form of an attribute's value."""
    return {"attrs": list(attributes)}


@attrs.frozen
class Request:
    """One rtnetlink request.

    Attributes:
        kind: Message type.
        fields: Fields of the fixed header behind the netlink header (ifinfomsg, ifaddrmsg, rtmsg).
        attributes: Attribute names of the kernel with their values, in order.
        flags: Header flags beside request and acknowledgement.
    """

    kind: Rtm
    fields: Mapping[str, int] = attrs.field(factory=dict[str, int])
    attributes: Sequence[Attribute] = ()
    flags: Flag = Flag.NONE

    def encode(self, sequence: int) -> bytes:
        """Return the message's bytes.

        Raises:
            UnsupportedError: This pyroute2 does not know one of the attributes.
        """
        message = _codec(*_CODECS[self.kind])()
        for name, value in self.fields.items():
            message[name] = value
        message["attrs"] = list(self.attributes)
        message["header"].update(
            type=int(self.kind), flags=_REQUEST_AND_ACK | int(self.flags), sequence_number=sequence, pid=0
        )
        message.encode()
        _require_written(message)
        return bytes(message.data)


def _require_written(message: Any) -> None:
    """Refuse what pyroute2 left out: it skips attributes that it does not know, without a word."""
    for cell in message["attrs"]:
        if not hasattr(cell, "get_value"):  # what is written was replaced by pyroute2's own object
            raise UnsupportedError(f"pyroute2 cannot write {cell[0]}", feature=str(cell[0]), hint="update it")
        value = cell.get_value()
        if isinstance(value, dict) and "attrs" in value:
            _require_written(cast(object, value))


class Reply:
    """A message, or a nested attribute, that came from the kernel."""

    def __init__(self, message: _Codec) -> None:
        self._message = message

    def field(self, name: str) -> int:
        """Return a field of the fixed header."""
        return int(self._message[name])

    def number(self, name: str) -> int | None:
        """Return a numeric attribute; None when absent."""
        value = self._message.get_attr(name)
        return None if value is None else int(value)

    def text(self, name: str) -> str | None:
        """Return an attribute that holds text, an address or a mode's name; None when absent."""
        value = self._message.get_attr(name)
        return None if value is None else str(value)

    def nested(self, name: str) -> Reply | None:
        """Return a nested attribute; None when absent or of a kind pyroute2 cannot read."""
        value = self._message.get_attr(name)
        return Reply(cast(_Codec, value)) if hasattr(value, "get_attr") else None

    def has(self, name: str) -> bool:
        """Tell whether the attribute is present."""
        return self._message.get_attr(name) is not None


def decode(kind: int, data: bytes) -> Reply:
    """Read one message of the kernel."""
    message = _codec(*_CODECS[kind])(data)
    message.decode()
    return Reply(message)


def decode_error_text(data: bytes) -> str:
    """Return the extended acknowledgement's text of an error or done message; empty when there is none."""
    message = _codec("pyroute2.netlink", "nlmsgerr")(data)
    message.decode()
    return str(message.get_attr("NLMSGERR_ATTR_MSG") or "")


def split(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Yield type, flags, sequence number and bytes of each message in a datagram."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
        yield kind, flags, sequence, data[offset : offset + length]
        offset += (length + 3) & ~3
