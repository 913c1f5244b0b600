# SPDX-License-Identifier: Apache-2.0
"""The only door to the compiled extension, and the one place where its error numbers become errors."""

from __future__ import annotations

import errno as _errno
from typing import TYPE_CHECKING

from mizarnet._kernel.capabilities import missing_capabilities
from mizarnet._kernel.refusals import not_permitted
from mizarnet.errors import BpfError, KernelError, MissingLibraryError, PrivilegeError

try:
    from mizarnet._kernel.bpf._ext import ffi, lib
except ModuleNotFoundError as error:
    raise MissingLibraryError(str(error), hint="install mizarnet with pip, which compiles it") from None
except ImportError as error:  # from the dynamic linker: libbpf is missing or too old
    raise MissingLibraryError(str(error), hint="on Debian: apt-get install libbpf1") from None

__all__ = ["NETWORK_NEEDS", "CData", "check", "failure", "ffi", "lib", "libbpf_version", "text"]

if TYPE_CHECKING:
    from mizarnet._kernel.bpf._ext import CData
else:
    CData = ffi.CData

# What programs on the hooks of a device take.
NETWORK_NEEDS = ("CAP_BPF", "CAP_NET_ADMIN")


def libbpf_version() -> str:
    """Version of the libbpf in use, such as ``"v1.1"``."""
    return text(lib.libbpf_version_string())


def text(pointer: CData) -> str:
    """The text of a C string."""
    return ffi.string(pointer).decode(errors="replace")


def check(result: int, operation: str, *, needs: tuple[str, ...] = ("CAP_BPF",), said: str = "") -> int:
    """Return ``result``, or raise what a negative one stands for.

    Args:
        result: What libbpf returned; it returns the negative error number.
        operation: What was tried, in words.
        needs: The capabilities that the kernel asks for.
        said: Text of libbpf or the kernel about it.

    Raises:
        PrivilegeError: ``EPERM``, and a capability is missing.
        BpfError: Anything else.
    """
    if result < 0:
        raise failure(operation, -result, needs=needs, said=said)
    return result


def failure(
    operation: str, errno: int, *, needs: tuple[str, ...] = ("CAP_BPF",), said: str = "", hint: str = ""
) -> KernelError | PrivilegeError:
    """The error that stands for an error number of libbpf; see `check`."""
    if errno == _errno.EPERM and (missing := _missing(needs)):
        return not_permitted(operation, *missing)
    return BpfError(operation, errno=errno, kernel_message=said, hint=hint)


def _missing(needs: tuple[str, ...]) -> tuple[str, ...]:
    """Which of the capabilities this thread lacks. The kernel takes CAP_SYS_ADMIN in place of any of them."""
    return missing_capabilities(*needs) if missing_capabilities("CAP_SYS_ADMIN") else ()
