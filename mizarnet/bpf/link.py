# SPDX-License-Identifier: Apache-2.0
"""Links: programs attached to tcx and XDP hooks, and what else is attached there.

A link detaches its program when its last descriptor is closed, unless it is pinned. An interface index means
what it means in the network namespace of the calling *thread*: enter the right one first. A link, once made,
works from anywhere.
"""

from __future__ import annotations

import enum
import errno as _errno
import socket
from typing import Self

import attrs

from mizarnet.bpf._lib import CData, check, failure, ffi, lib
from mizarnet.bpf._log import listening
from mizarnet.bpf.fd import Fd, Handle
from mizarnet.bpf.features import has_tcx
from mizarnet.bpf.pin import Kind, open_pin, pin
from mizarnet.bpf.program import Program, program_label
from mizarnet.errors import ExistsError, NotFoundError, StaleHandleError, UnsupportedError

_NEEDS = ("CAP_BPF", "CAP_NET_ADMIN")

# More programs than one hook takes (the kernel's BPF_MPROG_MAX is 64).
_MAX_PROGRAMS = 64


class Direction(enum.Enum):
    """Side of a device, seen from the host: ingress is what the device receives."""

    INGRESS = "ingress"
    EGRESS = "egress"


class XdpMode(enum.Enum):
    """How an XDP program runs: in the driver, in the generic hook above it, or as the kernel chooses."""

    NATIVE = "native"
    GENERIC = "generic"
    AUTO = "auto"


_TCX_HOOKS = {Direction.INGRESS: lib.MZN_TCX_INGRESS, Direction.EGRESS: lib.MZN_TCX_EGRESS}
_XDP_FLAGS = {
    XdpMode.NATIVE: lib.XDP_FLAGS_DRV_MODE,
    XdpMode.GENERIC: lib.XDP_FLAGS_SKB_MODE,
    XdpMode.AUTO: 0,
}
_LINK_TYPES = {lib.MZN_LINK_TYPE_TCX: "tcx", lib.MZN_LINK_TYPE_XDP: "xdp"}


class Link(Handle):
    """A program on a hook of a device.

    Attributes:
        id: The kernel's number for the link.
        type: ``"tcx"``, ``"xdp"``, or ``"other"``.
        direction: Of a tcx link; None otherwise.
    """

    def __init__(self, fd: Fd) -> None:
        """Take over a descriptor of a link."""
        super().__init__(fd)
        info = self._info()
        self.id: int = int(info.id)
        self.type: str = _LINK_TYPES.get(info.type, "other")
        self.direction: Direction | None = _direction(info.attach_type) if self.type == "tcx" else None

    @classmethod
    def open_pinned(cls, path: str) -> Self:
        """Open the link pinned at ``path``.

        Raises:
            NotFoundError: Nothing is pinned there.
            BpfError: It is something else.
        """
        return cls(Fd(open_pin(path, Kind.LINK), what=f"link pinned at {path}"))

    def pin(self, path: str) -> None:
        """Keep the link, and so its program attached, under ``path`` on a bpffs.

        Raises:
            ExistsError: Something is pinned there.
        """
        pin(self.fileno(), path)

    @property
    def ifindex(self) -> int:
        """Index of the device, in its own network namespace; 0 if it is gone or the link was detached."""
        return int(self._info().ifindex)

    @property
    def program_id(self) -> int:
        """Number of the program attached now."""
        return int(self._info().prog_id)

    def update(self, program: Program, *, expected: Program | None = None) -> None:
        """Put ``program`` in place of the one attached, at the same position, with no packet in between.

        Args:
            program: The new one.
            expected: Do it only if this one is attached now (compare and swap).

        Raises:
            StaleHandleError: Another program than ``expected`` is attached; nothing was changed.
            NotFoundError: The device is gone, or the link was detached.
            BpfError: The kernel refused, for instance another type of program.
        """
        opts = ffi.new("struct bpf_link_update_opts *", {"sz": ffi.sizeof("struct bpf_link_update_opts")})
        if expected is not None:
            opts.flags, opts.old_prog_fd = lib.BPF_F_REPLACE, expected.fileno()
        result = lib.bpf_link_update(self.fileno(), program.fileno(), opts)
        if result < 0:
            raise self._update_failure(-result, program, expected)

    def detach(self) -> None:
        """Take the program off the hook; a link whose device is gone has nothing to take off."""
        result = lib.bpf_link_detach(self.fileno())
        if result != -_errno.ENOLINK:
            check(result, f"detach link {self.id}", needs=_NEEDS)

    def _info(self) -> CData:
        info = ffi.new("struct mzn_link_info *")
        check(lib.mzn_read_link_info(self.fileno(), info), f"read facts of {self._fd.what}")
        return info

    def _update_failure(self, errno: int, program: Program, expected: Program | None) -> Exception:
        if errno == _errno.ENOLINK:
            return NotFoundError(f"the device of link {self.id} is gone, or the link was detached")
        attached = self.program_id
        # The kernel answers EPERM to a failed comparison, as to a missing capability.
        if expected is not None and attached != expected.id:
            return StaleHandleError(
                f"link {self.id} runs program {attached}, not {expected.name} ({expected.id})"
            )
        return failure(f"replace program {attached} by {program.name!r}", errno, needs=_NEEDS)


def attach_tcx(program: Program, ifindex: int, *, direction: Direction) -> Link:
    """Attach a sched_cls ``program`` before all others of the tcx hook of a device (kernel 6.6).

    Acts in the network namespace of the calling thread.

    Raises:
        NotFoundError: There is no such device.
        ExistsError: The program is on that hook already.
        UnsupportedError: The kernel has no tcx.
        PrivilegeError: ``CAP_BPF`` or ``CAP_NET_ADMIN`` is missing.
        BpfError: The kernel refused.
    """
    operation = f"attach {program.name!r} to tcx {direction.value} of interface {ifindex}"
    result = _create(program, ifindex, _TCX_HOOKS[direction], lib.MZN_F_BEFORE)
    if result >= 0:
        return Link(Fd(result, what=f"tcx {direction.value} link on interface {ifindex}"))
    raise _tcx_failure(operation, -result, ifindex, holders=[program.id])


def attach_xdp(program: Program, ifindex: int, *, mode: XdpMode) -> Link:
    """Attach an XDP ``program`` to a device, which takes one (kernel 5.9).

    Acts in the network namespace of the calling thread.

    Raises:
        NotFoundError: There is no such device.
        ExistsError: The device has an XDP program; ``holder`` names it.
        UnsupportedError: ``NATIVE``, and the driver has no XDP.
        PrivilegeError: ``CAP_BPF`` or ``CAP_NET_ADMIN`` is missing.
        BpfError: The kernel refused, for instance because of the MTU.
    """
    operation = f"attach {program.name!r} to {mode.value} XDP of interface {ifindex}"
    with listening() as said:
        result = _create(program, ifindex, lib.MZN_ATTACH_XDP, _XDP_FLAGS[mode])
    if result >= 0:
        return Link(Fd(result, what=f"XDP link on interface {ifindex}"))
    if result == -_errno.EOPNOTSUPP:
        message = f"{operation}: the driver cannot"
        raise UnsupportedError(message, feature="native_xdp", hint="use the generic mode")
    holders = query_xdp(ifindex).program_ids if result in (-_errno.EBUSY, -_errno.EEXIST) else []
    raise _attach_failure(operation, -result, ifindex, holders=holders, said="; ".join(said))


def query_tcx(ifindex: int, *, direction: Direction) -> list[int]:
    """Numbers of the programs on a tcx hook, in the order in which they run (kernel 6.6).

    Acts in the network namespace of the calling thread.

    Raises:
        NotFoundError: There is no such device.
        UnsupportedError: The kernel has no tcx.
    """
    ids = ffi.new("__u32[]", _MAX_PROGRAMS)
    facts = {"sz": ffi.sizeof("struct bpf_prog_query_opts"), "prog_ids": ids, "prog_cnt": _MAX_PROGRAMS}
    opts = ffi.new("struct bpf_prog_query_opts *", facts)
    result = lib.bpf_prog_query_opts(ifindex, _TCX_HOOKS[direction], opts)
    if result < 0:
        raise _tcx_failure(f"query tcx {direction.value} of interface {ifindex}", -result, ifindex)
    return [int(ids[index]) for index in range(opts.prog_cnt)]


@attrs.frozen
class XdpState:
    """What XDP a device runs.

    Attributes:
        native: Number of the program in the driver; 0 if there is none.
        generic: Number of the program in the generic hook; 0 if there is none.
        offloaded: Number of the program on the hardware; 0 if there is none.
    """

    native: int
    generic: int
    offloaded: int

    @property
    def program_ids(self) -> list[int]:
        """Numbers of all of them."""
        return [number for number in (self.native, self.generic, self.offloaded) if number]


def query_xdp(ifindex: int) -> XdpState:
    """What XDP programs a device of the calling thread's network namespace runs.

    Raises:
        NotFoundError: There is no such device.
    """
    opts = ffi.new("struct bpf_xdp_query_opts *", {"sz": ffi.sizeof("struct bpf_xdp_query_opts")})
    with listening() as said:
        result = lib.bpf_xdp_query(ifindex, 0, opts)
    if result < 0:
        raise _attach_failure(f"query XDP of interface {ifindex}", -result, ifindex, said="; ".join(said))
    return XdpState(int(opts.drv_prog_id), int(opts.skb_prog_id), int(opts.hw_prog_id))


def _create(program: Program, ifindex: int, hook: int, flags: int) -> int:
    facts = {"sz": ffi.sizeof("struct bpf_link_create_opts"), "flags": flags}
    return lib.bpf_link_create(
        program.fileno(), ifindex, hook, ffi.new("struct bpf_link_create_opts *", facts)
    )


def _tcx_failure(operation: str, errno: int, ifindex: int, *, holders: list[int] | None = None) -> Exception:
    if errno == _errno.EINVAL and not (tcx := has_tcx()):
        return UnsupportedError(f"{operation}: {tcx.reason}", feature="tcx", hint="use clsact")
    return _attach_failure(operation, errno, ifindex, holders=holders)


def _attach_failure(
    operation: str, errno: int, ifindex: int, *, holders: list[int] | None = None, said: str = ""
) -> Exception:
    """Explain a failure by looking at what is there, since the kernel says EINVAL to much."""
    if not device_exists(ifindex):
        return NotFoundError(f"{operation}: there is no such interface in this network namespace")
    if holders and errno in (_errno.EBUSY, _errno.EEXIST):
        names = ", ".join(map(program_label, holders))
        return ExistsError(f"{operation}: {names} is attached", holder=names)
    return failure(operation, errno, needs=_NEEDS, said=said)


def device_exists(ifindex: int) -> bool:
    """Whether the network namespace of the calling thread has a device of that index."""
    try:
        socket.if_indextoname(ifindex)
    except OSError:
        return False
    return True


def _direction(attach_type: int) -> Direction | None:
    return next((side for side, hook in _TCX_HOOKS.items() if hook == attach_type), None)
