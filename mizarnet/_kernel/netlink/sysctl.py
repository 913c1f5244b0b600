# SPDX-License-Identifier: Apache-2.0
"""Settings of a network namespace under /proc/sys/net, which shows the reader's own namespace."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from mizarnet._kernel.netlink._syscalls import refused
from mizarnet._kernel.netlink.session import Session

_ROOT = Path("/proc/sys/net")


def read_sysctl(session: Session, key: str) -> str:
    """A setting, e.g. ``read_sysctl(session, "ipv4/ip_forward")``.

    Raises:
        KernelError: There is no such setting (ENOENT).
    """
    return session.run(_read, key)


def write_sysctl(session: Session, key: str, value: str) -> None:
    """Change a setting.

    Raises:
        KernelError: There is no such setting (ENOENT), or the value is refused.
        PrivilegeError: CAP_NET_ADMIN over the namespace is missing.
    """
    session.run(_write, key, value)


def _read(key: str) -> str:
    try:
        return (_ROOT / key).read_text().strip()
    except OSError as error:
        raise refused(f"read net/{key}", error.errno or errno.EIO, capability="CAP_NET_ADMIN") from None


def _write(key: str, value: str) -> None:
    try:
        fd = os.open(_ROOT / key, os.O_WRONLY | os.O_CLOEXEC)  # without O_CREAT, for an ENOENT worth its name
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
    except OSError as error:
        raise refused(f"write net/{key}", error.errno or errno.EIO, capability="CAP_NET_ADMIN") from None
