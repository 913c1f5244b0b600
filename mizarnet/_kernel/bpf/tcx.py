# SPDX-License-Identifier: Apache-2.0
"""Programs on tcx hooks (kernel 6.6), attached without links; every change says what it expects to find."""

from __future__ import annotations

import errno as _errno

import attrs

from mizarnet._kernel.bpf._lib import ffi, lib
from mizarnet._kernel.bpf.features import has_tcx
from mizarnet._kernel.bpf.hook import Direction, hook_failure
from mizarnet._kernel.bpf.program import Program
from mizarnet.errors import MizarnetError, StaleHandleError, UnsupportedError

# More programs than one hook takes (the kernel's BPF_MPROG_MAX is 64).
_MAX_PROGRAMS = 64
_HOOKS = {Direction.INGRESS: lib.MZN_TCX_INGRESS, Direction.EGRESS: lib.MZN_TCX_EGRESS}


@attrs.frozen
class TcxState:
    """What one tcx hook held at one moment.

    Attributes:
        program_ids: Ids of the programs, in the order in which they run.
        revision: Count of changes to the hook. An emptied hook begins again at 1: a stamp, not an identity.
    """

    program_ids: tuple[int, ...]
    revision: int


@attrs.frozen
class TcxHook:
    """The tcx hook on one side of a device. Every call acts in the calling thread's network namespace.

    Attributes:
        ifindex: Index of the device.
        direction: Side of the device.
    """

    ifindex: int
    direction: Direction

    def query(self) -> TcxState:
        """Read the hook.

        Raises:
            NotFoundError: There is no such device.
            UnsupportedError: The kernel has no tcx.
        """
        ids, count = ffi.new("__u32[]", _MAX_PROGRAMS), ffi.new("__u32 *", _MAX_PROGRAMS)
        revision = ffi.new("__u64 *")
        result = lib.mzn_tcx_query(self.ifindex, _HOOKS[self.direction], ids, count, revision)
        if result < 0:
            raise self._failure("query", -result)
        return TcxState(tuple(int(ids[index]) for index in range(count[0])), int(revision[0]))

    def attach(self, program: Program, *, revision: int) -> None:
        """Attach a sched_cls ``program`` before all others, if the hook is as it was at ``revision``.

        Raises:
            StaleHandleError: The hook changed since; nothing was done.
            NotFoundError: There is no such device.
            ExistsError: The program is on that hook already.
            UnsupportedError: The kernel has no tcx.
            PrivilegeError: ``CAP_BPF`` or ``CAP_NET_ADMIN`` is missing.
            BpfError: The kernel refused.
        """
        result = lib.mzn_tcx_attach(self.ifindex, _HOOKS[self.direction], program.fileno(), revision)
        if result == -_errno.ESTALE:
            raise StaleHandleError(f"{self} was changed by somebody else meanwhile")
        if result < 0:
            raise self._failure(f"attach {program.name!r} to", -result, holders=[program.id])

    def replace(self, program: Program, *, expected: Program) -> None:
        """Put ``program`` in the place of ``expected``, with no packet in between.

        Raises:
            StaleHandleError: ``expected`` is not there; nothing was changed.
            NotFoundError: There is no such device.
            BpfError: The kernel refused.
        """
        result = lib.mzn_tcx_replace(
            self.ifindex, _HOOKS[self.direction], program.fileno(), expected.fileno()
        )
        if result == -_errno.ENOENT:
            raise StaleHandleError(f"{self} does not run program {expected.name} ({expected.id})")
        if result < 0:
            raise self._failure(f"replace {expected.name!r} on", -result, holders=[program.id])

    def detach(self, program: Program) -> None:
        """Take ``program`` off the hook; one that is not there, or whose device is gone, is no error."""
        result = lib.mzn_tcx_detach(self.ifindex, _HOOKS[self.direction], program.fileno())
        if result not in (0, -_errno.ENOENT, -_errno.ENODEV):
            raise self._failure(f"detach {program.name!r} from", -result)

    def __str__(self) -> str:
        return f"tcx {self.direction.value} of interface {self.ifindex}"

    def _failure(self, verb: str, errno: int, holders: list[int] | None = None) -> MizarnetError:
        operation = f"{verb} {self}"
        if errno == _errno.EINVAL and not (tcx := has_tcx()):
            return UnsupportedError(f"{operation}: {tcx.reason}", feature="tcx", hint="use clsact")
        return hook_failure(operation, errno, self.ifindex, holders=holders or ())
