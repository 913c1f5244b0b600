# SPDX-License-Identifier: Apache-2.0
"""Network namespaces that are made for one MACVTAP each: what no VMM reads, an IP stack would get.

The kernel ends such a namespace with its name, and not with its tunnel. So the text on its loopback device says what
host and tunnel it was made for, and what neither has any more is removed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from mizarnet._kernel.netlink import (
    LOOPBACK_IFINDEX,
    Session,
    create_netns,
    delete_netns,
    dump_links,
    get_link,
)
from mizarnet._model.arguments import NETNS_DIRECTORY
from mizarnet.errors import MizarnetError, NetnsNotFoundError

_PREFIX = "mizarnet-"
_MARK = re.compile(r"mizarnet host=(?P<cookie>[0-9a-f]+) tunnel=(?P<ifindex>\d{1,10})")


def name_of(instance: int) -> str:
    """What the namespace of an endpoint is called.

    Args:
        instance: What tells the endpoint from that of another life of its name, who may be made and removed by others
            at the same moment.
    """
    return f"{_PREFIX}{instance:016x}"


def make(name: str, cookie: int, ifindex: int) -> None:
    """Make a namespace for an endpoint of that host (the cookie of its namespace) and tunnel."""
    create_netns(name, alias=f"mizarnet host={cookie:x} tunnel={ifindex}")


def sweep(is_gone: Callable[[int, int], bool]) -> list[str]:
    """Remove namespaces whose host or tunnel is gone; their names.

    The kernel deletes the device with either of them: one that still has it is in use, whatever its text says.

    Args:
        is_gone: Says so of a host's cookie and a tunnel's index.
    """
    removed: list[str] = []
    for path in Path(NETNS_DIRECTORY).glob(f"{_PREFIX}*"):
        owner = _owner(path.name)
        if owner is not None and is_gone(*owner):
            with suppress(MizarnetError):  # another process was faster
                delete_netns(path.name)
                removed.append(path.name)
    return removed


def _owner(name: str) -> tuple[int, int] | None:
    """Host and tunnel that a namespace was made for; None if it is no such namespace, or its device lives."""
    with suppress(NetnsNotFoundError), Session.open(name) as session:
        if dump_links(session, kind="macvtap"):
            return None
        link = get_link(session, ifindex=LOOPBACK_IFINDEX)
        known = _MARK.fullmatch(link.alias) if link is not None else None
        if known is not None:
            return int(known["cookie"], 16), int(known["ifindex"])
    return None
