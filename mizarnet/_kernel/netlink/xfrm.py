# SPDX-License-Identifier: Apache-2.0
"""IPsec policies of a network namespace, by NETLINK_XFRM."""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

from mizarnet._kernel.netlink.session import Session
from mizarnet._kernel.refusals import explained

_NETLINK_XFRM = 6
_GETSPDINFO, _NEWSPDINFO = 0x25, 0x24  # XFRM_MSG_*
_REQUEST = struct.Struct("=IHHIII")  # struct nlmsghdr, and the flags that it asks with
_COUNTS = struct.Struct("=16xIHHIII")  # what is in front of it, and three members of struct xfrmu_spdinfo
_SPD_INFO = 1  # XFRMA_SPD_INFO
_NLM_F_REQUEST = 1
_RECEIVE_BYTES = 4096


class Policies(NamedTuple):
    """How many IPsec policies a namespace has.

    Attributes:
        incoming: Of those for packets to the namespace itself.
        outgoing: Of those for packets that leave it.
        forwarded: Of those for packets that it sends on.
    """

    incoming: int = 0
    outgoing: int = 0
    forwarded: int = 0


def count_policies(session: Session) -> Policies:
    """How many IPsec policies the namespace has; none on a kernel without IPsec."""
    return session.run(_ask)


def has_incoming_policies(session: Session) -> bool:
    """Whether the namespace has IPsec policies for packets that come in; no on a kernel without IPsec."""
    return count_policies(session).incoming > 0


def _ask() -> Policies:
    with explained("ask for IPsec policies", capability="CAP_NET_ADMIN"):
        try:
            asked = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_XFRM)
        except OSError as error:
            if isinstance(error, PermissionError):
                raise
            return Policies()  # the kernel has no IPsec
        with asked:
            asked.bind((0, 0))
            asked.send(_REQUEST.pack(_REQUEST.size, _GETSPDINFO, _NLM_F_REQUEST, 1, 0, 0))
            return _counted(asked.recv(_RECEIVE_BYTES))


def _counted(answer: bytes) -> Policies:
    _, kind = struct.unpack_from("=IH", answer)
    _, _, attribute, *counts = _COUNTS.unpack_from(answer)
    return Policies(*counts) if (kind, attribute) == (_NEWSPDINFO, _SPD_INFO) else Policies()
