# SPDX-License-Identifier: Apache-2.0
"""Errors made on purpose, first thing in the sanitized run: each must be reported, and end the process that makes it.

Each is made in a child of the test process, so under the very sanitizers that watch the other tests.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mizarnet._kernel.bpf import _ext
from mizarnet._kernel.bpf._lib import ffi, lib
from tests.support.wait import PATIENCE

INT_MAX = (1 << 31) - 1
_ATTEMPTS = 3


@pytest.fixture
def extension() -> Iterator[ctypes.CDLL]:
    """The extension's own code, with the functions of faults.h in it."""
    yield ctypes.CDLL(_ext.__file__)


def report_of(fault: Callable[[], object]) -> str:
    """What the sanitizers say of a child of this process that commits ``fault``."""
    child = _ended_child(fault)
    report = Path(os.environ["MIZARNET_REPORTS"] + f".{child}")
    said = report.read_text()
    report.unlink()
    return said


def _ended_child(fault: Callable[[], object]) -> int:
    """The child that committed the fault, by its id.

    It has the locks of the sanitizer's allocator as they were at the fork. Where another thread held one just then, as
    that which watches a test's time does when it starts, the child waits for ever, and the next one is made.
    """
    for _ in range(_ATTEMPTS):
        child = os.fork()
        if not child:
            try:
                fault()
            finally:
                os._exit(0)
        descriptor = os.pidfd_open(child)
        ended, *_ = select.select([descriptor], [], [], PATIENCE)
        os.close(descriptor)
        if not ended:
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if ended:
            assert status, "it went on as if nothing had happened"
            return child
    raise AssertionError(f"none of {_ATTEMPTS} children came to its end")


def test_a_byte_behind_a_buffer_of_ours(extension: ctypes.CDLL) -> None:
    buffer = ffi.new("char[]", 5)
    address = ctypes.c_void_p(int(ffi.cast("intptr_t", buffer)))
    assert "heap-buffer-overflow" in report_of(lambda: extension.mzn_fault_overrun(address, 5))


def test_arithmetic_without_a_meaning(extension: ctypes.CDLL) -> None:
    assert "signed integer overflow" in report_of(lambda: extension.mzn_fault_overflow(INT_MAX))


def test_a_buffer_too_small_for_what_the_kernel_writes() -> None:
    buffer, size = ffi.new("char[]", 63), ffi.new("__u32 *", 64)
    report = report_of(lambda: lib.bpf_obj_get_info_by_fd(-1, buffer, size))
    assert "heap-buffer-overflow" in report and "check_call" in report


def test_an_object_of_python_too_small_for_what_the_kernel_writes() -> None:
    """Where the interpreter gets its own memory from the sanitizer, too. The 63rd byte is the final zero."""
    data, size = ffi.from_buffer("char[]", bytes(62)), ffi.new("__u32 *", 64)
    report = report_of(lambda: lib.bpf_obj_get_info_by_fd(-1, data, size))
    assert "heap-buffer-overflow" in report


def test_a_buffer_that_is_gone_when_the_kernel_writes() -> None:
    address = int(ffi.cast("intptr_t", ffi.new("char[]", 64)))
    size = ffi.new("__u32 *", 64)
    report = report_of(lambda: lib.bpf_obj_get_info_by_fd(-1, ffi.cast("void *", address), size))
    assert "heap-use-after-free" in report
