# SPDX-License-Identifier: Apache-2.0
"""A blocking rtnetlink socket of the calling thread's network namespace.

pyroute2's own sockets run an event loop per thread: 0.5 to 1 ms to open and six descriptors, against 0.01 ms
and one. So the socket is a plain one, and pyroute2 encodes and decodes the messages.
"""

from __future__ import annotations

import errno
import socket
import struct
import sys

from mizarnet._kernel.netlink._messages import Flag, Reply, Request, decode, decode_error_text, split
from mizarnet.errors import MizarnetError, NetlinkError, PrivilegeError

_SOL_NETLINK = 270
_NETLINK_EXT_ACK = 11
_NETLINK_GET_STRICT_CHK = 12
_SO_NETNS_COOKIE = 71
_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_RECEIVE_BYTES = 65536  # the kernel's dumps come in datagrams of at most 32 KiB
_DUMP_ATTEMPTS = 10


class Rtnl:
    """One NETLINK_ROUTE socket. Its requests meet the namespace it was opened in. Not thread-safe."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        # Text for refusals (4.12), and filters of a dump applied by the kernel (4.20).
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_GET_STRICT_CHK, 1)
        self._socket.bind((0, 0))
        self._sequence = 0

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def cookie(self) -> int:
        """Return the namespace's cookie, unique on this machine until reboot (kernel >= 5.14)."""
        raw = self._socket.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8)
        return int.from_bytes(raw, sys.byteorder)

    def request(self, operation: str, request: Request) -> list[Reply]:
        """Send a request and return what the kernel answered.

        Args:
            operation: What is tried, in words, for the error.
            request: The message.

        Raises:
            NetlinkError: The kernel refused; errno and its own text are in the error.
            PrivilegeError: CAP_NET_ADMIN over the namespace is missing.
        """
        for _ in range(_DUMP_ATTEMPTS):
            replies = self._exchange(operation, request)
            if replies is not None:
                return replies
        raise NetlinkError(
            operation, errno=errno.EINTR, kernel_message="the table kept changing during the dump"
        )

    def _exchange(self, operation: str, request: Request) -> list[Reply] | None:
        """Return the replies, or None when a dump was interrupted by a change and is inconsistent."""
        self._sequence += 1
        self._socket.send(request.encode(self._sequence))
        replies: list[Reply] = []
        interrupted = False
        while True:
            for kind, flags, sequence, message in split(self._socket.recv(_RECEIVE_BYTES)):
                if sequence != self._sequence:
                    continue
                if kind in (_NLMSG_ERROR, _NLMSG_DONE):
                    _raise_refusal(operation, flags, message)
                    return None if interrupted or flags & Flag.DUMP_INTERRUPTED else replies
                interrupted = interrupted or bool(flags & Flag.DUMP_INTERRUPTED)
                replies.append(decode(kind, message))


def _raise_refusal(operation: str, flags: int, message: bytes) -> None:
    (code,) = struct.unpack_from("=i", message, 16)
    if code < 0:
        raise _refusal(operation, -code, decode_error_text(message) if flags & Flag.ACK_TLVS else "")


def _refusal(operation: str, number: int, text: str) -> MizarnetError:
    if number == errno.EPERM:
        said = f" ({text})" if text else ""
        return PrivilegeError(
            f"{operation}: not permitted, missing CAP_NET_ADMIN{said}",
            missing=("CAP_NET_ADMIN",),
            hint="run as root, or grant it",
        )
    return NetlinkError(operation, errno=number, kernel_message=text)
