# SPDX-License-Identifier: Apache-2.0
"""Pins: names in a bpffs that keep maps, programs and links in the kernel when no process holds them."""

from __future__ import annotations

import enum
import errno as _errno
import fcntl
import os

from mizarnet.bpf._lib import check, failure, lib
from mizarnet.errors import BpfError, ExistsError, NotFoundError, PrivilegeError

_MOUNT_NEEDS = ("CAP_SYS_ADMIN",)


class Kind(enum.Enum):
    """What can be pinned, by the name that the kernel gives such a descriptor in ``/proc/self/fd``."""

    MAP = "anon_inode:bpf-map"
    PROGRAM = "anon_inode:bpf-prog"
    LINK = "anon_inode:bpf-link"


def ensure_bpffs(path: str = "/sys/fs/bpf") -> None:
    """Mount a bpffs at ``path``, in this mount namespace, unless one is there.

    Raises:
        NotFoundError: There is no such directory.
        PrivilegeError: ``CAP_SYS_ADMIN`` is missing.
        BpfError: The kernel refuses to mount.
    """
    if is_bpffs(path):
        return
    # Two processes must not mount one over the other: the second would hide what the first pins.
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        if not is_bpffs(path):
            check(lib.mzn_mount_bpffs(os.fsencode(path)), f"mount a bpffs at {path}", needs=_MOUNT_NEEDS)
    finally:
        os.close(directory)


def is_bpffs(path: str) -> bool:
    """Whether ``path`` lies in a bpffs.

    Raises:
        NotFoundError: There is no such path.
    """
    magic = lib.mzn_filesystem_magic(os.fsencode(path))
    if magic == -_errno.ENOENT:
        raise NotFoundError(f"there is no {path}")
    return check(magic, f"look at the file system of {path}") == lib.MZN_BPFFS_MAGIC


def make_pin_directory(path: str) -> None:
    """Make the directory ``path`` in a bpffs, with those above it, for its owner only; existing is fine."""
    missing: list[str] = []
    while not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    for directory in reversed(missing):
        try:
            os.mkdir(directory, 0o700)
        except FileExistsError:
            continue  # another process was faster
        except PermissionError as refused:
            raise failure(f"make the directory {directory}", refused.errno or _errno.EPERM) from refused


def pin(fd: int, path: str) -> None:
    """Pin what ``fd`` refers to.

    Raises:
        ExistsError: Something has that name.
        BpfError: ``path`` is not in a bpffs (``EINVAL``, or ``EPERM``), or its directory does not exist.
    """
    result = lib.bpf_obj_pin(fd, os.fsencode(path))
    if result == -_errno.EEXIST:
        raise ExistsError(f"{path} exists", holder=path)
    check(result, f"pin at {path}")
    os.chmod(path, 0o600)


def unpin(path: str) -> bool:
    """Remove the name ``path``; whether it was there. A link with no name and no descriptor left detaches."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    except PermissionError as refused:
        raise failure(f"unpin {path}", refused.errno or _errno.EPERM) from refused
    return True


def open_pin(path: str, kind: Kind) -> int:
    """A new descriptor of what is pinned at ``path``, which must be of that ``kind``.

    Raises:
        NotFoundError: Nothing is pinned there.
        PrivilegeError: Not root.
        BpfError: It is of another kind, or no pin at all.
    """
    fd = lib.bpf_obj_get(os.fsencode(path))
    if fd == -_errno.ENOENT:
        raise NotFoundError(f"nothing is pinned at {path}")
    if fd == -_errno.EACCES and os.path.exists(path) and not is_bpffs(path):
        raise wrong_pin(path, "is not in a bpffs")
    if fd == -_errno.EACCES:
        raise PrivilegeError(f"{path} belongs to somebody else", missing=("CAP_DAC_OVERRIDE",))
    check(fd, f"open the pin {path}")
    found = os.readlink(f"/proc/self/fd/{fd}")
    if found == kind.value:
        return fd
    os.close(fd)
    raise wrong_pin(path, f"is a {found.removeprefix('anon_inode:')}, not a {kind.name.lower()}")


def wrong_pin(path: str, why: str) -> BpfError:
    """The error for a pin that is not what was looked for."""
    return BpfError(f"open the pin {path}", errno=_errno.EINVAL, kernel_message=f"it {why}")
