# SPDX-License-Identifier: Apache-2.0
"""Programs in the kernel: who they are, how often they ran, and running them on a frame without a network."""

from __future__ import annotations

import enum
import errno as _errno
from collections.abc import Callable
from typing import Self, TypeVar

import attrs

from mizarnet._kernel.bpf._lib import NETWORK_NEEDS, CData, check, ffi, lib
from mizarnet._kernel.bpf.fd import Fd
from mizarnet._kernel.bpf.map import Map
from mizarnet.errors import InvalidValueError, PrivilegeError

T = TypeVar("T")

# The kernel's MAX_USED_MAPS.
_MAX_MAPS = 64

# Room for what a program may put before a frame.
_GROWTH = 512

# Room for struct __sk_buff and struct xdp_md of any kernel.
_CONTEXT_ROOM = 512


class ProgramType(enum.IntEnum):
    """The kinds of program that mizarnet works with; ``OTHER`` is any other."""

    OTHER = lib.BPF_PROG_TYPE_UNSPEC
    SCHED_CLS = lib.BPF_PROG_TYPE_SCHED_CLS
    XDP = lib.BPF_PROG_TYPE_XDP

    @classmethod
    def _missing_(cls, value: object) -> ProgramType:
        return cls.OTHER


@attrs.frozen
class TestRun:
    """What a program did with a frame.

    Attributes:
        verdict: Return value of the program, such as ``TC_ACT_SHOT`` (2) or ``XDP_TX`` (3).
        frame: The frame as the program left it.
        duration_ns: Nanoseconds of one run, the mean over all repetitions.
        context: ``struct __sk_buff`` or ``struct xdp_md`` as the program left it; empty if none was given.
    """

    __test__ = False  # not a test case, whatever pytest makes of the name

    verdict: int
    frame: bytes
    duration_ns: int
    context: bytes = b""


class Program(Fd):
    """A loaded program.

    Attributes:
        name: Name in the kernel, at most 15 characters.
        type: Kind of program.
        id: Id of the program in the kernel; never used again until reboot.
        tag: Hash of the instructions, as hexadecimal digits.
        verified_instructions: How many instructions the verifier looked at; its limit is a million.
    """

    def __init__(self, number: int, *, what: str) -> None:
        """Own a descriptor of a program."""
        super().__init__(number, what=what)
        info = self._info()
        self.name: str = ffi.string(info.name).decode()
        self.type: ProgramType = ProgramType(info.type)
        self.id: int = int(info.id)
        self.tag: str = bytes(info.tag).hex()
        self.verified_instructions: int = int(info.verified_insns)

    @classmethod
    def open_id(cls, program_id: int) -> Self | None:
        """Open the program of that id; None if there is none (any more).

        Raises:
            PrivilegeError: ``CAP_SYS_ADMIN`` is missing.
        """
        fd = lib.bpf_prog_get_fd_by_id(program_id)
        if fd == -_errno.ENOENT:
            return None
        check(fd, f"open BPF program {program_id}", needs=("CAP_SYS_ADMIN",))
        return cls(fd, what=f"program {program_id}")

    def bind(self, bound: Map) -> None:
        """Keep ``bound`` for as long as the program lives, as if it used it; again is harmless."""
        result = lib.bpf_prog_bind_map(self.fileno(), bound.fileno(), ffi.NULL)
        check(result, f"bind map {bound.name!r} to program {self.name!r}")

    @property
    def map_ids(self) -> tuple[int, ...]:
        """Ids of the maps that it uses or that were bound to it."""
        ids = ffi.new("__u32[]", _MAX_MAPS)
        info = self._info(nr_map_ids=_MAX_MAPS, map_ids=int(ffi.cast("uintptr_t", ids)))
        return tuple(int(ids[index]) for index in range(info.nr_map_ids))

    @property
    def run_count(self) -> int:
        """How often it ran, counted only while ``/proc/sys/kernel/bpf_stats_enabled`` is 1."""
        return int(self._info().run_cnt)

    @property
    def run_time_ns(self) -> int:
        """Nanoseconds spent in it, counted as `run_count` is."""
        return int(self._info().run_time_ns)

    def test_run(self, frame: bytes, *, repeat: int = 1, context: bytes = b"") -> TestRun:
        """Run it on a ``frame`` (from the Ethernet header on) that comes from and goes nowhere.

        Maps are used and changed as by any other run. The device of the frame is the loopback device of the
        calling thread's network namespace.

        Args:
            frame: At least 14 bytes.
            repeat: How often, on the same frame; the frame and verdict of the last run count.
            context: ``struct __sk_buff`` or ``struct xdp_md`` to start with, such as a mark; the kernel
                refuses fields it does not let a caller set.

        Raises:
            BpfError: The kernel refused the frame or the context.
        """
        if len(frame) < 14:
            raise InvalidValueError("a frame has at least 14 bytes", argument="frame", value=frame)
        output = ffi.new("char[]", len(frame) + _GROWTH)
        context_out = ffi.new("char[]", _CONTEXT_ROOM)
        opts = _run_options(frame, output, repeat)
        frame_data, context_data = ffi.from_buffer("char[]", frame), ffi.from_buffer("char[]", context)
        opts.data_in = frame_data
        if context:
            opts.ctx_in, opts.ctx_size_in = context_data, len(context)
            opts.ctx_out, opts.ctx_size_out = context_out, _CONTEXT_ROOM
        check(lib.bpf_prog_test_run_opts(self.fileno(), opts), f"run {self.name!r}", needs=NETWORK_NEEDS)
        return TestRun(
            verdict=int(opts.retval),
            frame=bytes(ffi.buffer(output, opts.data_size_out)),
            duration_ns=int(opts.duration),
            context=bytes(ffi.buffer(context_out, opts.ctx_size_out)),
        )

    def _info(self, **asked: int) -> CData:
        info = ffi.new("struct bpf_prog_info *", asked)
        size = ffi.new("__u32 *", ffi.sizeof("struct bpf_prog_info"))
        check(lib.bpf_obj_get_info_by_fd(self.fileno(), info, size), f"read facts of {self.what}")
        return info


def with_program(program_id: int, call: Callable[[Program], T]) -> T | None:
    """The result of a call with the program of that id; None if it is gone.

    Raises:
        PrivilegeError: ``CAP_SYS_ADMIN`` is missing.
    """
    program = Program.open_id(program_id)
    if program is None:
        return None
    with program:
        return call(program)


def program_name(program_id: int) -> str | None:
    """Name (at most 15 characters) of the program of that id; None if it is gone; raises as `with_program` does."""
    return with_program(program_id, lambda program: program.name)


def program_label(program_id: int) -> str:
    """How to call the program of that id in a message; looking up its name takes ``CAP_SYS_ADMIN``."""
    try:
        name = program_name(program_id)
    except PrivilegeError:
        name = None
    return f"{name} ({program_id})" if name else f"program {program_id}"


def _run_options(frame: bytes, output: CData, repeat: int) -> CData:
    facts = {
        "sz": ffi.sizeof("struct bpf_test_run_opts"),
        "data_size_in": len(frame),
        "data_out": output,
        "data_size_out": len(frame) + _GROWTH,
        "repeat": repeat,
    }
    return ffi.new("struct bpf_test_run_opts *", facts)
