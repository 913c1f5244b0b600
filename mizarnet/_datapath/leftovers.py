# SPDX-License-Identifier: Apache-2.0
"""Removal of what the kernel does not delete with a tunnel: switch and shortcut, and namespaces made for endpoints."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from mizarnet._datapath import gateways, private_netns, shortcuts, switches
from mizarnet._datapath.host import Host
from mizarnet._kernel.netlink import Session, get_link, identity_of, list_netns
from mizarnet._kernel.refusals import explained
from mizarnet._model.arguments import NETNS_DIRECTORY
from mizarnet.errors import NetnsNotFoundError


def clear_host(host: Host) -> None:
    """Remove what tunnels of this host that are gone left behind; the caller holds the host alone.

    Raises:
        PrivilegeError: ``CAP_SYS_ADMIN`` is missing.
    """
    for each in (*switches.find(host), *shortcuts.find(host)):
        if not each.has_owner():
            each.remove()
    gateways.clear_ownerless(host)
    private_netns.sweep(lambda cookie, ifindex: cookie == host.cookie and not _is_tunnel(host, ifindex))


def _is_tunnel(host: Host, ifindex: int) -> bool:
    """Whether a tunnel has that index; the kernel may have given it to another device."""
    link = get_link(host, ifindex=ifindex)
    return link is not None and link.external


def sweep() -> list[str]:
    """Remove private namespaces of hosts that ended.

    A host has ended when its namespace has no name and no thread is in it.

    Returns:
        Names of the namespaces that were removed.

    Raises:
        PrivilegeError: ``CAP_SYS_ADMIN`` is missing.
    """
    if not list_netns("mizarnet-"):
        return []
    living = _living_cookies()
    return private_netns.sweep(lambda cookie, _: cookie not in living)


def _living_cookies() -> set[int]:
    """Cookies of the namespaces that have a name or a thread."""
    cookies: set[int] = set()
    seen: set[tuple[int, int]] = set()
    named = [Path(NETNS_DIRECTORY) / name for name in list_netns()]
    for path in (*named, *_threads()):
        identity = _identity(path)
        if identity is None or identity in seen:
            continue
        # A thread that ends meanwhile proves nothing: the next thread of the same namespace is tried.
        with suppress(NetnsNotFoundError), Session.open(path) as session:
            cookies.add(session.cookie)
            seen.add(identity)
    return cookies


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        return identity_of(path)
    except OSError:
        return None  # it went meanwhile, or is a process that this user may not look at


def _threads() -> Iterator[Path]:
    """Paths of the network namespaces of all threads; processes that end meanwhile are left out."""
    with explained("look for threads in /proc", capability="CAP_SYS_PTRACE"):
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(FileNotFoundError, ProcessLookupError):
                for thread in (process / "task").iterdir():
                    yield thread / "ns" / "net"
