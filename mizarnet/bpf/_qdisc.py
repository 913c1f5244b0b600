# SPDX-License-Identifier: Apache-2.0
"""Which queueing discipline sits on the ingress hook of a device: the one netlink question of this package.

libbpf makes a clsact but cannot tell it from the older ``ingress``, which takes the same place and would put
egress filters on ingress without a word.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

# include/uapi/linux/{netlink,rtnetlink,pkt_sched}.h
_NLM_F_REQUEST, _NLM_F_DUMP = 0x1, 0x300
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_RTM_GETQDISC = 38
_TC_H_INGRESS = 0xFFFFFFF1
_TCA_KIND = 1

_HEADER = struct.Struct("=IHHII")
_TCMSG = struct.Struct("=BxxxiIII")
_ATTRIBUTE = struct.Struct("=HH")


def ingress_qdisc(ifindex: int) -> str:
    """``"clsact"``, ``"ingress"`` or ``""`` for none; acts in the network namespace of the calling thread."""
    body = _TCMSG.pack(socket.AF_UNSPEC, ifindex, 0, 0, 0)
    request = _HEADER.pack(_HEADER.size + len(body), _RTM_GETQDISC, _NLM_F_REQUEST | _NLM_F_DUMP, 1, 0) + body
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        netlink.send(request)
        found = [_kind(body) for body in _answers(netlink) if _is_ingress_of(body, ifindex)]
    return found[0] if found else ""


def _answers(netlink: socket.socket) -> Iterator[bytes]:
    """Bodies of the messages of a dump."""
    while True:
        data = netlink.recv(1 << 16)
        while len(data) >= _HEADER.size:
            length, kind, *_ = _HEADER.unpack_from(data)
            if kind in (_NLMSG_DONE, _NLMSG_ERROR):
                return
            yield data[_HEADER.size : length]
            data = data[length + 3 & ~3 :]


def _is_ingress_of(body: bytes, ifindex: int) -> bool:
    _, index, _, parent, _ = _TCMSG.unpack_from(body)
    return bool(index == ifindex and parent == _TC_H_INGRESS)


def _kind(body: bytes) -> str:
    at = _TCMSG.size
    while at + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, at)
        if kind == _TCA_KIND:
            return body[at + _ATTRIBUTE.size : at + length].rstrip(b"\0").decode()
        at += length + 3 & ~3
    return ""
