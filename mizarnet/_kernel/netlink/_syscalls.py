# SPDX-License-Identifier: Apache-2.0
"""The system calls that Python 3.11 does not offer: setns, unshare, mount, umount2, pidfd_getfd."""

from __future__ import annotations

import ctypes
import errno
import functools
import os

from mizarnet._kernel.refusals import refused

CLONE_NEWNET = 0x40000000
CLONE_NEWNS = 0x00020000
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MS_SHARED = 0x100000
MNT_DETACH = 2
SYS_PIDFD_GETFD = 438  # on every architecture


@functools.cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.setns.argtypes = [ctypes.c_int, ctypes.c_int]
    libc.unshare.argtypes = [ctypes.c_int]
    libc.mount.argtypes = [
        ctypes.c_char_p,
        ctypes.c_char_p,
        ctypes.c_char_p,
        ctypes.c_ulong,
        ctypes.c_void_p,
    ]
    libc.umount2.argtypes = [ctypes.c_char_p, ctypes.c_int]
    libc.syscall.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_int, ctypes.c_uint]
    libc.syscall.restype = ctypes.c_long
    return libc


def _check(result: int, operation: str) -> None:
    if result != 0:
        raise refused(operation, ctypes.get_errno())


def _unshare(kind: int, operation: str, limit: str) -> None:
    if _libc().unshare(kind) != 0:
        number = ctypes.get_errno()
        hint = f"raise the limit: sysctl user.{limit}" if number == errno.ENOSPC else ""
        raise refused(operation, number, hint=hint)


def enter_netns(fd: int) -> None:
    """Move the calling thread, and no other, into the network namespace behind ``fd``."""
    _check(_libc().setns(fd, CLONE_NEWNET), "enter the network namespace")


def new_netns() -> None:
    """Move the calling thread, and no other, into a new network namespace."""
    _unshare(CLONE_NEWNET, "make a network namespace", "max_net_namespaces")


def new_mount_namespace() -> None:
    """Move the calling thread, and no other, into a mount namespace of its own, from which nothing spreads."""
    _unshare(CLONE_NEWNS, "make a mount namespace", "max_mnt_namespaces")
    mount("", "/", MS_REC | MS_PRIVATE)


def mount(source: str, target: str, flags: int, *, kind: str = "none") -> None:
    """Mount a file system of that kind, or change a mount, without data."""
    result = _libc().mount(os.fsencode(source), os.fsencode(target), kind.encode(), flags, None)
    _check(result, f"mount on {target}")


def unmount(target: str) -> None:
    """Call umount2(2) with MNT_DETACH, which works while the namespace is in use."""
    _check(_libc().umount2(os.fsencode(target), MNT_DETACH), f"unmount {target}")


def copy_descriptor(pid: int, fd: int) -> int:
    """A copy of another process's descriptor; raises a plain ``OSError`` (Linux 5.6)."""
    process = os.pidfd_open(pid)
    try:
        copy: int = _libc().syscall(SYS_PIDFD_GETFD, process, fd, 0)
    finally:
        os.close(process)
    if copy < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return copy
