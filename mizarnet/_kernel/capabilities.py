# SPDX-License-Identifier: Apache-2.0
"""Capabilities of the calling thread, which count in the initial user namespace only: eBPF asks for them there."""

from __future__ import annotations

import ctypes
import functools
import os
import struct
from contextlib import suppress

INITIAL_USER_NAMESPACE = 0xEFFFFFFD
"""Inode of the initial user namespace's file (PROC_USER_INIT_INO): the same on every kernel."""
_VERSION_3 = 0x20080522  # <linux/capability.h>, as the bits

_BITS = {
    "CAP_DAC_OVERRIDE": 1,
    "CAP_NET_ADMIN": 12,
    "CAP_SYS_PTRACE": 19,
    "CAP_SYS_ADMIN": 21,
    "CAP_MKNOD": 27,
    "CAP_PERFMON": 38,
    "CAP_BPF": 39,
}


def missing_capabilities(*names: str) -> tuple[str, ...]:
    """Which of the named capabilities the calling thread lacks; none where ``/proc`` does not tell."""
    held = 0 if in_other_user_namespace() else _effective()
    return tuple(name for name in names if not held >> _BITS[name] & 1)


def capability_sets() -> bytes:
    """The calling thread's effective, permitted and inheritable set, as capget(2) gives them."""
    sets = ctypes.create_string_buffer(24)
    _libc().capget(struct.pack("=Ii", _VERSION_3, 0), sets)
    return sets.raw


def in_other_user_namespace() -> bool:
    """Whether the process is in another user namespace than the initial one; False where ``/proc`` does not tell."""
    with suppress(OSError):
        return os.stat("/proc/self/ns/user").st_ino != INITIAL_USER_NAMESPACE
    return False


def way_to_gain() -> str:
    """What a user does about capabilities that are missing."""
    if in_other_user_namespace():
        return "run it outside of this user namespace: capabilities count in the initial one only"
    return "run as root, or grant it"


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


def _effective() -> int:
    with suppress(OSError), open("/proc/thread-self/status", encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith("CapEff:"):
                return int(line.split()[1], 16)
    return -1  # every bit
