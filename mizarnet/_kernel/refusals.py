# SPDX-License-Identifier: Apache-2.0
"""The error for a system call that the kernel refused: what is missing, or the kernel's words with the way out."""

from __future__ import annotations

import errno
from collections.abc import Generator
from contextlib import contextmanager

from mizarnet._kernel.capabilities import missing_capabilities, way_to_gain
from mizarnet.errors import KernelError, MizarnetError, PrivilegeError

_REFUSED_TO_ALL = (
    "a security module, a seccomp filter or a device cgroup forbids it: the kernel's log may say which"
)


def not_permitted(operation: str, *needed: str, said: str = "") -> PrivilegeError:
    """The error for an operation that takes the capabilities ``needed``, with what the kernel ``said``."""
    tail = f" ({said})" if said else ""
    missing = missing_capabilities(*needed)
    if missing:
        text = f"{operation}: not permitted, missing {', '.join(missing)}{tail}"
        return PrivilegeError(text, missing=missing, hint=way_to_gain())
    text = f"{operation}: not permitted, though {', '.join(needed)} is there{tail}"
    return PrivilegeError(text, missing=(), hint=_REFUSED_TO_ALL)


def refused(
    operation: str, number: int, *, capability: str = "CAP_SYS_ADMIN", hint: str = ""
) -> MizarnetError:
    """The error for a system call that failed with errno ``number``."""
    if number in (errno.EPERM, errno.EACCES):
        return not_permitted(operation, capability)
    return KernelError(operation, errno=number, hint=hint)


@contextmanager
def explained(operation: str, *, capability: str = "CAP_SYS_ADMIN") -> Generator[None, None, None]:
    """Raise the error of the tree for a plain ``OSError`` of the block.

    Args:
        operation: What is tried, in words.
        capability: What the kernel asks for.
    """
    try:
        yield
    except MizarnetError:  # many of which are OSErrors, too
        raise
    except OSError as error:
        raise refused(operation, error.errno or errno.EIO, capability=capability) from None
