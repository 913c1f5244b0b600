# SPDX-License-Identifier: Apache-2.0
"""Every error that mizarnet raises, in one closed tree.

::

    MizarnetError
    ├─ InvalidValueError (ValueError)          a value that can never be right; no system call was made
    │  ├─ MtuError                             an MTU that does not fit the underlay or the tunnel
    │  └─ SpecError                            a host's specification has errors, all of which it names
    ├─ InvalidTypeError (TypeError)            an argument of the wrong type; no system call was made
    ├─ ClosedError (ValueError)                the handle was closed
    ├─ ForkedError (RuntimeError)              the handle was made before a fork
    ├─ StaleHandleError (RuntimeError)         the agent behind the handle was replaced or detached
    ├─ MissingLibraryError (ImportError)       libbpf or the compiled extension cannot be loaded
    ├─ PrivilegeError (PermissionError)        a capability is missing
    ├─ UntrustedNamespaceError (PermissionError)  the namespace belongs to another user namespace
    ├─ UnsupportedError (NotImplementedError)  this kernel cannot do it
    ├─ ExistsError (FileExistsError)           the name, address or port is taken, or an argument differs
    ├─ ForeignEntryError (FileExistsError)     the entry of a table belongs to another feed
    ├─ NotFoundError (LookupError)
    │  ├─ TunnelNotFoundError
    │  ├─ UnderlayNotFoundError
    │  ├─ AgentNotFoundError
    │  ├─ SwitchNotFoundError
    │  ├─ NetnsNotFoundError (FileNotFoundError)
    │  ├─ EndpointNotFoundError (KeyError)
    │  └─ EntryNotFoundError (KeyError)        a table has no such key
    ├─ InUseError (OSError)                    endpoints still depend on it
    ├─ LocalEndpointError (PermissionError)    the key belongs to a local endpoint: use Endpoint
    ├─ CapacityError (OSError)                 a table is full
    ├─ LayoutError (ValueError)                C and Python disagree about a structure
    ├─ SelfTestError                           a program fails a frame of the package's self-test
    ├─ LockTimeoutError (TimeoutError)         another process kept the lock too long
    ├─ StalePlanError (RuntimeError)           what a plan would change is not as the plan read it
    ├─ BulkError                               several items failed; the others were done
    └─ KernelError (OSError)                   the kernel refused a call
       ├─ NetlinkError                         … over rtnetlink
       └─ BpfError                             … over bpf(2)
          └─ VerifierError                     … because the verifier rejected a program

``OutdatedWarning`` (UserWarning) is no error: the call did what was asked for.

Each error is also the builtin named in brackets, has its facts as attributes and a ``hint`` that says what to do, and
can be pickled.
"""

from __future__ import annotations

import errno as _errno
import os
from collections.abc import Mapping, Sequence
from typing import Any

from mizarnet._plain import plain

__all__ = [
    "AgentNotFoundError",
    "BpfError",
    "BulkError",
    "CapacityError",
    "ClosedError",
    "EndpointNotFoundError",
    "EntryNotFoundError",
    "ExistsError",
    "ForeignEntryError",
    "ForkedError",
    "InUseError",
    "InvalidTypeError",
    "InvalidValueError",
    "KernelError",
    "LayoutError",
    "LocalEndpointError",
    "LockTimeoutError",
    "MissingLibraryError",
    "MizarnetError",
    "MtuError",
    "NetlinkError",
    "NetnsNotFoundError",
    "NotFoundError",
    "OutdatedWarning",
    "PrivilegeError",
    "SelfTestError",
    "SpecError",
    "StaleHandleError",
    "StalePlanError",
    "SwitchNotFoundError",
    "TunnelNotFoundError",
    "UnderlayNotFoundError",
    "UnsupportedError",
    "UntrustedNamespaceError",
    "VerifierError",
]


# What to do about error numbers that stand for a limit or a setting, whatever the call was.
_ADVICE = {
    _errno.EMFILE: "close handles that are no longer needed, or raise the limit of open files (ulimit -n)",
    _errno.ENOMEM: "raise the memory limit of this process's cgroup, or attach the agent with smaller tables",
    _errno.ENOSPC: "make room on that file system",
    _errno.EROFS: "remount it writable (mount -o remount,rw), or call this where it is, such as outside the container",
}


def _rebuild(cls: type[MizarnetError], message: str, facts: dict[str, Any]) -> MizarnetError:
    return cls(message, **facts)


def _kept(fact: Any) -> Any:
    """A fact as another process gets it: in words if it cannot leave this one, such as a generator that was given."""
    import pickle

    try:
        pickle.dumps(fact)
    except Exception:  # whatever an object of the caller's raises
        return repr(fact)
    return fact


class MizarnetError(Exception):
    """Root of the tree: any error that mizarnet raises.

    Attributes:
        message: Description of what went wrong.
        hint: Advice on what to do; empty where there is none.
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

    def to_dict(self) -> dict[str, Any]:
        """Name of the class, message and facts in a form that JSON can hold."""
        facts = {name: plain(getattr(self, name)) for name in self._facts}
        return {"error": type(self).__name__, "message": self.message, **facts}

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, {name: _kept(fact) for name, fact in self._facts.items()})


class InvalidValueError(MizarnetError, ValueError):
    """A value that can never be right. Raised before any system call.

    Attributes:
        argument: Name of the argument.
        value: Value that was given.
    """

    argument: str
    value: object

    def __init__(self, message: str, *, argument: str, value: object, hint: str = "") -> None:
        super().__init__(message, argument=argument, value=value, hint=hint)


class MtuError(InvalidValueError):
    """An MTU that does not fit into the MTU of the underlay or the tunnel; ``value`` is in bytes."""


class SpecError(InvalidValueError):
    """A host's specification is wrong. All errors of it are told at once, a line each.

    Attributes:
        errors: What is wrong, and what to do, by the path of the field, such as ``endpoints[3].ip[0]``.
    """

    errors: Mapping[str, str]

    def __init__(
        self,
        message: str,
        *,
        errors: Mapping[str, str],
        argument: str = "",
        value: object = None,
        hint: str = "",
    ) -> None:
        MizarnetError.__init__(
            self,
            message,
            errors=dict(errors),
            argument=argument or next(iter(errors), ""),
            value=value,
            hint=hint,
        )

    def __str__(self) -> str:
        return "\n".join([super().__str__(), *(f"    {path}: {text}" for path, text in self.errors.items())])


class InvalidTypeError(MizarnetError, TypeError):
    """An argument of the wrong type. Raised before any system call.

    Attributes:
        argument: Name of the argument.
    """

    argument: str

    def __init__(self, message: str, *, argument: str, hint: str = "") -> None:
        super().__init__(message, argument=argument, hint=hint)


class ClosedError(MizarnetError, ValueError):
    """The handle was closed; open another."""


class ForkedError(MizarnetError, RuntimeError):
    """The handle was made by the parent process; open another in this process."""


class StaleHandleError(MizarnetError, RuntimeError):
    """The kernel objects behind this handle were replaced or are gone; nothing was written."""


class MissingLibraryError(MizarnetError, ImportError):
    """libbpf, or the extension that is compiled against it, cannot be loaded; raised by the first use of the package.

    For ``mizarnet.metrics`` it is ``prometheus_client`` that is missing. Any call may raise it for a module of the
    package that is needed for the first time: where the package was removed, or where the process may not read it any
    more, having given up privileges or changed its root directory.
    """


class PrivilegeError(MizarnetError, PermissionError):
    """A privilege is missing.

    Attributes:
        missing: Names of the missing capabilities, such as ``CAP_NET_ADMIN``; empty where something else is in the way.
    """

    missing: tuple[str, ...]

    def __init__(self, message: str, *, missing: Sequence[str], hint: str = "") -> None:
        super().__init__(message, missing=tuple(missing), hint=hint)


class UntrustedNamespaceError(MizarnetError, PermissionError):
    """The namespace belongs to another user namespace, whose root could reach into the tunnel.

    Attributes:
        netns: Namespace, as the caller named it.
    """

    netns: str

    def __init__(self, message: str, *, netns: str, hint: str = "") -> None:
        super().__init__(message, netns=netns, hint=hint)


class UnsupportedError(MizarnetError, NotImplementedError):
    """This kernel (or this build of it) cannot do what was asked.

    Attributes:
        feature: Name of the missing feature, such as ``"geneve"``.
    """

    feature: str

    def __init__(self, message: str, *, feature: str, hint: str = "") -> None:
        super().__init__(message, feature=feature, hint=hint)


class ExistsError(MizarnetError, FileExistsError):
    """Something of that name, address or port exists, or it exists with other arguments.

    Attributes:
        holder: Name of the device, endpoint or program that is in the way; may be empty.
        differences: ``(wanted, existing)`` by name of the argument, where the object exists and differs; else empty.
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


class ForeignEntryError(MizarnetError, FileExistsError):
    """The entry of a table belongs to another feed than the one that the call writes for; nothing was written.

    Attributes:
        key: Key of the entry; the first one, if there are several.
        feed: Name of the feed that the entry belongs to; empty: it was written by hand.
    """

    key: object
    feed: str

    def __init__(self, message: str, *, key: object, feed: str, hint: str = "") -> None:
        super().__init__(message, key=key, feed=feed, hint=hint)


class NotFoundError(MizarnetError, LookupError):
    """A tunnel, device, namespace, endpoint or table entry that does not exist."""


class TunnelNotFoundError(NotFoundError):
    """There is no mizarnet tunnel of that name in that namespace."""


class UnderlayNotFoundError(NotFoundError):
    """There is no such underlay interface, or it has no usable address."""


class AgentNotFoundError(NotFoundError):
    """No transit agent is attached to that tunnel, or the one there is not whole."""


class SwitchNotFoundError(NotFoundError):
    """No transit switch is attached on this host."""


class GatewayNotFoundError(NotFoundError):
    """That VNI has no gateway on this host."""


class NetnsNotFoundError(NotFoundError, FileNotFoundError):
    """There is no such network namespace."""


class EndpointNotFoundError(NotFoundError, KeyError):
    """No such endpoint on this host."""


class EntryNotFoundError(NotFoundError, KeyError):
    """No such key in a table of an agent, or in a map."""


class InUseError(MizarnetError, OSError):
    """Endpoints still depend on the object.

    Attributes:
        users: Names of the endpoints; names of their devices where no agent is attached.
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
        table: Name of the table.
        capacity: Number of entries that the table can hold.
        used: Number of entries that the table holds.
    """

    table: str
    capacity: int
    used: int

    def __init__(self, message: str, *, table: str, capacity: int, used: int, hint: str = "") -> None:
        super().__init__(message, table=table, capacity=capacity, used=used, hint=hint)
        self.errno: int | None = _errno.ENOSPC


class LayoutError(MizarnetError, ValueError):
    """The BPF object or the content of a map does not have the layout that this package knows.

    Attributes:
        struct: Name of the C structure or enumeration, or ``"maps"`` for the set of maps.
        differences: Description of each difference.
    """

    struct: str
    differences: tuple[str, ...]

    def __init__(self, message: str, *, struct: str, differences: Sequence[str], hint: str = "") -> None:
        super().__init__(message, struct=struct, differences=tuple(differences), hint=hint)


class SelfTestError(MizarnetError):
    """A program treats a frame of the package's self-test wrongly.

    Attributes:
        program: Name of the program: ``"agent"``, ``"guard"`` or ``"switch"``.
        frame: Name of the frame and, in brackets, of the tunnel that it was for.
        wanted: Expected results that differ, such as ``"verdict ACCEPTED"``.
        found: Actual results, in the same form.
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
    """Other processes or threads held the lock for longer than the timeout.

    Attributes:
        timeout: Time waited, in seconds.
        pid: Id of the process that holds the lock, in this process's pid namespace; None where the kernel does not
            tell.
    """

    timeout: float
    pid: int | None

    def __init__(self, message: str, *, timeout: float, pid: int | None = None, hint: str = "") -> None:
        super().__init__(message, timeout=timeout, pid=pid, hint=hint)


_BULK_SHOWN = 10


class StalePlanError(MizarnetError, RuntimeError):
    """Objects that a plan would change are not as they were when it was made; nothing of these was done.

    Attributes:
        changed: Names of the objects.
        report: Report of the plan: what did not depend on them was done.
    """

    changed: tuple[str, ...]
    report: Any

    def __init__(
        self, message: str, *, changed: Sequence[str], report: object = None, hint: str = ""
    ) -> None:
        super().__init__(message, changed=tuple(changed), report=report, hint=hint)


class BulkError(MizarnetError):
    """Some items of a bulk call failed; each item is all or nothing, and the others were done.

    Its text has the first ten failures, a line each.

    Attributes:
        failed: Error of each failed item, by the item's name.
        done: Names of the items that succeeded.
        report: Report of a plan that was applied; None: it was another call.
    """

    failed: Mapping[str, Exception]
    done: tuple[str, ...]
    report: Any

    def __init__(
        self,
        message: str,
        *,
        failed: Mapping[str, Exception],
        done: Sequence[str],
        report: object = None,
        hint: str = "",
    ) -> None:
        super().__init__(message, failed=dict(failed), done=tuple(done), report=report, hint=hint)

    def __str__(self) -> str:
        lines = [super().__str__(), *(f"    {name!r}: {error}" for name, error in self.failed.items())]
        more = len(lines) - 1 - _BULK_SHOWN
        return "\n".join(
            [*lines[: _BULK_SHOWN + 1], f"    and {more} more, all in .failed"] if more > 0 else lines
        )


class KernelError(MizarnetError, OSError):
    """The kernel refused a call.

    Attributes:
        errno: Error number, as in the module ``errno``.
        operation: Description of the call that was tried.
        kernel_message: Text of the kernel (netlink extended acknowledgement) or of libbpf's log; may be empty.
    """

    errno: int
    operation: str
    kernel_message: str

    def __init__(
        self, operation: str, *, errno: int, kernel_message: str = "", hint: str = "", **facts: Any
    ) -> None:
        name = _errno.errorcode.get(errno, str(errno))
        said = f" ({kernel_message})" if kernel_message else ""
        hint = hint or _ADVICE.get(errno, "")
        super().__init__(f"{operation}: {os.strerror(errno)} [{name}]{said}", hint=hint, **facts)
        self.operation = operation
        self.kernel_message = kernel_message
        self.errno = errno  # pyright: ignore[reportIncompatibleVariableOverride]  OSError's may be None
        self.strerror: str | None = os.strerror(errno)
        self._init = {"errno": errno, "kernel_message": kernel_message, "hint": hint, **facts}

    def to_dict(self) -> dict[str, Any]:
        """Name of the class, message and facts in a form that JSON can hold."""
        return {**super().to_dict(), **plain(self._init), "operation": self.operation}

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
        log: Lines of the verifier's whole log.
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
    """The programs that run are of another build than this package; they work, and ``upgrade()`` replaces them."""
