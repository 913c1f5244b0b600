# SPDX-License-Identifier: Apache-2.0
"""Ids by which one network namespace knows another."""

from __future__ import annotations

from mizarnet._kernel.netlink.link import Link
from mizarnet._kernel.netlink.links import SAME_NAMESPACE, dump_links
from mizarnet._kernel.netlink.netns import NetnsHandle
from mizarnet._kernel.netlink.session import Session
from mizarnet._kernel.rtnetlink import HEADER_BYTES, Flag, Refusal, Request, Rtm, attributes, number
from mizarnet._model.layout import read_number

_UNASSIGNED = 0xFFFFFFFF  # -1, the id of a namespace without one; in a request: choose a free id
_RTGENMSG = bytes(4)
"""``struct rtgenmsg``: any family."""
_NETNSA_NSID, _NETNSA_FD = 1, 3


def nsid_of(session: Session, netns: NetnsHandle) -> int:
    """The id by which the session's namespace knows another one, giving it one when it has none.

    The id stays until one of the two namespaces ends.

    Raises:
        NetlinkError: The kernel refused.
        PrivilegeError: CAP_NET_ADMIN over the session's namespace is missing.
    """
    which = _RTGENMSG + number(_NETNSA_FD, netns.fileno())
    given, found = session.request_together(
        "give a network namespace an id",
        # Refused where it has one.
        Request(Rtm.NEWNSID, which + number(_NETNSA_NSID, _UNASSIGNED)),
        Request(Rtm.GETNSID, which, reads=True),
    )
    if isinstance(found, Refusal):
        raise found.error()
    nsid = _id_in(found)
    if nsid is None and isinstance(given, Refusal):
        raise given.error()
    assert nsid is not None  # assigned, and the caller's descriptor keeps the namespace alive
    return nsid


def own_nsid(session: Session) -> int:
    """The id by which the session's namespace knows itself, given when it has none.

    The kernel names with it where the parent of a link in another namespace is, and searches the ids from 0 for it:
    given late, after those of 4,096 other namespaces, it makes reading each such link 0.08 ms slower.
    """
    with session.open_netns() as own:
        return nsid_of(session, own)


def list_nsids(session: Session) -> list[int]:
    """The ids by which the session's namespace knows others."""
    replies = session.request("list ids of network namespaces", Rtm.GETNSID, _RTGENMSG, Flag.DUMP)
    return [nsid for nsid in map(_id_in, replies) if nsid is not None]


def _id_in(message: bytes) -> int | None:
    """The id that an RTM_NEWNSID message, its header included, describes; None: the namespace has none."""
    nsid = read_number(attributes(message, at=HEADER_BYTES + len(_RTGENMSG))[_NETNSA_NSID])
    return None if nsid == _UNASSIGNED else nsid


def upper_links(session: Session, ifindex: int) -> list[tuple[int, Link]]:
    """The MACVLANs and MACVTAPs on a device of the session's namespace, each with the id of its own namespace."""
    found = [
        (nsid, link)
        for nsid in (SAME_NAMESPACE, *list_nsids(session))
        for link in dump_links(session, nsid=nsid)
        if link.parent_ifindex == ifindex and link.kind in ("macvlan", "macvtap")
    ]
    if not found:
        return []
    # The kernel names a parent's namespace as the asker knows it, and itself by an id like any other.
    itself = own_nsid(session)
    return [
        (nsid, link)
        for nsid, link in found
        if link.parent_nsid == (None if nsid == SAME_NAMESPACE else itself)
    ]
