# SPDX-License-Identifier: Apache-2.0
"""Network namespaces that are made for one MACVTAP each: what no VMM reads, an IP stack would get.

The kernel ends such a namespace with its name, and not with its tunnel. So the text on its loopback device says what
host and tunnel it was made for, and what neither has any more is removed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

from mizarnet.checks import NETNS_DIRECTORY
from mizarnet.errors import MizarnetError, NetnsNotFoundError
from mizarnet.netlink import LOOPBACK_IFINDEX, Session, create_netns, delete_netns, get_link

_PREFIX = "mizarnet-"
_MARK = re.compile(r"mizarnet host=(?P<cookie>[0-9a-f]+) tunnel=(?P<ifindex>\d+)")


def name_of(cookie: int, ifindex: int, endpoint: str) -> str:
    """What the namespace of an endpoint is called.

    Args:
        cookie: Of the host's namespace.
        ifindex: Of the tunnel.
        endpoint: Name of the endpoint.
    """
    key = f"{cookie:x}/{ifindex}/{endpoint}"
    return _PREFIX + blake2b(key.encode(), digest_size=8).hexdigest()


def make(name: str, cookie: int, ifindex: int) -> None:
    """Make a namespace for an endpoint of that host and tunnel. One that a process which died has left is replaced."""
    delete_netns(name)
    create_netns(name, alias=f"mizarnet host={cookie:x} tunnel={ifindex}")


def sweep(is_gone: Callable[[int, int], bool]) -> list[str]:
    """Remove namespaces whose host or tunnel is gone; their names.

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
    with suppress(NetnsNotFoundError), Session.open(name) as session:
        link = get_link(session, ifindex=LOOPBACK_IFINDEX)
        known = _MARK.fullmatch(link.alias) if link is not None else None
        if known is not None:
            return int(known["cookie"], 16), int(known["ifindex"])
    return None
