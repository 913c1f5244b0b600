# SPDX-License-Identifier: Apache-2.0
"""Making and deleting network namespaces; named ones as ``ip netns`` makes them, a mount in /run/netns."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from mizarnet.checks import NETNS_DIRECTORY
from mizarnet.errors import ExistsError, InvalidValueError, KernelError
from mizarnet.netlink._syscalls import MS_BIND, MS_REC, MS_SHARED, mount, new_netns, refused, unmount
from mizarnet.netlink.links import LOOPBACK_IFINDEX, set_link
from mizarnet.netlink.netns import OWN_NETNS, Netns, NetnsHandle, netns_path, resolve
from mizarnet.netlink.session import Session

T = TypeVar("T")


def create_netns(name: str) -> Netns:
    """Create a named network namespace with lo up, without forking. On failure nothing is left behind.

    Raises:
        ExistsError: The name is taken.
        InvalidValueError: ``name`` is a path or no name at all.
        PrivilegeError: CAP_SYS_ADMIN is missing.
    """
    path = _path(name)
    _prepare_directory()
    _claim(path)
    try:
        _in_new_netns(lambda: mount(OWN_NETNS, path, MS_BIND))
        with Session.open(path) as session:
            set_link(session, LOOPBACK_IFINDEX, up=True)
            return session.netns
    except BaseException:
        delete_netns(name)
        raise


def anonymous_netns() -> NetnsHandle:
    """Make a network namespace without a name; it ends when nothing, this handle included, holds it.

    Raises:
        PrivilegeError: CAP_SYS_ADMIN is missing.
    """
    return _in_new_netns(lambda: resolve(None))


def delete_netns(name: str) -> bool:
    """Delete a named network namespace; False when it was gone already.

    The namespace itself, with the links in it, ends when no process, mount or descriptor holds it any more.

    Raises:
        InvalidValueError: ``name`` is a path or no name at all.
        PrivilegeError: CAP_SYS_ADMIN is missing.
    """
    path = _path(name)
    try:
        unmount(path)
    except KernelError as error:
        if error.errno not in (errno.EINVAL, errno.ENOENT):  # EINVAL: a file that nothing is mounted on
            raise
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise refused(f"delete {path}", error.errno or errno.EIO) from None
    return True


def _path(name: str) -> str:
    path = netns_path(name)
    if os.path.dirname(path) != NETNS_DIRECTORY:
        raise InvalidValueError(f"{name!r} is a path, not a name", argument="name", value=name)
    return path


def _prepare_directory() -> None:
    """Make /run/netns a shared mount: names come and go in other mount namespaces, too."""
    try:
        os.makedirs(NETNS_DIRECTORY, mode=0o755, exist_ok=True)
        fd = os.open(NETNS_DIRECTORY, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise refused(f"make {NETNS_DIRECTORY}", error.errno or errno.EIO) from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)  # ip netns takes it too: only one may mount the directory on itself
        _share_directory()
    finally:
        os.close(fd)


def _share_directory() -> None:
    try:
        mount("", NETNS_DIRECTORY, MS_SHARED | MS_REC)
    except KernelError as error:
        if error.errno != errno.EINVAL:  # EINVAL: no mount point yet
            raise
        mount(NETNS_DIRECTORY, NETNS_DIRECTORY, MS_BIND | MS_REC)
        mount("", NETNS_DIRECTORY, MS_SHARED | MS_REC)


def _claim(path: str) -> None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0)
    except FileExistsError:
        raise ExistsError(f"the network namespace {path} exists", holder=path) from None
    except OSError as error:
        raise refused(f"create {path}", error.errno or errno.EIO) from None
    os.close(fd)


def _in_new_netns(work: Callable[[], T]) -> T:
    """Call ``work`` on a thread that moves into a new namespace and ends."""
    outcome: Future[T] = Future()

    def live() -> None:
        try:
            new_netns()
            outcome.set_result(work())
        except BaseException as error:  # belongs to the thread that waits below
            outcome.set_exception(error)

    thread = threading.Thread(target=live, name="mizarnet-new-netns")
    thread.start()
    thread.join()
    return outcome.result()
