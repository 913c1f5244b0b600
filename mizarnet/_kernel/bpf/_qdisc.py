# SPDX-License-Identifier: Apache-2.0
"""What sits on the traffic control hooks of a device of the calling thread's network namespace.

libbpf makes a clsact but cannot tell it from the older ``ingress``, which takes the same place and would put
egress filters on ingress without a word. Nor does it list the filters of a clsact.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

import attrs

from mizarnet._kernel.bpf.hook import Direction
from mizarnet._kernel.rtnetlink import HEADER_BYTES, Flag, Rtm, Rtnl, attributes
from mizarnet._model.layout import read_number

# <linux/pkt_sched.h>, <linux/rtnetlink.h>, <linux/pkt_cls.h>
_TC_H_INGRESS = 0xFFFFFFF1
_PARENTS = {Direction.INGRESS: 0xFFFFFFF2, Direction.EGRESS: 0xFFFFFFF3}  # TC_H_CLSACT with TC_H_MIN_...
_TCMSG = struct.Struct("=BxxxiIII")
_TCA_KIND, _TCA_OPTIONS, _TCA_BPF_ID = 1, 2, 11


def ingress_qdisc(ifindex: int) -> str:
    """Kind of the qdisc on ingress: ``"clsact"``, ``"ingress"`` or ``""`` for none."""
    with Rtnl() as rtnl:
        for found, carried in _dump(rtnl, Rtm.GETQDISC, ifindex, 0):
            if (found.ifindex, found.parent) == (ifindex, _TC_H_INGRESS):
                return carried.get(_TCA_KIND, b"").rstrip(b"\0").decode()
    return ""


@attrs.frozen
class Filter:
    """A filter of a clsact hook.

    Attributes:
        priority: Place in the order, which rises.
        handle: What tells it from others of the same priority.
        program_id: Id of its eBPF program; 0: it has none.
    """

    priority: int
    handle: int
    program_id: int


def query_filters(ifindex: int) -> dict[Direction, list[Filter]]:
    """All filters on the clsact hooks, in the order in which they run; a device that is gone has none."""
    with Rtnl() as rtnl:
        return {direction: _filters(rtnl, ifindex, direction) for direction in Direction}


def _filters(rtnl: Rtnl, ifindex: int, direction: Direction) -> list[Filter]:
    listed: list[Filter] = []
    for found, carried in _dump(rtnl, Rtm.GETTFILTER, ifindex, _PARENTS[direction]):
        # Others only announce a priority; an "ingress" qdisc answers for egress with its ingress filters.
        if found.handle and found.parent == _PARENTS[direction]:
            options = attributes(carried.get(_TCA_OPTIONS, b""))
            program_id = read_number(options.get(_TCA_BPF_ID, b""))
            listed.append(Filter(priority=found.info >> 16, handle=found.handle, program_id=program_id))
    return listed


class _Tcmsg(NamedTuple):
    family: int
    ifindex: int
    handle: int
    parent: int
    info: int


def _dump(rtnl: Rtnl, question: Rtm, ifindex: int, parent: int) -> Iterator[tuple[_Tcmsg, dict[int, bytes]]]:
    body = _TCMSG.pack(socket.AF_UNSPEC, ifindex, 0, parent, 0)
    for reply in rtnl.request("list what is on a traffic control hook", question, body, Flag.DUMP):
        found = _Tcmsg(*_TCMSG.unpack_from(reply, HEADER_BYTES))
        yield found, attributes(reply[HEADER_BYTES + _TCMSG.size :])
