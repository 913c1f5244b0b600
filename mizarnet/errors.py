# SPDX-License-Identifier: Apache-2.0
"""Every error that mizarnet raises, in one closed tree.

::

    MizarnetError
    ├─ InvalidValueError (ValueError)          a value that can never be right; no system call was made
    │  └─ MtuError                             an MTU that does not fit the underlay or the tunnel
    ├─ InvalidTypeError (TypeError)            an argument of the wrong type; no system call was made
    ├─ ClosedError (ValueError)                the handle was closed
    ├─ ForkedError (RuntimeError)              the handle was made before a fork
    ├─ StaleHandleError (RuntimeError)         the agent behind the handle was replaced or detached
    ├─ PrivilegeError (PermissionError)        a capability is missing
    ├─ UntrustedNamespaceError (PermissionError)  the namespace belongs to another user namespace
    ├─ UnsupportedError (NotImplementedError)  this kernel cannot do it
    ├─ ExistsError (FileExistsError)           the name, address or port is taken, or an argument differs
    ├─ NotFoundError (LookupError)
    │  ├─ TunnelNotFoundError
    │  ├─ UnderlayNotFoundError
    │  ├─ AgentNotFoundError
    │  ├─ SwitchNotFoundError
    │  ├─ NetnsNotFoundError (FileNotFoundError)
    │  └─ EndpointNotFoundError (KeyError)     also for a missing key of a table
    ├─ InUseError (OSError)                    endpoints still depend on it
    ├─ LocalEndpointError (PermissionError)    the key belongs to a local endpoint: use Endpoint
    ├─ CapacityError (OSError)                 a table is full
    ├─ LayoutError (ValueError)                C and Python disagree about a structure
    ├─ SelfTestError                           a program does something else with a frame than it should
    ├─ LockTimeoutError (TimeoutError)         another process kept the lock too long
    ├─ BulkError                               several items failed; the others were done
    └─ KernelError (OSError)                   the kernel refused a call
       ├─ NetlinkError                         … over rtnetlink
       └─ BpfError                             … over bpf(2)
          └─ VerifierError                     … because the verifier rejected a program

``OutdatedWarning`` (UserWarning) is no error: what was asked for was done.

Each error is also the builtin named in brackets, carries its facts as attributes, says what to do in
``hint``, and survives pickling.
"""

from __future__ import annotations

import errno as _errno
import os
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = [
    "AgentNotFoundError",
    "BpfError",
    "BulkError",
    "CapacityError",
    "ClosedError",
    "EndpointNotFoundError",
    "ExistsError",
    "ForkedError",
    "InUseError",
    "InvalidTypeError",
    "InvalidValueError",
    "KernelError",
    "LayoutError",
    "LocalEndpointError",
    "LockTimeoutError",
    "MizarnetError",
    "MtuError",
    "NetlinkError",
    "NetnsNotFoundError",
    "NotFoundError",
    "OutdatedWarning",
    "PrivilegeError",
    "SelfTestError",
    "StaleHandleError",
    "SwitchNotFoundError",
    "TunnelNotFoundError",
    "UnderlayNotFoundError",
    "UnsupportedError",
    "UntrustedNamespaceError",
    "VerifierError",
]


def _rebuild(cls: type[MizarnetError], message: str, facts: dict[str, Any]) -> MizarnetError:
    return cls(message, **facts)


class MizarnetError(Exception):
    """Root of the tree.

    Attributes:
        message: What went wrong.
        hint: What to do about it; empty when nothing sensible can be said.
    """

    hint: str

    def __init__(self, message: str, *, hint: str = "", **facts: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self._facts = {"hint": hint, **facts}
        for name, value in facts.items():
            setattr(self, name, value)

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self._facts)


class InvalidValueError(MizarnetError, ValueError):
    """A value that can never be right. Raised before any system call.

    Attributes:
        argument: Name of the argument.
        value: What was given.
    """

    argument: str
    value: object

    def __init__(self, message: str, *, argument: str, value: object, hint: str = "") -> None:
        super().__init__(message, argument=argument, value=value, hint=hint)


class MtuError(InvalidValueError):
    """An MTU that does not fit into the underlay's (or the tunnel's) MTU; ``value`` is in bytes."""


class InvalidTypeError(MizarnetError, TypeError):
    """An argument of the wrong type. Raised before any system call."""

    argument: str

    def __init__(self, message: str, *, argument: str, hint: str = "") -> None:
        super().__init__(message, argument=argument, hint=hint)


class ClosedError(MizarnetError, ValueError):
    """The handle was closed; open it again."""


class ForkedError(MizarnetError, RuntimeError):
    """The handle was made by the parent process; open it again after the fork."""


class StaleHandleError(MizarnetError, RuntimeError):
    """The kernel objects behind this handle were replaced or are gone; nothing was written."""


class PrivilegeError(MizarnetError, PermissionError):
    """A privilege is missing.

    Attributes:
        missing: Capability names, such as ``CAP_NET_ADMIN``.
    """

    missing: tuple[str, ...]

    def __init__(self, message: str, *, missing: Sequence[str], hint: str = "") -> None:
        super().__init__(message, missing=tuple(missing), hint=hint)


class UntrustedNamespaceError(MizarnetError, PermissionError):
    """The namespace belongs to another user namespace, whose root could reach into the tunnel.

    Attributes:
        netns: The namespace, as it was named.
    """

    netns: str

    def __init__(self, message: str, *, netns: str, hint: str = "") -> None:
        super().__init__(message, netns=netns, hint=hint)


class UnsupportedError(MizarnetError, NotImplementedError):
    """This kernel (or this build of it) cannot do what was asked.

    Attributes:
        feature: What is missing, e.g. ``"geneve"``.
    """

    feature: str

    def __init__(self, message: str, *, feature: str, hint: str = "") -> None:
        super().__init__(message, feature=feature, hint=hint)


class ExistsError(MizarnetError, FileExistsError):
    """Something of that name, address or port exists, or it exists with other arguments.

    Attributes:
        holder: What is in the way (a device, an endpoint), as text.
        differences: Argument name to ``(wanted, existing)``, when the object itself exists but differs.
    """

    holder: str
    differences: Mapping[str, tuple[object, object]]

    def __init__(
        self,
        message: str,
        *,
        holder: str = "",
        differences: Mapping[str, tuple[object, object]] | None = None,
        hint: str = "",
    ) -> None:
        super().__init__(message, holder=holder, differences=dict(differences or {}), hint=hint)


class NotFoundError(MizarnetError, LookupError):
    """What was named does not exist."""


class TunnelNotFoundError(NotFoundError):
    """There is no mizarnet tunnel of that name in that namespace."""


class UnderlayNotFoundError(NotFoundError):
    """There is no such underlay interface, or it has no usable address."""


class AgentNotFoundError(NotFoundError):
    """No transit agent is attached to that tunnel."""


class SwitchNotFoundError(NotFoundError):
    """This host is no transit switch."""


class NetnsNotFoundError(NotFoundError, FileNotFoundError):
    """There is no such network namespace."""


class EndpointNotFoundError(NotFoundError, KeyError):
    """No such endpoint, or no such key in a table."""


class InUseError(MizarnetError, OSError):
    """Endpoints still depend on the object.

    Attributes:
        users: Names of (some of) the endpoints.
    """

    users: tuple[str, ...]

    def __init__(self, message: str, *, users: Sequence[str], hint: str = "") -> None:
        super().__init__(message, users=tuple(users), hint=hint)
        self.errno: int | None = _errno.EBUSY


class LocalEndpointError(MizarnetError, PermissionError):
    """The key of the table belongs to a local endpoint, which only ``Endpoint`` may change."""


class CapacityError(MizarnetError, OSError):
    """A table is full; nothing was changed.

    Attributes:
        table: Which one.
        capacity: How many entries it can hold.
        used: How many it holds.
    """

    table: str
    capacity: int
    used: int

    def __init__(self, message: str, *, table: str, capacity: int, used: int, hint: str = "") -> None:
        super().__init__(message, table=table, capacity=capacity, used=used, hint=hint)
        self.errno: int | None = _errno.ENOSPC


class LayoutError(MizarnetError, ValueError):
    """The BPF object, or what stands in a map, and the Python records disagree about a structure.

    Attributes:
        struct: Name of the C structure or enumeration.
        differences: One line each.
    """

    struct: str
    differences: tuple[str, ...]

    def __init__(self, message: str, *, struct: str, differences: Sequence[str], hint: str = "") -> None:
        super().__init__(message, struct=struct, differences=tuple(differences), hint=hint)


class SelfTestError(MizarnetError):
    """A program does something else with a frame than it should.

    Attributes:
        program: ``"agent"``, ``"guard"`` or ``"switch"``.
        frame: What the frame is called, and the tunnel it was for.
        wanted: What the program should do, as far as it does not.
        found: What it does instead.
    """

    program: str
    frame: str
    wanted: str
    found: str

    def __init__(
        self, message: str, *, program: str, frame: str, wanted: str, found: str, hint: str = ""
    ) -> None:
        super().__init__(message, program=program, frame=frame, wanted=wanted, found=found, hint=hint)


class LockTimeoutError(MizarnetError, TimeoutError):
    """Another process held the lock for longer than the timeout.

    Attributes:
        timeout: Seconds waited.
        pid: Id of the process that holds it, as this process sees it; None where nothing tells.
    """

    timeout: float
    pid: int | None

    def __init__(self, message: str, *, timeout: float, pid: int | None = None, hint: str = "") -> None:
        super().__init__(message, timeout=timeout, pid=pid, hint=hint)


class BulkError(MizarnetError):
    """Some items of a bulk call failed; each is all or nothing, and the others were done.

    Attributes:
        failed: Item name to the error it met.
        done: Names of the items that succeeded.
    """

    failed: Mapping[str, Exception]
    done: tuple[str, ...]

    def __init__(
        self, message: str, *, failed: Mapping[str, Exception], done: Sequence[str], hint: str = ""
    ) -> None:
        super().__init__(message, failed=dict(failed), done=tuple(done), hint=hint)


class KernelError(MizarnetError, OSError):
    """The kernel refused a call.

    Attributes:
        errno: The error number.
        operation: What was tried, in words.
        kernel_message: The kernel's own text (netlink extended acknowledgement, libbpf's log); may be empty.
    """

    errno: int
    operation: str
    kernel_message: str

    def __init__(
        self, operation: str, *, errno: int, kernel_message: str = "", hint: str = "", **facts: Any
    ) -> None:
        name = _errno.errorcode.get(errno, str(errno))
        said = f" ({kernel_message})" if kernel_message else ""
        super().__init__(f"{operation}: {os.strerror(errno)} [{name}]{said}", hint=hint, **facts)
        self.operation = operation
        self.kernel_message = kernel_message
        self.errno = errno  # pyright: ignore[reportIncompatibleVariableOverride]  OSError's may be None
        self.strerror: str | None = os.strerror(errno)
        self._init = {"errno": errno, "kernel_message": kernel_message, "hint": hint, **facts}

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.operation, self._init)


class NetlinkError(KernelError):
    """The kernel refused an rtnetlink request."""


class BpfError(KernelError):
    """The kernel or libbpf refused a BPF operation."""


class VerifierError(BpfError):
    """The verifier rejected a program.

    Attributes:
        program: Name of the program.
        log: The verifier's whole log, line by line.
    """

    program: str
    log: tuple[str, ...]

    def __init__(
        self,
        operation: str,
        *,
        errno: int,
        program: str,
        log: Sequence[str],
        kernel_message: str = "",
        hint: str = "",
    ) -> None:
        super().__init__(
            operation,
            errno=errno,
            kernel_message=kernel_message,
            hint=hint,
            program=program,
            log=tuple(log),
        )

    def __str__(self) -> str:
        shown = self.log[-6:]
        omitted = len(self.log) - len(shown)
        lines = [super().__str__(), *(f"    {line}" for line in shown)]
        if omitted:
            lines.insert(1, f"    ({omitted} lines omitted, all in .log)")
        return "\n".join(lines)


class OutdatedWarning(UserWarning):
    """The programs that run are of another build than this package: they work, and can be replaced."""
