# SPDX-License-Identifier: Apache-2.0
"""Becoming another user, for good: in a child made by fork."""

from __future__ import annotations

import ctypes
import os
import struct

NOBODY = 65534
CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21, "CAP_PERFMON": 38, "CAP_BPF": 39}
PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP = 28, 4
CAPABILITY_VERSION_3 = 0x20080522


def become_nobody_with(*capabilities: str) -> None:
    """Become a user who is not root and has these capabilities, no others."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "keep the capabilities of root")
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    wanted = sum(1 << CAPABILITIES[name] for name in capabilities)
    low, high = wanted & 0xFFFFFFFF, wanted >> 32
    header = struct.pack("=Ii", CAPABILITY_VERSION_3, 0)
    sets = struct.pack("=6I", low, low, 0, high, high, 0)  # effective, permitted, inheritable
    if libc.capset(header, sets):
        raise OSError(ctypes.get_errno(), "keep some capabilities")
