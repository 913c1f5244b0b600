# SPDX-License-Identifier: Apache-2.0
"""Making and deleting network namespaces; named ones as ``ip netns`` makes them, a mount in /run/netns."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Generator
from contextlib import contextmanager

import attrs

from mizarnet._kernel.netlink._syscalls import MS_BIND, MS_REC, MS_SHARED, mount, new_netns, unmount
from mizarnet._kernel.netlink.links import LOOPBACK_IFINDEX, set_link
from mizarnet._kernel.netlink.netns import Netns, NetnsHandle, netns_path, resolve
from mizarnet._kernel.netlink.session import Session
from mizarnet._kernel.refusals import explained
from mizarnet._kernel.threads import call_in_thread
from mizarnet._model.arguments import NETNS_DIRECTORY
from mizarnet.errors import ExistsError, InvalidValueError, KernelError

_LONGEST = 254  # bytes of an alias


def create_netns(name: str, *, alias: str | None = None) -> Netns:
    """Create a named network namespace with lo up, without forking. On failure nothing is left behind.

    Args:
        name: A name under ``/run/netns``.
        alias: Free text for lo. It is there before the name is: whoever finds the namespace finds it marked. It also
            stands in the file that the namespace is mounted on, for whoever finds that alone.

    Raises:
        ExistsError: The name is taken.
        InvalidValueError: ``name`` is a path or no name at all.
        PrivilegeError: CAP_SYS_ADMIN is missing.
    """
    path = _path(name)
    with anonymous_netns() as handle:
        with Session.open(handle) as session:
            set_link(session, LOOPBACK_IFINDEX, up=True, alias=alias)
        with _locked_directory():
            _claim(path, alias or "")
            try:
                mount(f"/proc/self/fd/{handle.fileno()}", path, MS_BIND)
            except BaseException:
                delete_netns(name)
                raise
        return attrs.evolve(handle.netns, path=path)


def anonymous_netns() -> NetnsHandle:
    """Make a network namespace without a name; it ends when nothing, this handle included, holds it.

    Raises:
        PrivilegeError: CAP_SYS_ADMIN is missing.
    """
    return call_in_thread(_enter_new, name="mizarnet-new-netns")


def _enter_new() -> NetnsHandle:
    new_netns()
    return resolve(None)


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
    with explained(f"delete {path}", capability="CAP_DAC_OVERRIDE"):
        try:
            os.unlink(path)
        except FileNotFoundError:
            return False
    return True


def list_netns(prefix: str = "") -> list[str]:
    """Names under ``/run/netns`` that begin with ``prefix``, sorted, whether they mean namespaces or not."""
    with explained(f"list {NETNS_DIRECTORY}", capability="CAP_DAC_OVERRIDE"):
        try:
            return sorted(name for name in os.listdir(NETNS_DIRECTORY) if name.startswith(prefix))
        except FileNotFoundError:
            return []


def delete_unmounted(name: str) -> bool:
    """Delete a name without a namespace: what is left of one whose maker, or deleter, died halfway through.

    Returns:
        False when the name means a namespace, or something else, or is gone.

    Raises:
        InvalidValueError: ``name`` is a path or no name at all.
        PrivilegeError: CAP_SYS_ADMIN is missing.
    """
    path = _path(name)
    with _locked_directory():  # a maker holds the lock between taking the name and mounting
        return _is_unmounted(path) and delete_netns(name)


def _is_unmounted(path: str) -> bool:
    """Whether there is no more than the file that a namespace is to be mounted on."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return False
    # A namespace's own file, which hides it, has mode 0444.
    return stat.S_ISREG(found.st_mode) and found.st_size <= _LONGEST and not stat.S_IMODE(found.st_mode)


def _path(name: str) -> str:
    path = netns_path(name)
    if os.path.dirname(path) != NETNS_DIRECTORY:
        raise InvalidValueError(f"{name!r} is a path, not a name", argument="name", value=name)
    return path


@contextmanager
def _locked_directory() -> Generator[None, None, None]:
    """Hold the lock of /run/netns, and make it a shared mount: names come and go in other mount namespaces, too."""
    with explained(f"make {NETNS_DIRECTORY}", capability="CAP_DAC_OVERRIDE"):
        os.makedirs(NETNS_DIRECTORY, mode=0o755, exist_ok=True)
        fd = os.open(NETNS_DIRECTORY, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with explained(f"lock {NETNS_DIRECTORY}"):
            fcntl.flock(
                fd, fcntl.LOCK_EX
            )  # ip netns takes it too: only one may mount the directory on itself
        _share_directory()
        yield
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


def _claim(path: str, alias: str) -> None:
    with explained(f"create {path}", capability="CAP_DAC_OVERRIDE"):
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0)
        except FileExistsError:
            raise ExistsError(f"the network namespace {path} exists", holder=path) from None
        try:
            os.write(fd, alias.encode())
        finally:
            os.close(fd)


def read_unmounted(name: str) -> str | None:
    """The alias in the file of a name without a namespace: its maker, or deleter, died halfway through.

    None when the name means a namespace, or something else, or is gone.
    """
    path = _path(name)
    with _locked_directory(), explained(f"read {path}", capability="CAP_DAC_OVERRIDE"):
        if not _is_unmounted(path):
            return None
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(_LONGEST)
