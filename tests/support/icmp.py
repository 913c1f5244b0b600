# SPDX-License-Identifier: Apache-2.0
"""ICMP of both families: echo requests, and the errors that come back."""

from __future__ import annotations

import errno
import itertools
import os
import select
import socket
import struct
import time

import attrs

from tests.frames import icmp, u16
from tests.support.namespace import SOCKET_SECONDS, Namespace

IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, PMTUDISC_DO = 10, 23, 2
IP_RECVERR, IPV6_RECVERR = 11, 25
_sequence = itertools.count(1)


def family_of(address: str) -> int:
    """AF_INET or AF_INET6."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def level_of(address: str) -> int:
    """IPPROTO_IP or IPPROTO_IPV6."""
    return socket.IPPROTO_IPV6 if ":" in address else socket.IPPROTO_IP


def _raw_socket(source: Namespace, address: str) -> socket.socket:
    protocol = socket.IPPROTO_ICMPV6 if ":" in address else socket.IPPROTO_ICMP
    raw = source.socket(family_of(address), socket.SOCK_RAW, protocol)
    # The kernel keeps a mirror image of what it is told here, so that no other echo reply fills the queue.
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    return raw


def echo(
    source: Namespace, address: str, *, size: int = 56, whole: bool = False, timeout: float = SOCKET_SECONDS
) -> bool:
    """Whether one echo request is answered, with its own bytes, within ``timeout`` seconds.

    ``whole`` forbids fragments: a request that does not fit raises OSError with EMSGSIZE.
    """
    v6 = ":" in address
    # An id of its own: a tracked connection keeps the translation that it began with.
    rest = os.urandom(2) + u16(next(_sequence) & 0xFFFF) + os.urandom(size)
    request = icmp(128 if v6 else 8, rest)  # for IPv6 the kernel makes the checksum
    with _raw_socket(source, address) as raw:
        if whole:
            option = IPV6_MTU_DISCOVER if v6 else IP_MTU_DISCOVER
            raw.setsockopt(level_of(address), option, PMTUDISC_DO)
        raw.connect((address, 0))
        try:
            raw.send(request)
        except OSError as refused:
            if (
                refused.errno != errno.ENOBUFS
            ):  # with IPv6 a sender hears that its own agent dropped the packet
                raise
        return _answered(raw, 129 if v6 else 0, rest, timeout)


def _answered(raw: socket.socket, kind: int, rest: bytes, timeout: float) -> bool:
    deadline = time.monotonic() + timeout
    while (left := deadline - time.monotonic()) > 0 and select.select([raw], [], [], left)[0]:
        packet = raw.recv(1 << 16)
        message = packet if raw.family == socket.AF_INET6 else packet[20:]
        if message[0] == kind and message[4:] == rest:
            return True
    return False


def assert_silence(source: Namespace, address: str) -> None:
    """Nobody may answer. Half a second is plenty of time for an answer; a counter should tell why there is none."""
    assert not echo(source, address, timeout=0.5), f"{address} answers {source.name}"


# -- errors ------------------------------------------------------------------------------------------------


@attrs.frozen
class IcmpError:
    """What a socket was told about a datagram of its own."""

    errno: int
    type: int
    code: int
    offender: str


def datagram_error(source: Namespace, address: str, *, port: int = 9, hops: int = 64) -> IcmpError:
    """The ICMP error that one datagram brings back."""
    level, v6 = level_of(address), ":" in address
    with source.socket(family_of(address), socket.SOCK_DGRAM) as sender:
        sender.setsockopt(level, IPV6_RECVERR if v6 else IP_RECVERR, 1)
        sender.setsockopt(level, socket.IPV6_UNICAST_HOPS if v6 else socket.IP_TTL, hops)
        sender.sendto(b"is anybody there?", (address, port))
        poll = select.poll()
        poll.register(sender, 0)  # POLLERR comes unasked
        assert poll.poll(1000 * SOCKET_SECONDS), f"no ICMP error from the way to {address}"
        _, ancillary, _, _ = sender.recvmsg(512, 512, socket.MSG_ERRQUEUE)
    # struct sock_extended_err, then the sockaddr of who reported it
    number, _, kind, code, _, _, _, _ = struct.unpack_from("=IBBBBIIH", ancillary[0][2])
    offender = ancillary[0][2][24:40] if v6 else ancillary[0][2][20:24]
    return IcmpError(number, kind, code, socket.inet_ntop(family_of(address), offender))
