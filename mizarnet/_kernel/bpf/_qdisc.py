# SPDX-License-Identifier: Apache-2.0
"""What sits on the traffic control hooks of a device: the netlink questions of this package.

libbpf makes a clsact but cannot tell it from the older ``ingress``, which takes the same place and would put
egress filters on ingress without a word. Nor does it list the filters of a clsact.
"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Iterator

import attrs

from mizarnet._kernel.bpf._lib import failure

# include/uapi/linux/{netlink,rtnetlink,pkt_sched}.h
_NLM_F_REQUEST, _NLM_F_DUMP = 0x1, 0x300
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_RTM_GETQDISC, _RTM_GETTFILTER = 38, 46
_TC_H_INGRESS = 0xFFFFFFF1
_TCA_KIND, _TCA_OPTIONS, _TCA_BPF_ID = 1, 2, 11

_HEADER = struct.Struct("=IHHII")
_TCMSG = struct.Struct("=BxxxiIII")
_ATTRIBUTE = struct.Struct("=HH")
_ERROR = struct.Struct("=i")


def ingress_qdisc(ifindex: int) -> str:
    """``"clsact"``, ``"ingress"`` or ``""`` for none; acts in the network namespace of the calling thread."""
    found = [_kind(body) for body in _dump(_RTM_GETQDISC, ifindex, 0) if _is_ingress_of(body, ifindex)]
    return found[0] if found else ""


@attrs.frozen
class Filter:
    """A filter of a clsact hook.

    Attributes:
        priority: Filters run in rising priority.
        handle: Number among those of the same priority.
        program_id: Id of its eBPF program; 0: it has none.
    """

    priority: int
    handle: int
    program_id: int


def dump_filters(ifindex: int, parent: int) -> list[Filter]:
    """The filters of a clsact hook, in the order in which they run."""
    found: list[Filter] = []
    for body in _dump(_RTM_GETTFILTER, ifindex, parent):
        _, _, handle, at, info = _TCMSG.unpack_from(body)
        # Others only announce a priority; an "ingress" qdisc answers for egress with its ingress filters.
        if handle and at == parent:
            options = _attributes(body, _TCMSG.size).get(_TCA_OPTIONS, b"")
            number = int.from_bytes(_attributes(options, 0).get(_TCA_BPF_ID, b""), sys.byteorder)
            found.append(Filter(priority=info >> 16, handle=handle, program_id=number))
    return found


def _dump(question: int, ifindex: int, parent: int) -> Iterator[bytes]:
    body = _TCMSG.pack(socket.AF_UNSPEC, ifindex, 0, parent, 0)
    header = _HEADER.pack(_HEADER.size + len(body), question, _NLM_F_REQUEST | _NLM_F_DUMP, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        netlink.send(header + body)
        yield from _answers(netlink)


def _answers(netlink: socket.socket) -> Iterator[bytes]:
    """Bodies of the messages of a dump."""
    while True:
        data = netlink.recv(1 << 16)
        while len(data) >= _HEADER.size:
            length, kind, *_ = _HEADER.unpack_from(data)
            if kind == _NLMSG_DONE:
                return
            if kind == _NLMSG_ERROR:
                (error,) = _ERROR.unpack_from(data, _HEADER.size)
                raise failure("list what is on a traffic control hook", -error)
            yield data[_HEADER.size : length]
            data = data[length + 3 & ~3 :]


def _is_ingress_of(body: bytes, ifindex: int) -> bool:
    _, index, _, parent, _ = _TCMSG.unpack_from(body)
    return bool(index == ifindex and parent == _TC_H_INGRESS)


def _kind(body: bytes) -> str:
    return _attributes(body, _TCMSG.size).get(_TCA_KIND, b"").rstrip(b"\0").decode()


def _attributes(body: bytes, at: int) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while at + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, at)
        found[kind] = body[at + _ATTRIBUTE.size : at + length]
        at += length + 3 & ~3
    return found
