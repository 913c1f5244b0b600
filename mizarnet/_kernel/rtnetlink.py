# SPDX-License-Identifier: Apache-2.0
"""rtnetlink: a blocking socket of the calling thread's network namespace, and messages as bytes.

A message is a header of the kernel's and attributes, packed by whoever sends it. A library that knows them all by name
takes 0.1 s to import and 0.3 ms to write a request for a link; this takes 0.01 ms.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import os
import socket
import struct
import sys
from collections.abc import Container, Iterator, Sequence
from typing import NamedTuple, TypeAlias

from mizarnet._kernel.closing import Closing
from mizarnet._kernel.refusals import not_permitted
from mizarnet._model.layout import read_number
from mizarnet.errors import MizarnetError, NetlinkError

_SOL_NETLINK = 270
_NETLINK_EXT_ACK = 11
_NETLINK_GET_STRICT_CHK = 12
_SO_NETNS_COOKIE = 71
_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_NLMSGERR_ATTR_MSG = 1
_REQUEST, _ACK = 0x1, 0x4
_DUMP_INTERRUPTED = 0x10
_CAPPED, _ACK_TLVS = 0x100, 0x200
_RECEIVE_BYTES = 65536  # the kernel's dumps come in datagrams of at most 32 KiB
_DUMP_ATTEMPTS = 10
_WINDOW = 32
"""Requests of a datagram: the answers, each up to 4 KiB of the kernel's memory, wait in a buffer of 208 KiB."""
_SEQUENCES = 1 << 32

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_ERROR = struct.Struct("=i")  # struct nlmsgerr, less the header that it repeats
_ATTRIBUTE = struct.Struct("=HH")  # struct rtattr
HEADER_BYTES = _HEADER.size


class Rtm(enum.IntEnum):
    """Types of the requests that are used here."""

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
    DELNEIGH = 29
    GETNEIGH = 30
    DELQDISC = 37
    GETQDISC = 38
    GETTFILTER = 46
    GETNEIGHTBL = 66
    NEWNSID = 88
    GETNSID = 90


class Flag(enum.IntFlag):
    """Header flags of a request. ``NEW`` makes what is not there; an enumeration takes 5 µs to join two members."""

    NONE = 0
    DUMP = 0x300
    REPLACE = 0x100
    EXCLUSIVE = 0x200
    CREATE = 0x400
    NEW = CREATE | EXCLUSIVE


class Refusal(NamedTuple):
    """The kernel's no: what was tried, in words, the errno, and its own text.

    No exception: one that is kept in a variable of a frame that raises it keeps that frame alive.
    """

    operation: str
    errno: int
    said: str

    def error(self) -> MizarnetError:
        """The error to raise."""
        if self.errno == errno.EPERM:
            return not_permitted(self.operation, "CAP_NET_ADMIN", said=self.said)
        return NetlinkError(self.operation, errno=self.errno, kernel_message=self.said)


class Request(NamedTuple):
    """One of several requests that are sent together.

    Attributes:
        kind: Type of the message.
        body: The message without its header.
        flags: Header flags beside request and acknowledgement.
        reads: Whether the kernel answers with one message. Otherwise it acknowledges the request.
    """

    kind: Rtm
    body: bytes
    flags: Flag = Flag.NONE
    reads: bool = False


Answer: TypeAlias = bytes | Refusal
"""What became of one request of many: the message that the kernel answered, or its refusal."""


class Rtnl(Closing):
    """One netlink socket. Its requests meet the namespace it was opened in. Not thread-safe."""

    def __init__(self, protocol: int = socket.NETLINK_ROUTE) -> None:
        """Open it; ``protocol`` says what part of the kernel answers."""
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
        except OSError as error:
            raise NetlinkError("open a netlink socket", errno=error.errno or errno.EIO) from None
        # Text for refusals (4.12), and filters of a dump applied by the kernel (4.20).
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_GET_STRICT_CHK, 1)
        self._socket.bind((0, 0))
        self._sequence = 0

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def cookie(self) -> int:
        """The namespace's cookie, unique on this machine until reboot (kernel >= 5.14)."""
        return read_number(self._socket.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8))

    def request(self, operation: str, kind: int, body: bytes, flags: Flag = Flag.NONE) -> list[bytes]:
        """Send a request; the messages that the kernel answered, each with its header.

        Args:
            operation: What is tried, in words, for the error.
            kind: Type of the message.
            body: The message without its header.
            flags: Header flags beside request and acknowledgement.

        Raises:
            NetlinkError: The kernel refused; errno and its own text are in the error.
            PrivilegeError: CAP_NET_ADMIN over the namespace is missing.
        """
        for _ in range(_DUMP_ATTEMPTS):
            try:
                replies = self._exchange(operation, kind, body, flags)
            except MizarnetError:  # many of which are OSErrors, too
                raise
            except OSError as error:  # of the socket itself, such as ENOBUFS
                raise NetlinkError(operation, errno=error.errno or errno.EIO) from None
            if replies is not None:
                return replies
        raise NetlinkError(
            operation, errno=errno.EINTR, kernel_message="the table kept changing during the dump"
        )

    def request_each(
        self, operation: str, kind: Rtm, bodies: Sequence[bytes], *, reads: bool = False
    ) -> list[Answer]:
        """Send many requests, several to a datagram; the answer of each, in their order.

        A refusal ends none of the others, and is returned. Where answers were lost, their requests are sent again.

        Args:
            operation: What is tried, in words, for the errors.
            kind: Type of the messages.
            bodies: The messages without their headers.
            reads: Whether the kernel answers each with one message. Otherwise it acknowledges them; the answer of one
                that was carried out is the acknowledgement.

        Raises:
            NetlinkError: The socket failed.
        """
        answers: list[Answer] = []
        window = _WINDOW
        while len(answers) < len(bodies):
            some = bodies[len(answers) : len(answers) + window]
            try:
                answers += self._exchange_each(operation, [Request(kind, body, reads=reads) for body in some])
            except OSError as error:
                if error.errno != errno.ENOBUFS or window == 1:
                    raise NetlinkError(operation, errno=error.errno or errno.EIO) from None
                self._discard()
                window //= 2
        return answers

    def request_together(self, operation: str, *requests: Request) -> list[Answer]:
        """Send a few requests in one datagram, which the kernel carries out in their order; the answer of each.

        A refusal ends none of those behind it, and is returned.

        Args:
            operation: What is tried, in words, for the errors.
            requests: The requests.

        Raises:
            NetlinkError: The socket failed.
        """
        try:
            return [*self._exchange_each(operation, requests)]
        except OSError as error:
            raise NetlinkError(operation, errno=error.errno or errno.EIO) from None

    def _exchange_each(self, operation: str, requests: Sequence[Request]) -> Iterator[Answer]:
        numbers = self._take_numbers(len(requests))
        self._socket.send(
            b"".join(
                _message(kind, (_REQUEST if reads else _REQUEST | _ACK) | int(flags), number, body)
                for number, (kind, body, flags, reads) in zip(numbers, requests, strict=True)
            )
        )
        answers: dict[int, Answer] = {}
        while len(answers) < len(requests):
            for kind_of_reply, _, number, message in _split(self._socket.recv(_RECEIVE_BYTES)):
                if number in numbers:
                    refusal = _refusal(operation, message) if kind_of_reply == _NLMSG_ERROR else None
                    answers[number] = refusal or message
        return map(answers.__getitem__, numbers)

    def _discard(self) -> None:
        """Discard the answers that wait: as long as one does, the kernel drops all that it has no room for."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self._socket.recv(_RECEIVE_BYTES, socket.MSG_DONTWAIT)

    def _take_numbers(self, count: int) -> range:
        """Sequence numbers for so many requests; they begin anew before they no longer fit their field."""
        first = self._sequence + 1 if self._sequence + count < _SEQUENCES else 1
        self._sequence = first + count - 1
        return range(first, first + count)

    def _exchange(self, operation: str, kind: int, body: bytes, flags: Flag) -> list[bytes] | None:
        """The replies, or None when a dump was interrupted by a change and is inconsistent."""
        (number,) = self._take_numbers(1)
        self._socket.send(_message(kind, _REQUEST | _ACK | int(flags), number, body))
        replies: list[bytes] = []
        interrupted = 0
        while True:
            for kind_of_reply, flags_of_reply, sequence, message in _split(self._socket.recv(_RECEIVE_BYTES)):
                if sequence != number:
                    continue
                interrupted |= flags_of_reply & _DUMP_INTERRUPTED
                if kind_of_reply in (_NLMSG_ERROR, _NLMSG_DONE):
                    if (refusal := _refusal(operation, message)) is not None:
                        raise refusal.error()
                    return None if interrupted else replies
                replies.append(message)


def attributes(data: bytes, wanted: Container[int] | None = None, *, at: int = 0) -> dict[int, bytes]:
    """Attributes by their type.

    Args:
        data: The message, or the value of a nested attribute.
        wanted: Types to return; None: all.
        at: Where the first attribute begins.
    """
    found: dict[int, bytes] = {}
    unpack_from, head, end = _ATTRIBUTE.unpack_from, _ATTRIBUTE.size, len(data)
    while at + head <= end:
        length, kind = unpack_from(data, at)
        if wanted is None or kind in wanted:
            found[kind] = data[at + head : at + length]
        at += length + 3 & ~3
    return found


def attribute(kind: int, value: bytes) -> bytes:
    """An attribute, packed and padded."""
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, kind) + value + bytes(_aligned(length) - length)


def number(kind: int, value: int) -> bytes:
    """An attribute that is a ``__u32`` or an ``int``."""
    return attribute(kind, (value & 0xFFFFFFFF).to_bytes(4, sys.byteorder))


def byte(kind: int, value: int) -> bytes:
    """An attribute that is a ``__u8``."""
    return attribute(kind, bytes([value]))


def text(kind: int, value: str) -> bytes:
    """An attribute that is a text, with the zero byte at its end; ``value`` is decoded as names of files are."""
    return attribute(kind, os.fsencode(value) + b"\0")


def mac_address(kind: int, value: str) -> bytes:
    """An attribute that is a MAC address, given as ``"aa:bb:cc:dd:ee:ff"``."""
    return attribute(kind, bytes.fromhex(value.replace(":", "")))


def nested(kind: int, *members: bytes) -> bytes:
    """An attribute that has other ones as its value."""
    return attribute(kind, b"".join(members))


def _message(kind: int, flags: int, number: int, body: bytes) -> bytes:
    return _HEADER.pack(HEADER_BYTES + len(body), kind, flags, number, 0) + body


def _split(datagram: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """The messages of a datagram: type, flags and sequence number of each, and all of its bytes."""
    at = 0
    while at + HEADER_BYTES <= len(datagram):
        length, kind, flags, number, _ = _HEADER.unpack_from(datagram, at)
        yield kind, flags, number, datagram[at : at + length]
        at += _aligned(length)


def _aligned(length: int) -> int:
    return length + 3 & ~3


def _refusal(operation: str, message: bytes) -> Refusal | None:
    """What an error or done message says; None where it says that all went well."""
    (code,) = _ERROR.unpack_from(message, HEADER_BYTES)
    return None if code >= 0 else Refusal(operation, -code, _text(message))


def _text(message: bytes) -> str:
    """The kernel's own words in an error or done message (its extended acknowledgement)."""
    _, kind, flags, _, _ = _HEADER.unpack_from(message)
    if not flags & _ACK_TLVS:
        return ""
    at = HEADER_BYTES + _ERROR.size
    if kind == _NLMSG_ERROR:  # repeats the request, or its header alone
        length, *_ = _HEADER.unpack_from(message, at)
        at += HEADER_BYTES if flags & _CAPPED else _aligned(length)
    return attributes(message[at:]).get(_NLMSGERR_ATTR_MSG, b"").rstrip(b"\0").decode(errors="replace")
