# SPDX-License-Identifier: Apache-2.0
"""Settings of a network namespace under /proc/sys/net, which shows the reader's own namespace."""

from __future__ import annotations

import os
from pathlib import Path

from mizarnet._kernel.netlink.session import Session
from mizarnet._kernel.refusals import explained

_ROOT = Path("/proc/sys/net")


def read_sysctl(session: Session, key: str) -> str:
    """A setting, e.g. ``read_sysctl(session, "ipv4/ip_forward")``.

    Raises:
        KernelError: There is no such setting (ENOENT).
    """
    return session.run(_read, key)


def write_sysctl(session: Session, key: str, value: str) -> None:
    """Change a setting; one that has the value is left alone, as ``/proc/sys`` may be read-only.

    Raises:
        KernelError: There is no such setting (ENOENT), or the value is refused.
        PrivilegeError: CAP_NET_ADMIN over the namespace is missing.
    """
    session.run(_write, key, value)


def _read(key: str) -> str:
    with explained(f"read {_ROOT / key}", capability="CAP_NET_ADMIN"):
        return (_ROOT / key).read_text().strip()


def _write(key: str, value: str) -> None:
    if _read(key) == value:
        return
    with explained(f"write {_ROOT / key}", capability="CAP_NET_ADMIN"):
        fd = os.open(_ROOT / key, os.O_WRONLY | os.O_CLOEXEC)  # without O_CREAT, for an ENOENT worth its name
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
