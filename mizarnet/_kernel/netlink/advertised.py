# SPDX-License-Identifier: Apache-2.0
"""Links whose IPv6 comes from router advertisements."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

from mizarnet._kernel.netlink.session import Session
from mizarnet._kernel.rtnetlink import HEADER_BYTES, Rtm, attributes
from mizarnet._model.layout import read_number

_RTMSG = struct.Struct("=BBBBBBBBI")
_RTA_OIF = 4
_RTPROT_RA = 9
_IFADDRMSG = struct.Struct("=BBBBI")
_IFA_PROTO = 11
_IFAPROT_KERNEL_RA = 2


def advertised_links(session: Session) -> set[int]:
    """Indexes of the links that have a route or an address because a router advertised it.

    Raises:
        NetlinkError: The kernel refused.
    """
    return session.run(_advertised_links, session)


def _advertised_links(session: Session) -> set[int]:
    return {*_with_routes(session), *_with_addresses(session)}


def _with_routes(session: Session) -> Iterator[int]:
    body = _RTMSG.pack(socket.AF_INET6, 0, 0, 0, 0, 0, 0, 0, 0)
    for message in session.request_all("list IPv6 routes", Rtm.GETROUTE, body):
        _, _, _, _, _, protocol, _, _, _ = _RTMSG.unpack_from(message, HEADER_BYTES)
        if protocol == _RTPROT_RA:
            link = attributes(message, (_RTA_OIF,), at=HEADER_BYTES + _RTMSG.size).get(_RTA_OIF)
            if link is not None:
                yield read_number(link)


def _with_addresses(session: Session) -> Iterator[int]:
    body = _IFADDRMSG.pack(socket.AF_INET6, 0, 0, 0, 0)
    for message in session.request_all("list IPv6 addresses", Rtm.GETADDR, body):
        *_, ifindex = _IFADDRMSG.unpack_from(message, HEADER_BYTES)
        found = attributes(message, (_IFA_PROTO,), at=HEADER_BYTES + _IFADDRMSG.size)
        if any(found.get(_IFA_PROTO, b"")) and found[_IFA_PROTO][0] == _IFAPROT_KERNEL_RA:
            yield ifindex
