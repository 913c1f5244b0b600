# SPDX-License-Identifier: Apache-2.0
"""Descriptors of MACVTAP devices, without a node in ``/dev`` that anybody sees.

The character device carries no namespace: what counts is who opens it. A socket behind a descriptor belongs to the
opener's namespace, so the opener is a thread inside the device's.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

from mizarnet._kernel.netlink._syscalls import copy_descriptor, enter_netns, mount, new_mount_namespace
from mizarnet._kernel.netlink.link import Link
from mizarnet._kernel.netlink.session import Session
from mizarnet._kernel.refusals import explained, refused
from mizarnet._kernel.threads import call_in_thread

# <linux/if_tun.h>
_TUNSETIFF = 0x400454CA
_TUNSETOFFLOAD = 0x400454D0
_TUNSETVNETHDRSZ = 0x400454D8
_TUNGETIFF = 0x800454D2
_IFREQ_BYTES = 40
_IFF_TAP, _IFF_MULTI_QUEUE, _IFF_NO_PI, _IFF_VNET_HDR = 0x0002, 0x0100, 0x1000, 0x4000
_OFFLOADS = 0x01 | 0x02 | 0x04  # checksum, TSO for IPv4, TSO for IPv6
VNET_HEADER_BYTES = 12
"""Bytes before each frame: ``struct virtio_net_hdr_v1`` of virtio 1.0."""

_ALL_TAKEN = "a device has at most 256 descriptors: give fewer queues=, or close others of this endpoint"

T = TypeVar("T")


def open_macvtap(session: Session, link: Link, queues: int) -> list[int]:
    """Open descriptors of a MACVTAP device: tap frames with a virtio header, checksum and TSO offloads on.

    Args:
        session: Session of the device's namespace.
        link: Link of the device.
        queues: How many descriptors, one for each queue.

    Raises:
        KernelError: The kernel refused.
        PrivilegeError: CAP_SYS_ADMIN, CAP_MKNOD or CAP_NET_ADMIN is missing.
    """
    return _inside(session, lambda: _open_all(link, queues))


def macvtap_holders(session: Session, link: Link) -> set[int]:
    """Ids of the processes that have a descriptor of the device open, or are not for this process to look into.

    A VM must not lose its network by mistake. But a process that ``/proc`` does not show, being outside of this one's
    pid namespace, is not found, and neither is a descriptor that is on its way through a socket.
    """
    device = _inside(session, lambda: _device_number(link))
    with explained("look for descriptors in /proc"):
        processes = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        return {pid for pid in processes if _may_hold(pid, device)}


def _inside(session: Session, work: Callable[[], T]) -> T:
    """Call ``work`` in the session's namespace and in a mount namespace of its own, which ends with the call."""
    with session.open_netns() as netns:
        return call_in_thread(partial(_enter, netns.fileno(), work), name="mizarnet-macvtap")


def _enter(netns: int, work: Callable[[], T]) -> T:
    enter_netns(netns)
    new_mount_namespace()
    return work()


def _open_all(link: Link, queues: int) -> list[int]:
    number = _device_number(link)
    mount("tmpfs", "/run", 0, kind="tmpfs")  # the host's may refuse device nodes
    opened: list[int] = []
    try:
        os.mknod("/run/tap", stat.S_IFCHR | 0o600, number)
        for _ in range(queues):
            opened.append(os.open("/run/tap", os.O_RDWR | os.O_CLOEXEC))
            _set_up(opened[-1], multi_queue=queues > 1)
    except OSError as error:
        for fd in opened:
            os.close(fd)
        number, hint = error.errno or errno.EIO, _ALL_TAKEN if error.errno == errno.EBUSY else ""
        raise refused(
            f"open a descriptor of {link.name}", number, capability="CAP_MKNOD", hint=hint
        ) from None
    return opened


def _device_number(link: Link) -> int:
    """Number of the character device, from a sysfs that the thread mounts: it shows the mounter's namespace."""
    mount("sysfs", "/sys", 0, kind="sysfs")
    with explained(f"find the character device of {link.name}"):
        text = Path(f"/sys/class/net/{link.name}/tap{link.ifindex}/dev").read_text()
    major, minor = map(int, text.strip().split(":"))
    return os.makedev(major, minor)


def _set_up(fd: int, *, multi_queue: bool) -> None:
    flags = _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR | (_IFF_MULTI_QUEUE if multi_queue else 0)
    # The name is ignored: the descriptor knows its device.
    fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", b"", flags))
    fcntl.ioctl(fd, _TUNSETVNETHDRSZ, struct.pack("i", VNET_HEADER_BYTES))
    fcntl.ioctl(fd, _TUNSETOFFLOAD, _OFFLOADS)


def _may_hold(pid: int, device: int) -> bool:
    """Whether a process has a descriptor of a character device, or must not be looked into."""
    try:
        return any(
            _character_device(descriptor) == device and _is_connected(pid, int(descriptor.name))
            for descriptor in Path(f"/proc/{pid}/fd").iterdir()
        )
    except (FileNotFoundError, ProcessLookupError):
        return False  # it ended
    except PermissionError:
        return pid != _INIT


_INIT = 1
"""Has no VM of ours, and in a sandbox is often not for root to look into, either."""


def _character_device(descriptor: Path) -> int | None:
    """Number of the character device that a descriptor is of; raises ``PermissionError`` if its process is closed."""
    try:
        status = descriptor.stat()
    except PermissionError:
        with suppress(FileNotFoundError):
            descriptor.readlink()  # goes well if it is the file's own file system that refuses, as FUSE does
        return None
    except OSError:
        return None  # closed meanwhile
    return status.st_rdev if stat.S_ISCHR(status.st_mode) else None


def _is_connected(pid: int, fd: int) -> bool:
    """Whether a descriptor still has its device: the number of one that was deleted passes to a younger one."""
    try:
        if pid == os.getpid():
            return _has_device(fd)
        copy = copy_descriptor(pid, fd)
    except OSError as error:
        # What must not be looked into counts.
        return error.errno not in (errno.ESRCH, errno.EBADF)
    try:
        return _has_device(copy)
    finally:
        os.close(copy)


def _has_device(fd: int) -> bool:
    try:
        fcntl.ioctl(fd, _TUNGETIFF, bytes(_IFREQ_BYTES))
    except OSError as error:
        if error.errno != errno.ENOLINK:
            raise
        return False
    return True
