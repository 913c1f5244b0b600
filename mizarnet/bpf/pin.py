# SPDX-License-Identifier: Apache-2.0
"""Pins: names in a bpffs that keep maps, programs and links in the kernel when no process holds them.

Every user may make names in the root of a bpffs that somebody mounted without ``mode=700``. So no name is trusted:
each directory above a pin, and the pin, must be this user's own, and no symbolic link.
"""

from __future__ import annotations

import enum
import errno as _errno
import fcntl
import os
import stat

from mizarnet.bpf._lib import check, failure, lib
from mizarnet.errors import BpfError, ExistsError, MizarnetError, NotFoundError, PrivilegeError

_MOUNT_NEEDS = ("CAP_SYS_ADMIN",)
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_REMOVE = "find out who made it, and remove it"
_BE_ROOT = "run as root"


class Kind(enum.Enum):
    """What can be pinned, by the name that the kernel gives such a descriptor in ``/proc/self/fd``."""

    MAP = "anon_inode:bpf-map"
    PROGRAM = "anon_inode:bpf-prog"
    LINK = "anon_inode:bpf-link"


def ensure_bpffs(path: str = "/sys/fs/bpf") -> None:
    """Mount a bpffs at ``path``, in this mount namespace and for its owner only, unless one is there.

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
    """Make the directory ``path`` in a bpffs, with those above it, for its owner only; existing ones must be so.

    Raises:
        NotFoundError: Somebody removed one of them meanwhile.
        ExistsError: Something else than a directory has one of the names.
        PrivilegeError: One of them belongs to somebody else, or cannot be made.
        BpfError: The kernel refused to make one.
    """
    for directory in _levels(path)[1:]:
        try:
            os.mkdir(directory, 0o700)
        except FileExistsError:
            pass  # made before, by whom is found out below
        except OSError as refused:
            raise _refusal("make the directory", directory, refused) from None
        _check_directory(directory)


def check_pin_directory(path: str) -> None:
    """Make sure that the directory ``path`` and those above it, up to the root of the bpffs, are this user's own.

    Raises:
        NotFoundError: There is no such directory.
        ExistsError: Something else than a directory has one of the names.
        PrivilegeError: One of them belongs to somebody else.
        BpfError: It is not in a bpffs.
    """
    root, *below = _levels(path)
    if not is_bpffs(root):
        _status(path)
        raise wrong_pin(path, "is not in a bpffs")
    for directory in below:
        _check_directory(directory)


def _levels(path: str) -> list[str]:
    """The root of the file system that ``path`` is in, and the directories from there down to ``path``."""
    if os.path.ismount(path):
        return [path]
    return [*_levels(os.path.dirname(path)), path]


def _check_directory(path: str) -> None:
    found = _status(path)
    if not stat.S_ISDIR(found.st_mode):
        what = "a symbolic link" if stat.S_ISLNK(found.st_mode) else "a file"
        raise ExistsError(f"{path} is {what}, not a directory of pins", holder=path, hint=_REMOVE)
    _check_owner(path, found, mode=0o700)


def _status(path: str) -> os.stat_result:
    try:
        return os.lstat(path)
    except OSError as refused:
        raise _refusal("look at", path, refused) from None


def _refusal(operation: str, path: str, refused: OSError) -> MizarnetError:
    """The error for what the file system did not do with ``path``."""
    if refused.errno == _errno.ENOENT:
        return NotFoundError(f"there is no {path}")
    if refused.errno == _errno.EACCES:
        return PrivilegeError(
            f"{path} is in a directory of somebody else", missing=("CAP_DAC_OVERRIDE",), hint=_BE_ROOT
        )
    return failure(f"{operation} {path}", refused.errno or _errno.EIO)


def _check_owner(path: str, found: os.stat_result, *, mode: int) -> None:
    if found.st_uid == os.geteuid() and not found.st_mode & _OTHERS:
        return
    if not found.st_uid and not found.st_mode & _OTHERS:
        raise PrivilegeError(
            f"{path} belongs to root, as it should", missing=("CAP_DAC_OVERRIDE",), hint=_BE_ROOT
        )
    raise PrivilegeError(
        f"{path} belongs to user {found.st_uid} with mode {stat.S_IMODE(found.st_mode):o}",
        missing=("CAP_DAC_OVERRIDE",),
        hint=f"it must be this user's, with mode {mode:o}: {_REMOVE}",
    )


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
    except IsADirectoryError:
        raise wrong_pin(path, "is a directory") from None
    except PermissionError as refused:
        raise failure(f"unpin {path}", refused.errno or _errno.EPERM) from refused
    return True


def open_pin(path: str, kind: Kind) -> int:
    """A new descriptor of what is pinned at ``path``, which must be of that ``kind``.

    Raises:
        NotFoundError: Nothing is pinned there.
        ExistsError: What should be a directory is none.
        PrivilegeError: The pin, or a directory above it, belongs to somebody else.
        BpfError: It is of another kind, or no pin at all, or ``/proc`` does not tell.
    """
    _check_pin(path)
    fd = lib.bpf_obj_get(os.fsencode(path))
    if fd == -_errno.ENOENT:
        raise NotFoundError(f"nothing is pinned at {path}")
    check(fd, f"open the pin {path}")
    try:
        _check_kind(fd, path, kind)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _check_kind(fd: int, path: str, kind: Kind) -> None:
    try:
        found = os.readlink(f"/proc/self/fd/{fd}")
    except OSError as refused:
        operation, number = f"see what is pinned at {path}", refused.errno or _errno.EIO
        raise failure(operation, number, hint="/proc must be mounted") from None
    if found != kind.value:
        raise wrong_pin(path, f"is a {found.removeprefix('anon_inode:')}, not a {kind.name.lower()}")


def _check_pin(path: str) -> None:
    """What is in a directory of this user's alone stays what it is between the look and the opening."""
    check_pin_directory(os.path.dirname(path))
    found = _status(path)
    if not stat.S_ISREG(found.st_mode):
        raise wrong_pin(path, f"is a {'symbolic link' if stat.S_ISLNK(found.st_mode) else 'directory'}")
    _check_owner(path, found, mode=0o600)


def wrong_pin(path: str, why: str) -> BpfError:
    """The error for a pin that is not what was looked for."""
    return BpfError(f"open the pin {path}", errno=_errno.EINVAL, kernel_message=f"it {why}", hint=_REMOVE)
