# SPDX-License-Identifier: Apache-2.0
"""Ids by which one network namespace knows another."""

from __future__ import annotations

from mizarnet.errors import NetlinkError
from mizarnet.netlink._messages import Request, Rtm
from mizarnet.netlink.netns import NetnsHandle
from mizarnet.netlink.session import Session

_UNASSIGNED = 0xFFFFFFFF  # -1, the id of a namespace without one; in a request: choose a free id


def nsid_of(session: Session, netns: NetnsHandle) -> int:
    """Return the id by which the session's namespace knows another one, giving it one when it has none.

    The id stays until one of the two namespaces ends.

    Raises:
        NetlinkError: The kernel refused.
        PrivilegeError: CAP_NET_ADMIN over the session's namespace is missing.
    """
    return session.run(_nsid_of, session, netns.fileno())


def _nsid_of(session: Session, fd: int) -> int:
    nsid = _get(session, fd)
    if nsid is not None:
        return nsid
    attributes = [("NETNSA_FD", fd), ("NETNSA_NSID", _UNASSIGNED)]
    try:
        session.request("give a network namespace an id", Request(Rtm.NEWNSID, attributes=attributes))
    except NetlinkError:
        if (nsid := _get(session, fd)) is not None:  # another process was faster
            return nsid
        raise
    nsid = _get(session, fd)
    assert nsid is not None  # assigned, and the caller's descriptor keeps the namespace alive
    return nsid


def _get(session: Session, fd: int) -> int | None:
    request = Request(Rtm.GETNSID, attributes=[("NETNSA_FD", fd)])
    (reply,) = session.request("read the id of a network namespace", request)
    nsid = reply.number("NETNSA_NSID")
    return None if nsid == _UNASSIGNED else nsid
