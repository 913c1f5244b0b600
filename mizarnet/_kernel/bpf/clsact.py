# SPDX-License-Identifier: Apache-2.0
"""Programs as direct-action filters of a clsact qdisc.

A filter is found again by device, direction, priority and handle. The kernel has no compare-and-swap for it:
callers who may meet each other hold a lock, and what was put is read back.
"""

from __future__ import annotations

import errno as _errno

import attrs

from mizarnet._kernel.bpf._lib import NETWORK_NEEDS, CData, check, ffi, lib
from mizarnet._kernel.bpf._log import listening
from mizarnet._kernel.bpf._qdisc import ingress_qdisc, query_filters
from mizarnet._kernel.bpf.hook import Direction, device_exists, device_name
from mizarnet._kernel.bpf.program import Program, program_label
from mizarnet.errors import ExistsError, NotFoundError, StaleHandleError

_NEEDS = ("CAP_NET_ADMIN",)
_POINTS = {Direction.INGRESS: lib.BPF_TC_INGRESS, Direction.EGRESS: lib.BPF_TC_EGRESS}


@attrs.frozen(kw_only=True)
class ClsactPlace:
    """One place on a clsact hook. Every call acts in the calling thread's network namespace.

    Attributes:
        ifindex: Index of the device.
        direction: Side of the device.
        priority: Place in the order, which rises; with 1, only other filters of priority 1 run before it.
        handle: What tells the filter from others of that priority.
    """

    ifindex: int
    direction: Direction
    priority: int
    handle: int

    def query(self) -> int | None:
        """Id of the program there; 0 for a filter without one; None if no filter, no clsact or no device is there."""
        for found in query_filters(self.ifindex)[self.direction]:
            if (found.priority, found.handle) == (self.priority, self.handle):
                return found.program_id
        return None

    def attach(self, program: Program) -> None:
        """Attach a sched_cls ``program``, making the clsact if there is none.

        Raises:
            NotFoundError: There is no such device.
            ExistsError: The place is taken, or an ``ingress`` qdisc is in the way of the clsact.
            PrivilegeError: ``CAP_NET_ADMIN`` or ``CAP_BPF`` is missing.
            BpfError: The kernel refused.
        """
        _make_clsact(self.ifindex, self.direction)
        self._put(program, flags=0)

    def replace(self, program: Program, *, expected: Program) -> None:
        """Put ``program`` in the place of ``expected``, with no packet in between.

        Raises:
            StaleHandleError: Another program than ``expected`` was there, or another than ``program`` is there now.
            NotFoundError: There is no filter, or no device, any more.
        """
        attached = self.query()
        if attached is None:
            raise NotFoundError(f"there is no {self}")
        if attached != expected.id:
            message = f"{self} runs program {attached}, not {expected.name} ({expected.id})"
            raise StaleHandleError(message)
        self._put(program, flags=lib.BPF_TC_F_REPLACE)
        if self.query() != program.id:
            raise StaleHandleError(f"{self} was changed by somebody else meanwhile")

    def detach(self, program: Program) -> None:
        """Remove the filter of ``program`` and nothing else; the clsact stays, others may use it.

        One that is not there, or runs another program, or a device that is gone, is no error.
        """
        if self.query() != program.id:
            return
        with listening() as said:
            result = lib.bpf_tc_detach(_hook(self.ifindex, self.direction), _options(self))
        if result not in (-_errno.ENOENT, -_errno.ENODEV):
            check(result, f"remove {self}", needs=_NEEDS, said="; ".join(said))

    def _put(self, program: Program, *, flags: int) -> None:
        opts = _options(self)
        opts.prog_fd, opts.flags = program.fileno(), flags
        with listening(expected=True) as said:
            result = lib.bpf_tc_attach(_hook(self.ifindex, self.direction), opts)
        if result == -_errno.EEXIST:
            attached = self.query()
            holder = program_label(attached) if attached else "a filter without eBPF"
            command = (
                f"tc filter del dev {device_name(self.ifindex)} {self.direction.value} prio {self.priority}"
            )
            raise ExistsError(f"{self} is taken by {holder}", holder=holder, hint=f"take it off: {command}")
        operation = f"attach {program.name!r} as {self}"
        check(result, operation, needs=NETWORK_NEEDS, said="; ".join(said))

    def __str__(self) -> str:
        return f"filter {self.priority}/{self.handle} on {self.direction.value} of interface {self.ifindex}"


def _make_clsact(ifindex: int, direction: Direction) -> None:
    with listening(expected=True) as said:
        result = lib.bpf_tc_hook_create(_hook(ifindex, direction))
    if result < 0 and not device_exists(ifindex):
        raise NotFoundError(f"there is no interface {ifindex} in this network namespace")
    if result != -_errno.EEXIST:
        check(result, f"make a clsact on interface {ifindex}", needs=_NEEDS, said="; ".join(said))
    elif (kind := ingress_qdisc(ifindex)) != "clsact":
        name = device_name(ifindex)
        message = f"{name} has a qdisc {kind!r} in the place of a clsact"
        raise ExistsError(message, holder=kind, hint=f"take it off: tc qdisc del dev {name} {kind}")


def _hook(ifindex: int, direction: Direction) -> CData:
    facts = {
        "sz": ffi.sizeof("struct bpf_tc_hook"),
        "ifindex": ifindex,
        "attach_point": _POINTS[direction],
    }
    return ffi.new("struct bpf_tc_hook *", facts)


def _options(place: ClsactPlace) -> CData:
    facts = {"sz": ffi.sizeof("struct bpf_tc_opts"), "priority": place.priority, "handle": place.handle}
    return ffi.new("struct bpf_tc_opts *", facts)
