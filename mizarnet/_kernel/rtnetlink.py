# SPDX-License-Identifier: Apache-2.0
"""rtnetlink: a blocking socket of the calling thread's network namespace, and messages as bytes.

pyroute2's own sockets run an event loop per thread: 0.5 to 1 ms to open and six descriptors, against 0.01 ms and one.
"""

from __future__ import annotations

import enum
import errno
import socket
import struct
from collections.abc import Iterator

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
_REQUEST_AND_ACK = 0x5
_DUMP_INTERRUPTED = 0x10
_CAPPED, _ACK_TLVS = 0x100, 0x200
_RECEIVE_BYTES = 65536  # the kernel's dumps come in datagrams of at most 32 KiB
_DUMP_ATTEMPTS = 10

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
    GETROUTE = 26
    GETQDISC = 38
    GETTFILTER = 46
    NEWNSID = 88
    GETNSID = 90


class Flag(enum.IntFlag):
    """Header flags of a request. Every request also asks for an acknowledgement."""

    NONE = 0
    DUMP = 0x300
    EXCLUSIVE = 0x200
    CREATE = 0x400


class Rtnl(Closing):
    """One NETLINK_ROUTE socket. Its requests meet the namespace it was opened in. Not thread-safe."""

    def __init__(self) -> None:
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        except OSError as error:
            raise NetlinkError("open an rtnetlink socket", errno=error.errno or errno.EIO) from None
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

    def request(self, operation: str, kind: Rtm, body: bytes, flags: Flag = Flag.NONE) -> list[bytes]:
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

    def _exchange(self, operation: str, kind: Rtm, body: bytes, flags: Flag) -> list[bytes] | None:
        """The replies, or None when a dump was interrupted by a change and is inconsistent."""
        self._sequence += 1
        length = HEADER_BYTES + len(body)
        self._socket.send(_HEADER.pack(length, kind, _REQUEST_AND_ACK | flags, self._sequence, 0) + body)
        replies: list[bytes] = []
        interrupted = 0
        while True:
            for message in _split(self._socket.recv(_RECEIVE_BYTES)):
                _, kind_of_reply, flags_of_reply, sequence, _ = _HEADER.unpack_from(message)
                if sequence != self._sequence:
                    continue
                interrupted |= flags_of_reply & _DUMP_INTERRUPTED
                if kind_of_reply in (_NLMSG_ERROR, _NLMSG_DONE):
                    _raise_refusal(operation, message)
                    return None if interrupted else replies
                replies.append(message)


def attributes(data: bytes) -> dict[int, bytes]:
    """Attributes by their type; ``data`` begins with the first of them."""
    found: dict[int, bytes] = {}
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        found[kind] = data[at + _ATTRIBUTE.size : at + length]
        at += _aligned(length)
    return found


def _split(datagram: bytes) -> Iterator[bytes]:
    at = 0
    while at + HEADER_BYTES <= len(datagram):
        length, *_ = _HEADER.unpack_from(datagram, at)
        yield datagram[at : at + length]
        at += _aligned(length)


def _aligned(length: int) -> int:
    return length + 3 & ~3


def _raise_refusal(operation: str, message: bytes) -> None:
    (code,) = _ERROR.unpack_from(message, HEADER_BYTES)
    if code >= 0:
        return
    said = _text(message)
    if code == -errno.EPERM:
        raise not_permitted(operation, "CAP_NET_ADMIN", said=said)
    raise NetlinkError(operation, errno=-code, kernel_message=said)


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
