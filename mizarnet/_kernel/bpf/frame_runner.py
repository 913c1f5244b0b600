# SPDX-License-Identifier: Apache-2.0
"""Running a program on many frames without a network, one system call for each."""

from __future__ import annotations

from mizarnet._kernel.bpf._lib import NETWORK_NEEDS, CData, check, ffi, lib
from mizarnet._kernel.bpf.program import Program


class FrameRunner:
    """A program with buffers for one run after the other. For one thread; the program stays the caller's.

    Attributes:
        context: The beginning of ``struct __sk_buff`` as the last run left it; empty if none is given.
    """

    def __init__(self, program: Program, *, room: int, context_size: int = 0) -> None:
        """Make the buffers for ``program``.

        Args:
            program: Program to run.
            room: Bytes of the longest frame that it leaves.
            context_size: Bytes of the context that goes with each frame; 0: none does.
        """
        self._program = program
        self._room = room
        output, given, left = (ffi.new("char[]", size) for size in (room, context_size, context_size))
        self._output = ffi.buffer(output)
        self._given = ffi.buffer(given)
        self.context: bytearray = ffi.buffer(left)
        size = ffi.sizeof("struct bpf_test_run_opts")
        options: CData = ffi.new("struct bpf_test_run_opts *", {"sz": size, "data_out": output})
        if context_size:
            options.ctx_in, options.ctx_out = given, left
            options.ctx_size_in = options.ctx_size_out = context_size
        self._options = options
        self._kept = output, given, left  # the kernel is told where they are, which keeps nothing alive

    def run(self, frame: bytes, context: bytes = b"") -> int:
        """Run the program on a frame; what it returned. Frame, context and device are as for `Program.test_run`.

        Raises:
            BpfError: The kernel refused the frame or the context.
        """
        options = self._options
        data = ffi.from_buffer("char[]", frame)
        options.data_in, options.data_size_in, options.data_size_out = data, len(frame), self._room
        self._given[:] = context
        result = lib.bpf_prog_test_run_opts(self._program.fileno(), options)
        if result:
            check(result, f"run {self._program.name!r} on {frame.hex()}", needs=NETWORK_NEEDS)
        return int(options.retval)

    def frame(self) -> bytes:
        """The frame as the last run left it."""
        return bytes(self._output[: self._options.data_size_out])
