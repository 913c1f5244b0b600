# SPDX-License-Identifier: Apache-2.0
"""Network namespaces that are made for one endpoint each.

A MACVTAP has one to keep its frames from the host's IP stack, a gateway for its own addresses and rules.

The kernel deletes such a namespace with its name, and not with its tunnel. So the alias of its loopback device names
the host and the tunnel that it was made for, and it is removed when one of them is gone.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress

import attrs

from mizarnet._kernel.netlink import (
    IFINDEXES,
    LOOPBACK_IFINDEX,
    Session,
    create_netns,
    delete_netns,
    dump_links,
    get_link,
    list_netns,
    read_unmounted,
)
from mizarnet._model.codec import Record
from mizarnet._model.log import log
from mizarnet._model.specs import Kind
from mizarnet.errors import MizarnetError, NetnsNotFoundError

_PREFIX = "mizarnet-"
_MARK = re.compile(
    r"mizarnet host=(?P<cookie>[0-9a-f]{1,16}) tunnel=(?P<ifindex>\d{1,10}) endpoint=(?P<endpoint>[0-9a-f]{1,16})"
)


def name_of(instance: int) -> str:
    """Name of the private namespace of an endpoint.

    Args:
        instance: Random id of the endpoint, which no earlier or later endpoint of its name has.
    """
    return f"{_PREFIX}{instance:016x}"


def make(record: Record, cookie: int, ifindex: int) -> None:
    """Make the private namespace of an endpoint.

    Args:
        record: Record of the endpoint, with the namespace's name from :func:`name_of`.
        cookie: Cookie of the host's namespace.
        ifindex: Index of the tunnel's device.
    """
    name = record.spec.netns or ""
    create_netns(name, alias=f"mizarnet host={cookie:x} tunnel={ifindex} endpoint={record.instance:016x}")
    log.info("namespace %s made", name)


@attrs.frozen
class PrivateNetns:
    """A private namespace, as its mark describes it.

    Attributes:
        name: Name of the namespace.
        cookie: Cookie of the host's namespace that it was made for.
        ifindex: Index of the tunnel's device.
        instance: Random id of the endpoint.
    """

    name: str
    cookie: int
    ifindex: int
    instance: int


def names() -> dict[str, int]:
    """Names of private namespaces, each with the instance of its endpoint, as far as the name tells it."""
    found: dict[str, int] = {}
    for name in list_netns(_PREFIX):
        with suppress(ValueError):
            found[name] = int(name.removeprefix(_PREFIX), 16)
    return found


def empty() -> list[PrivateNetns]:
    """The private namespaces without an endpoint's device: left behind, or about to get one."""
    return [each for name in list_netns(_PREFIX) if (each := describe(name)) is not None]


def sweep(is_gone: Callable[[int, int], bool]) -> list[str]:
    """Remove private namespaces whose host or tunnel is gone.

    The kernel deletes the endpoint's device with either of them, so a namespace that still has one is in use and stays.

    Args:
        is_gone: Tells from a host's cookie and a tunnel's index whether one of the two is gone.

    Returns:
        Names of the namespaces that were removed.

    Raises:
        KernelError: The kernel refused to remove one; the others were removed.
        PrivilegeError: ``CAP_SYS_ADMIN`` is missing.
    """
    removed: list[str] = []
    refused: list[MizarnetError] = []
    for each in empty():
        if not is_gone(each.cookie, each.ifindex):
            continue
        try:
            if delete_netns(each.name):  # else another process removed it first
                removed.append(each.name)
                log.info("namespace %s removed: its tunnel is gone", each.name)
        except MizarnetError as error:
            refused.append(error)
    if refused:
        raise refused[0]
    return removed


def describe(name: str) -> PrivateNetns | None:
    """The private namespace of a name, if it has no endpoint's device; None if it has one, or is not private."""
    try:
        mark = _mark_inside(name)
    except NetnsNotFoundError:  # whoever made or deleted it died in between
        mark = read_unmounted(name)
    known = _MARK.fullmatch(mark or "")
    if known is None or int(known["ifindex"]) not in IFINDEXES:
        return None
    return PrivateNetns(name, int(known["cookie"], 16), int(known["ifindex"]), int(known["endpoint"], 16))


def _mark_inside(name: str) -> str | None:
    with Session.open(name) as session:
        if any(dump_links(session, kind=kind.value) for kind in Kind):
            return None
        link = get_link(session, ifindex=LOOPBACK_IFINDEX)
        return None if link is None else link.alias
