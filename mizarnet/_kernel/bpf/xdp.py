# SPDX-License-Identifier: Apache-2.0
"""The XDP program of a device, attached over netlink without a link; every change says what it expects to find."""

from __future__ import annotations

import errno as _errno

import attrs

from mizarnet._kernel.bpf._lib import CData, ffi, lib
from mizarnet._kernel.bpf._log import listening
from mizarnet._kernel.bpf.hook import device_name, hook_failure
from mizarnet._kernel.bpf.program import Program
from mizarnet._model.specs import XdpMode
from mizarnet.errors import StaleHandleError, UnsupportedError

_FLAGS = {
    XdpMode.NATIVE: lib.XDP_FLAGS_DRV_MODE,
    XdpMode.GENERIC: lib.XDP_FLAGS_SKB_MODE,
}


@attrs.frozen
class XdpState:
    """What XDP a device runs.

    Attributes:
        native: Id of the program in the driver; 0 if there is none.
        generic: Id of the program in the generic hook; 0 if there is none.
        offloaded: Id of the program on the hardware; 0 if there is none.
    """

    native: int
    generic: int
    offloaded: int

    @property
    def program_ids(self) -> list[int]:
        """Ids of all its programs."""
        return [each for each in (self.native, self.generic, self.offloaded) if each]


@attrs.frozen
class XdpHook:
    """The XDP hook of a device. Every call acts in the calling thread's network namespace.

    Attributes:
        ifindex: Index of the device.
    """

    ifindex: int

    def query(self) -> XdpState:
        """Read the hook; raises ``NotFoundError`` if there is no such device."""
        opts = ffi.new("struct bpf_xdp_query_opts *", {"sz": ffi.sizeof("struct bpf_xdp_query_opts")})
        with listening(expected=True) as said:
            result = lib.bpf_xdp_query(self.ifindex, 0, opts)
        if result < 0:
            raise hook_failure(f"query {self}", -result, self.ifindex, said="; ".join(said))
        return XdpState(int(opts.drv_prog_id), int(opts.skb_prog_id), int(opts.hw_prog_id))

    def attach(self, program: Program, *, mode: XdpMode) -> None:
        """Attach an XDP ``program`` to a device that has none.

        Raises:
            NotFoundError: There is no such device.
            ExistsError: The device has an XDP program; ``holder`` names it.
            UnsupportedError: ``NATIVE``, and the driver has no XDP.
            PrivilegeError: ``CAP_BPF`` or ``CAP_NET_ADMIN`` is missing.
            BpfError: The kernel refused, for instance because of the MTU.
        """
        operation = f"attach {program.name!r} to {mode.value} {self}"
        flags = _FLAGS[mode] | lib.XDP_FLAGS_UPDATE_IF_NOEXIST
        with listening(expected=True) as said:
            result = lib.bpf_xdp_attach(self.ifindex, program.fileno(), flags, ffi.NULL)
        if result >= 0:
            return
        if result == -_errno.EOPNOTSUPP:
            message = f"{operation}: the driver cannot"
            raise UnsupportedError(message, feature="native_xdp", hint="use the generic mode")
        there = self.query()
        mode_word = "xdpgeneric" if there.generic else "xdp"
        raise hook_failure(
            operation,
            -result,
            self.ifindex,
            holders=there.program_ids,
            said="; ".join(said),
            hint=f"take it off: ip link set dev {device_name(self.ifindex)} {mode_word} off",
        )

    def replace(self, program: Program, *, expected: Program, mode: XdpMode) -> None:
        """Put ``program`` in the place of ``expected``, which runs in that ``mode``, with no packet in between.

        Raises:
            StaleHandleError: ``expected`` is not there; nothing was changed.
            NotFoundError: There is no such device.
            BpfError: The kernel refused.
        """
        with listening(expected=True) as said:
            result = lib.bpf_xdp_attach(self.ifindex, program.fileno(), _FLAGS[mode], _instead_of(expected))
        if result < 0:
            raise self._failure(f"replace {expected.name!r} on {self}", -result, expected, said)

    def detach(self, program: Program, *, mode: XdpMode) -> None:
        """Take ``program``, which runs in that ``mode``, off; one that is not there, or no device, is no error."""
        with listening(expected=True) as said:
            result = lib.bpf_xdp_detach(self.ifindex, _FLAGS[mode], _instead_of(program))
        if result in (0, -_errno.ENODEV, -_errno.ENOENT):
            return
        failure = self._failure(f"detach {program.name!r} from {self}", -result, program, said)
        if not isinstance(failure, StaleHandleError):
            raise failure

    def _failure(self, operation: str, errno: int, expected: Program, said: list[str]) -> Exception:
        if errno == _errno.EEXIST:  # the kernel's answer to a failed comparison
            return StaleHandleError(f"{operation}: program {expected.id} is not there")
        return hook_failure(operation, errno, self.ifindex, said="; ".join(said))

    def __str__(self) -> str:
        return f"XDP of interface {self.ifindex}"


def _instead_of(program: Program) -> CData:
    facts = {"sz": ffi.sizeof("struct bpf_xdp_attach_opts"), "old_prog_fd": program.fileno()}
    return ffi.new("struct bpf_xdp_attach_opts *", facts)
