# SPDX-License-Identifier: Apache-2.0
"""libbpf's messages: to the logger ``mizarnet.libbpf``, and to the error they explain.

libbpf has one print function per process. It is called in the thread that made the failing call, so a
thread-local list is enough to join message and error.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Generator
from contextlib import contextmanager

from mizarnet._kernel.bpf._lib import CData, ffi, lib, text

_logger = logging.getLogger("mizarnet.libbpf")
# Without a handler of its own, logging would print warnings to stderr in programs that configured none.
_logger.addHandler(logging.NullHandler())

_LEVELS = {0: logging.WARNING, 1: logging.INFO, 2: logging.DEBUG}


class _Said(threading.local):
    lines: list[str] | None = None
    expected = False


_said = _Said()


@contextmanager
def listening(*, expected: bool = False) -> Generator[list[str], None, None]:
    """Collect the warnings of libbpf in this thread; enclose every call of libbpf that may print.

    Args:
        expected: Failing is an ordinary answer to the call, so nobody needs to be warned.
    """
    ffi.init_once(lib.mzn_install_log, "log")
    lines: list[str] = []
    outer = _said.lines, _said.expected
    _said.lines, _said.expected = lines, expected
    try:
        yield lines
    finally:
        _said.lines, _said.expected = outer


@ffi.def_extern()
def mzn_log(level: int, message: CData) -> None:
    """Take one message; libbpf ends each with a newline."""
    said = text(message).strip()
    severity = _LEVELS.get(level, logging.DEBUG)
    _logger.log(logging.DEBUG if _said.expected else severity, "%s", said)
    if severity == logging.WARNING and _said.lines is not None:
        _said.lines.append(said.removeprefix("libbpf: "))
