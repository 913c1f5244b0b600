# SPDX-License-Identifier: Apache-2.0
"""Deleting many links of a namespace at once: as a group, for whose end the kernel waits once."""

from __future__ import annotations

import secrets
from collections.abc import Container, Iterable

from mizarnet._kernel.netlink.link import IFINFOMSG, IFLA_GROUP
from mizarnet._kernel.netlink.links import SAME_NAMESPACE, delete_link, dump_links, is_absence
from mizarnet._kernel.netlink.session import Session
from mizarnet._kernel.rtnetlink import Refusal, Rtm, number
from mizarnet.errors import NetlinkError

_GROUPS = 1 << 31  # the kernel keeps them in an int


def delete_links(session: Session, ifindexes: Iterable[int]) -> set[int]:
    """Delete links of the session's namespace together, in the time that one takes: 20 ms, in which the kernel waits.

    They are put into a group that no device there belongs to, and the group is deleted. All are deleted or none: after
    an error they belong to that group, and nothing else of them has changed. Whether an index still means the same
    device is for the caller to see, right before.

    The kernel changes a group only for a sender inside the namespace. Asked from another, by an id, it would move the
    device into the namespace that the id means.

    Args:
        session: Session of the links' namespace.
        ifindexes: Their indexes; one that means no link any more is left out of the result.

    Returns:
        The indexes of those that were there.

    Raises:
        NetlinkError: The kernel refused (EOPNOTSUPP: one is a device that cannot be deleted).
        PrivilegeError: CAP_NET_ADMIN over the namespace is missing.
    """
    wanted = set(ifindexes)
    if len(wanted) > 1:
        return session.run(_delete_group, session, wanted)
    return {ifindex for ifindex in wanted if delete_link(session, ifindex)}


def _delete_group(session: Session, wanted: set[int]) -> set[int]:
    links = dump_links(session)
    group = _unused({link.group for link in links})
    marked = _mark(session, sorted(wanted.intersection(link.ifindex for link in links)), group)
    if not marked:
        return marked
    try:
        body = IFINFOMSG.pack(0, 0, 0, 0, 0) + number(IFLA_GROUP, group)
        session.request(f"delete {len(marked)} links", Rtm.DELLINK, body)
    except NetlinkError as error:
        if not is_absence(error, SAME_NAMESPACE):  # all of them went meanwhile
            raise
    return marked


def _unused(groups: Container[int]) -> int:
    """A group by chance, so that nobody else takes it meanwhile."""
    while True:
        group = secrets.randbelow(_GROUPS)
        if group not in groups and group != 0:  # 0 has all devices that nobody put anywhere
            return group


def _mark(session: Session, ifindexes: list[int], group: int) -> set[int]:
    """Put links into a group; the indexes of those that are in it."""
    bodies = [IFINFOMSG.pack(0, 0, ifindex, 0, 0) + number(IFLA_GROUP, group) for ifindex in ifindexes]
    answers = session.request_each("put a link into a group", Rtm.SETLINK, bodies)
    marked: set[int] = set()
    for ifindex, answer in zip(ifindexes, answers, strict=True):
        if not isinstance(answer, Refusal):
            marked.add(ifindex)
        elif not is_absence(answer, SAME_NAMESPACE):
            raise answer.error()
    return marked
