# SPDX-License-Identifier: Apache-2.0
"""Finding a network namespace and holding on to it."""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import ExitStack

import attrs

from mizarnet._kernel.capabilities import INITIAL_USER_NAMESPACE
from mizarnet._kernel.closing import Owner
from mizarnet._kernel.netlink._syscalls import CLONE_NEWNET
from mizarnet._kernel.refusals import explained, refused
from mizarnet._model.arguments import NETNS_DIRECTORY, check_netns
from mizarnet._model.specs import NetnsLike
from mizarnet.errors import ClosedError, NetnsNotFoundError

OWN_NETNS = "/proc/thread-self/ns/net"

_NS_GET_USERNS = 0xB701
_NS_GET_NSTYPE = 0xB703
_WHAT_TO_GIVE = "ip netns list shows the names; a container without one is /proc/<pid>/ns/net of its process"


@attrs.frozen
class Netns:
    """A network namespace, and where it was found.

    Attributes:
        path: Path at which it was found; None for the calling thread's own. A hint only: two values are equal
            when they are the same namespace.
        identity: Device and inode of the namespace's file; no two namespaces that are alive have the same.
    """

    path: str | None = attrs.field(eq=False)
    identity: tuple[int, int]

    @property
    def inode(self) -> int:
        """Inode of the namespace's file."""
        return self.identity[1]


def identity_of(netns: int | str | os.PathLike[str]) -> tuple[int, int]:
    """The identity of the namespace behind a descriptor or path; raises a plain ``OSError``."""
    found = os.stat(netns)
    return found.st_dev, found.st_ino


def own_identity() -> tuple[int, int]:
    """The identity of the calling thread's own namespace; raises ``NetnsNotFoundError`` without ``/proc``."""
    try:
        return identity_of(OWN_NETNS)
    except FileNotFoundError:
        raise _no_proc() from None


def _no_proc() -> NetnsNotFoundError:
    return NetnsNotFoundError(f"there is no {OWN_NETNS}", hint="mount /proc")


class NetnsHandle(Owner):
    """An open descriptor of a network namespace, which keeps the namespace alive until ``close()``.

    Attributes:
        netns: The namespace.
    """

    def __init__(self, fd: int, path: str | None) -> None:
        self.netns: Netns = Netns(path, identity_of(fd))
        self._fd = fd
        self._closed = False

    def fileno(self) -> int:
        """The descriptor (close-on-exec); it stays owned by the handle."""
        if self._closed:
            raise ClosedError("the network namespace handle was closed")
        return self._fd

    def _release(self) -> None:
        os.close(self._fd)

    def __del__(self) -> None:
        self.close()  # keeping a namespace alive for too long is nothing that needs a warning

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"fd={self._fd}"
        return f"<NetnsHandle {self.netns.path or 'own'} inode={self.netns.inode} {state}>"


def netns_path(netns: NetnsLike) -> str:
    """The path that a user's ``netns`` argument means; no system call is made.

    Args:
        netns: A word without ``/`` is a name under ``/run/netns``, anything else a path.

    Raises:
        InvalidTypeError: Neither text nor a text path.
        InvalidValueError: Not the name or path of anything.
    """
    name = check_netns(netns)
    return name if "/" in name else f"{NETNS_DIRECTORY}/{name}"


def resolve(netns: NetnsLike | None) -> NetnsHandle:
    """Open a network namespace.

    Args:
        netns: Name or path, as for `netns_path`; None is the calling thread's own.

    Raises:
        InvalidTypeError: As for `netns_path`.
        InvalidValueError: As for `netns_path`.
        NetnsNotFoundError: There is nothing there, or it is not a network namespace.
        PrivilegeError: The namespace of another user's process.
    """
    path = None if netns is None else netns_path(netns)
    with ExitStack() as undo:
        fd = _open(path)
        undo.callback(os.close, fd)
        if not _is_netns(fd):
            raise NetnsNotFoundError(f"{path} is not a network namespace", hint=_WHAT_TO_GIVE)
        undo.pop_all()
        return NetnsHandle(fd, path)


def _open(path: str | None) -> int:
    # O_NONBLOCK and O_NOCTTY: the path may name a FIFO or a terminal, and opening it must not wait.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    try:
        return os.open(path or OWN_NETNS, flags)
    except OSError as error:
        number = error.errno or errno.EIO
    if number in (errno.ENOENT, errno.ENOTDIR, errno.ENXIO, errno.ESRCH):
        if path is None:
            raise _no_proc()
        raise NetnsNotFoundError(f"there is no network namespace {path}", hint=_WHAT_TO_GIVE)
    raise refused(
        f"open the network namespace {path or 'of this thread'}", number, capability="CAP_SYS_PTRACE"
    )


def _is_netns(fd: int) -> bool:
    # nsfs has one superblock: the device number keeps the ioctl away from files of other kinds.
    if os.fstat(fd).st_dev != own_identity()[0]:
        return False
    return fcntl.ioctl(fd, _NS_GET_NSTYPE) == CLONE_NEWNET


def netns_of_thread(native_id: int) -> NetnsHandle:
    """Open the network namespace of a thread of this process; raises ``NetnsNotFoundError`` without ``/proc``."""
    with explained("open the network namespace of a thread"):
        try:
            return NetnsHandle(
                os.open(f"/proc/self/task/{native_id}/ns/net", os.O_RDONLY | os.O_CLOEXEC), None
            )
        except FileNotFoundError:
            raise _no_proc() from None


def is_current(netns: Netns) -> bool:
    """Whether the calling thread is in that namespace."""
    return netns.identity == own_identity()


def owner_is_initial(fd: int) -> bool:
    """Whether the namespace behind ``fd`` is owned by the initial user namespace.

    False as well when the owner is outside the caller's user namespace and therefore hidden.
    """
    with explained("find the owner of a network namespace"):
        try:
            owner = fcntl.ioctl(fd, _NS_GET_USERNS)
        except PermissionError:
            return False
    try:
        return os.fstat(owner).st_ino == INITIAL_USER_NAMESPACE
    finally:
        os.close(owner)
