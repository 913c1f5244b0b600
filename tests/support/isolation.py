# SPDX-License-Identifier: Apache-2.0
"""A run of the tests keeps to itself, and leaves nothing behind however it ends.

In a mount namespace of its own, with its own ``/run/netns`` and ``/run/mizarnet``, its names and locks can meet nobody
else's, and the kernel removes them with the last process of the run. There is no BPF file system in it.
"""

from __future__ import annotations

import ctypes
import os

CLONE_NEWNS = 0x00020000
MS_PRIVATE, MS_REC = 1 << 18, 1 << 14
MNT_DETACH = 2
_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _mount(kind: str, target: str, data: str) -> None:
    done = _libc.mount(kind.encode(), target.encode(), kind.encode(), 0, data.encode())
    _check(done, f"mount {kind} at {target}")


def isolate() -> None:
    """Move this thread, and every thread and process it starts from now on, to file systems of its own."""
    _check(_libc.unshare(CLONE_NEWNS), "unshare the mount namespace")
    _check(_libc.mount(None, b"/", None, MS_PRIVATE | MS_REC, None), "make mounts private")
    for directory, mode in (("/run/netns", 0o755), ("/run/mizarnet", 0o700)):
        os.makedirs(directory, exist_ok=True)
        _mount("tmpfs", directory, f"mode={mode:o}")
    if os.path.ismount("/sys/fs/bpf"):
        _check(_libc.umount2(b"/sys/fs/bpf", MNT_DETACH), "unmount the BPF file system")
