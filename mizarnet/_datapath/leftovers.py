# SPDX-License-Identifier: Apache-2.0
"""What does not end with a tunnel: the switch on the underlay, and namespaces that were made for endpoints."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from mizarnet._datapath import private_netns, switches
from mizarnet._datapath.host import Host
from mizarnet._kernel.netlink import Session, get_link, identity_of
from mizarnet._model.arguments import NETNS_DIRECTORY
from mizarnet.errors import NetnsNotFoundError


def clear_host(host: Host) -> None:
    """Remove what is left of tunnels of this host that are gone. The caller holds the host's lock.

    Raises:
        PrivilegeError: ``CAP_SYS_ADMIN`` is missing.
    """
    for switch in switches.find(host):
        if not switch.has_owner():
            switch.remove()
    private_netns.sweep(lambda cookie, ifindex: cookie == host.cookie and not get_link(host, ifindex=ifindex))


def sweep() -> list[str]:
    """Remove private namespaces of hosts that ended; their names.

    A host has ended when its namespace has no name and no thread is in it.

    Raises:
        PrivilegeError: ``CAP_SYS_ADMIN`` is missing.
    """
    if not any(Path(NETNS_DIRECTORY).glob("mizarnet-*")):
        return []
    living = _living_cookies()
    return private_netns.sweep(lambda cookie, _: cookie not in living)


def _living_cookies() -> set[int]:
    """Cookies of the namespaces that have a name or a thread."""
    cookies: set[int] = set()
    seen: set[tuple[int, int]] = set()
    for path in (*Path(NETNS_DIRECTORY).glob("*"), *_threads()):
        identity = _identity(path)
        if identity is None or identity in seen:
            continue
        # A thread that ends meanwhile tells nothing: each other one of its namespace is asked, too.
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
    """The namespace of each thread; a process that ends meanwhile has none."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(FileNotFoundError, ProcessLookupError):
            for thread in (process / "task").iterdir():
                yield thread / "ns" / "net"
