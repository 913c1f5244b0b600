# SPDX-License-Identifier: Apache-2.0
"""Removing the pins of hosts that ended. The kernel deletes a namespace's devices with it, but no pins."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from mizarnet import attachment, bpf, store
from mizarnet.bpf import Link
from mizarnet.bpf.pin import check_pin_directory
from mizarnet.checks import NETNS_DIRECTORY
from mizarnet.errors import NetnsNotFoundError, NotFoundError
from mizarnet.netlink import Session


def sweep() -> list[Path]:
    """Remove pins whose tunnel and host namespace are both gone; returns their directories.

    A namespace is gone when it has no name and no thread is in it. Pins without links stay: those of agents
    on clsact hooks (kernels before 6.6), of which nothing tells whether the device exists.

    Raises:
        PrivilegeError: ``CAP_SYS_ADMIN`` is missing, or the pins are another user's.
        LockTimeoutError: Somebody works on such a host all the time.
    """
    bpf.ensure_bpffs()
    try:
        check_pin_directory(str(store.ROOT))
    except NotFoundError:
        return []
    orphans = [directory for directory in store.ROOT.glob("*/*") if _is_detached(directory)]
    if not orphans:
        return []
    living = _living_cookies()
    ended = [directory for directory in orphans if int(directory.parent.name, 16) not in living]
    return [directory for directory in ended if _remove(directory)]


def _is_detached(directory: Path) -> bool:
    """Whether there are links, and none is on a device: the kernel takes them off when the device goes."""
    ifindexes: list[int] = []
    for pin in directory.glob("link_*"):
        with suppress(NotFoundError), Link.open_pinned(str(pin)) as link:
            ifindexes.append(link.ifindex)
    return bool(ifindexes) and not any(ifindexes)


def _living_cookies() -> set[int]:
    """Cookies of the namespaces that have a name or a thread."""
    threads = {_target(path): path for path in Path("/proc").glob("[0-9]*/task/[0-9]*/ns/net")}
    cookies: set[int] = set()
    for path in (*Path(NETNS_DIRECTORY).glob("*"), *threads.values()):
        with suppress(NetnsNotFoundError), Session.open(path) as session:
            cookies.add(session.cookie)
    return cookies


def _target(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return ""  # the thread ended meanwhile


def _remove(directory: Path) -> bool:
    with store.locked(int(directory.parent.name, 16)):
        if not directory.is_dir():
            return False  # another process was faster
        attachment.remove_pins(directory)
        return True
