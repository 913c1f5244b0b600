# SPDX-License-Identifier: Apache-2.0
"""The one seam to pyroute2: its message classes write and read rtnetlink's bytes.

Links and addresses are read without it. pyroute2 ships no types and is imported on first use only, because that takes
about 0.2 s.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, cast

import attrs

from mizarnet._kernel.rtnetlink import HEADER_BYTES, Flag, Rtm, Rtnl
from mizarnet.errors import UnsupportedError

Attribute: TypeAlias = tuple[str, object]

_CODECS: Mapping[Rtm, str] = {
    **dict.fromkeys((Rtm.NEWLINK, Rtm.DELLINK, Rtm.GETLINK, Rtm.SETLINK), "ifinfmsg"),
    **dict.fromkeys((Rtm.NEWADDR, Rtm.DELADDR), "ifaddrmsg"),
    **dict.fromkeys((Rtm.NEWROUTE, Rtm.DELROUTE, Rtm.GETROUTE), "rtmsg"),
    **dict.fromkeys((Rtm.NEWNSID, Rtm.GETNSID), "nsidmsg"),
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
def _codec(name: str) -> _CodecType:
    return cast(_CodecType, getattr(importlib.import_module(f"pyroute2.netlink.rtnl.{name}"), name))


@functools.cache
def prepare() -> None:
    """Import pyroute2, which takes a while: before a deadline runs, not within it."""
    for name in _CODECS.values():
        _codec(name)


def nested(*attributes: Attribute) -> dict[str, list[Attribute]]:
    """Attributes in the form of an attribute's value."""
    return {"attrs": list(attributes)}


@attrs.frozen
class Request:
    """One rtnetlink request.

    Attributes:
        kind: Type of the message.
        fields: Fields of the fixed header behind the netlink header (ifinfomsg, ifaddrmsg, rtmsg).
        attributes: Attribute names of the kernel with their values, in order.
        flags: Header flags beside request and acknowledgement.
        packed: Further attributes, packed already: those that pyroute2 knows and writes wrongly.
    """

    kind: Rtm
    fields: Mapping[str, int] = attrs.field(factory=dict[str, int])
    attributes: Sequence[Attribute] = ()
    flags: Flag = Flag.NONE
    packed: bytes = b""

    def send(self, socket: Rtnl, operation: str) -> list[Reply]:
        """The replies of the kernel; see `Rtnl.request`.

        Raises:
            UnsupportedError: This pyroute2 does not know one of the attributes.
        """
        replies = socket.request(operation, self.kind, self.encode(), self.flags)
        return [self._decode(message) for message in replies]

    def any(self, socket: Rtnl, operation: str, fits: Callable[[bytes], bool]) -> bool:
        """Whether one of the replies fits, judged by its bytes; raises as `send` does."""
        return any(map(fits, socket.request(operation, self.kind, self.encode(), self.flags)))

    def encode(self) -> bytes:
        """The message without its header; raises ``UnsupportedError`` as `send` does."""
        message = _codec(_CODECS[self.kind])()
        for name, value in self.fields.items():
            message[name] = value
        message["attrs"] = list(self.attributes)
        message.encode()
        _require_written(message)
        return bytes(message.data[HEADER_BYTES:]) + self.packed

    def _decode(self, data: bytes) -> Reply:
        message = _codec(_CODECS[self.kind])(data)
        message.decode()
        return Reply(message)


def _require_written(message: Any) -> None:
    """Refuse what pyroute2 left out: it skips attributes that it does not know, without a word."""
    for cell in message["attrs"]:
        if not hasattr(cell, "get_value"):  # what is written was replaced by pyroute2's own object
            raise UnsupportedError(f"pyroute2 cannot write {cell[0]}", feature=str(cell[0]), hint="update it")
        value = cell.get_value()
        if isinstance(value, dict) and "attrs" in value:
            _require_written(cast(object, value))


class Reply:
    """A message that came from the kernel."""

    def __init__(self, message: _Codec) -> None:
        self._message = message

    def field(self, name: str) -> int:
        """A field of the fixed header."""
        return int(self._message[name])

    def number(self, name: str) -> int | None:
        """A numeric attribute; None when absent."""
        value = self._message.get_attr(name)
        return None if value is None else int(value)

    def text(self, name: str) -> str | None:
        """An attribute that holds text, an address or a mode's name; None when absent."""
        value = self._message.get_attr(name)
        return None if value is None else str(value)
