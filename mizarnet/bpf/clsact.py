# SPDX-License-Identifier: Apache-2.0
"""Programs on clsact hooks, for kernels before 6.6.

A clsact filter belongs to its device: it needs no pin, and no descriptor keeps it. It is found again by
device, direction, priority and handle. As with tcx, an interface index means what it means in the network
namespace of the calling *thread*, here in every call.
"""

from __future__ import annotations

import errno as _errno

import attrs

from mizarnet.bpf._lib import CData, check, ffi, lib
from mizarnet.bpf._log import listening
from mizarnet.bpf._qdisc import filter_programs, ingress_qdisc
from mizarnet.bpf.link import Direction, device_exists
from mizarnet.bpf.program import Program, program_label
from mizarnet.errors import ExistsError, NotFoundError, StaleHandleError

_NEEDS = ("CAP_NET_ADMIN",)
_POINTS = {Direction.INGRESS: lib.BPF_TC_INGRESS, Direction.EGRESS: lib.BPF_TC_EGRESS}
_PARENTS = {Direction.INGRESS: 0xFFFFFFF2, Direction.EGRESS: 0xFFFFFFF3}  # TC_H_CLSACT with TC_H_MIN_...


@attrs.frozen(kw_only=True)
class ClsactLink:
    """A direct-action filter of ours on a clsact hook; only its place, so there is nothing to close.

    Attributes:
        ifindex: Index of the device.
        direction: Side of the device.
        priority: Filters run in rising priority.
        handle: Number among the filters of that priority.
    """

    ifindex: int
    direction: Direction
    priority: int
    handle: int

    @property
    def program_id(self) -> int:
        """Number of the program there now.

        Raises:
            NotFoundError: There is no filter, or no device, any more.
        """
        found = _query(self)
        if found is None:
            raise NotFoundError(f"there is no {self}")
        return found

    def update(self, program: Program, *, expected: Program | None = None) -> None:
        """Put ``program`` in place of the one there, with no packet in between.

        The comparison with ``expected`` comes before the exchange, not with it: the kernel has no compare and
        swap here, so callers who may meet each other hold a lock.

        Raises:
            StaleHandleError: Another program than ``expected`` is there; nothing was changed.
            NotFoundError: There is no filter, or no device, any more.
        """
        attached = self.program_id
        if expected is not None and attached != expected.id:
            message = f"{self} runs program {attached}, not {expected.name} ({expected.id})"
            raise StaleHandleError(message)
        _put(self, program, flags=lib.BPF_TC_F_REPLACE)

    def detach(self, *, expected: Program | None = None) -> None:
        """Remove our filter and nothing else; the clsact stays, others may use it. Succeeds if there is none.

        Raises:
            StaleHandleError: Another program than ``expected`` is there; nothing was changed.
        """
        attached = _query(self)
        if attached is None:
            return
        if expected is not None and attached != expected.id:
            raise StaleHandleError(f"{self} runs program {attached}, not {expected.id}")
        with listening() as said:
            result = lib.bpf_tc_detach(_hook(self.ifindex, self.direction), _options(self))
        if result != -_errno.ENOENT:
            check(result, f"remove {self}", needs=_NEEDS, said="; ".join(said))

    def __str__(self) -> str:
        return f"filter {self.priority}/{self.handle} on {self.direction.value} of interface {self.ifindex}"


def attach_clsact(
    program: Program, ifindex: int, *, direction: Direction, priority: int, handle: int
) -> ClsactLink:
    """Attach a sched_cls ``program`` as a direct-action filter, making the clsact if there is none.

    Acts in the network namespace of the calling thread. With ``priority`` 1 only other filters of priority 1
    run before it.

    Raises:
        NotFoundError: There is no such device.
        ExistsError: The place is taken, or an ``ingress`` qdisc is in the way of the clsact.
        PrivilegeError: ``CAP_NET_ADMIN`` or ``CAP_BPF`` is missing.
        BpfError: The kernel refused.
    """
    _make_clsact(ifindex, direction)
    link = ClsactLink(ifindex=ifindex, direction=direction, priority=priority, handle=handle)
    _put(link, program, flags=0)
    return link


def open_clsact(ifindex: int, *, direction: Direction, priority: int, handle: int) -> ClsactLink:
    """Adopt the filter at that place.

    Raises:
        NotFoundError: There is none.
    """
    link = ClsactLink(ifindex=ifindex, direction=direction, priority=priority, handle=handle)
    _ = link.program_id
    return link


def query_clsact(ifindex: int, *, direction: Direction, priority: int, handle: int) -> int | None:
    """Number of the program at that place; None if there is no filter, no clsact or no device.

    Acts in the network namespace of the calling thread.

    Raises:
        PrivilegeError: ``CAP_NET_ADMIN`` is missing.
        BpfError: The kernel refused.
    """
    return _query(ClsactLink(ifindex=ifindex, direction=direction, priority=priority, handle=handle))


def query_filters(ifindex: int, *, direction: Direction) -> list[int]:
    """Numbers of the programs of all filters on a clsact hook, in the order in which they run; 0: no eBPF program.

    Acts in the network namespace of the calling thread. A device that is gone has none.
    """
    return filter_programs(ifindex, _PARENTS[direction])


def _query(link: ClsactLink) -> int | None:
    # An "ingress" qdisc would answer for egress with its ingress filters.
    if ingress_qdisc(link.ifindex) != "clsact":
        return None
    opts = _options(link)
    with listening(expected=True) as said:
        result = lib.bpf_tc_query(_hook(link.ifindex, link.direction), opts)
    # EINVAL: the clsact never had a filter, so the kernel finds no chain to look in.
    if result in (-_errno.ENOENT, -_errno.ENODEV, -_errno.EINVAL):
        return None
    check(result, f"query {link}", needs=_NEEDS, said="; ".join(said))
    return int(opts.prog_id)


def _make_clsact(ifindex: int, direction: Direction) -> None:
    with listening(expected=True) as said:
        result = lib.bpf_tc_hook_create(_hook(ifindex, direction))
    if result < 0 and not device_exists(ifindex):
        raise NotFoundError(f"there is no interface {ifindex} in this network namespace")
    if result != -_errno.EEXIST:
        check(result, f"make a clsact on interface {ifindex}", needs=_NEEDS, said="; ".join(said))
    elif (kind := ingress_qdisc(ifindex)) != "clsact":
        message = f"interface {ifindex} has a qdisc {kind!r} in the place of a clsact"
        raise ExistsError(message, holder=kind, hint="remove it, or attach with tcx (Linux 6.6)")


def _hook(ifindex: int, direction: Direction) -> CData:
    facts = {
        "sz": ffi.sizeof("struct bpf_tc_hook"),
        "ifindex": ifindex,
        "attach_point": _POINTS[direction],
    }
    return ffi.new("struct bpf_tc_hook *", facts)


def _options(link: ClsactLink) -> CData:
    facts = {"sz": ffi.sizeof("struct bpf_tc_opts"), "priority": link.priority, "handle": link.handle}
    return ffi.new("struct bpf_tc_opts *", facts)


def _put(link: ClsactLink, program: Program, *, flags: int) -> None:
    opts = _options(link)
    opts.prog_fd, opts.flags = program.fileno(), flags
    with listening() as said:
        result = lib.bpf_tc_attach(_hook(link.ifindex, link.direction), opts)
    if result == -_errno.EEXIST:
        holder = program_label(link.program_id)
        raise ExistsError(f"{link} is taken by {holder}", holder=holder)
    operation = f"attach {program.name!r} as {link}"
    check(result, operation, needs=("CAP_BPF", *_NEEDS), said="; ".join(said))
