# SPDX-License-Identifier: Apache-2.0
"""Capabilities of the calling thread, and the error for those that it lacks."""

from __future__ import annotations

from contextlib import suppress

from mizarnet.errors import PrivilegeError

_BITS = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21, "CAP_PERFMON": 38, "CAP_BPF": 39}  # <linux/capability.h>


def missing_capabilities(*names: str) -> tuple[str, ...]:
    """Which of the named capabilities the calling thread lacks; none where ``/proc`` does not tell."""
    held = _effective()
    return tuple(name for name in names if not held >> _BITS[name] & 1)


def not_permitted(
    operation: str, *missing: str, said: str = "", hint: str = "run as root, or grant it"
) -> PrivilegeError:
    """The error for an operation that takes capabilities which are missing, with what the kernel ``said``."""
    message = f"{operation}: not permitted, missing {', '.join(missing)}" + (f" ({said})" if said else "")
    return PrivilegeError(message, missing=missing, hint=hint)


def _effective() -> int:
    with suppress(OSError), open("/proc/thread-self/status", encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith("CapEff:"):
                return int(line.split()[1], 16)
    return -1  # every bit
