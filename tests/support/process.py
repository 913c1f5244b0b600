# SPDX-License-Identifier: Apache-2.0
"""Other processes: of the tests' own interpreter, and children of a fork."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
import traceback
from collections.abc import Callable, Sequence

SECONDS = 60
HEAD = "import os, signal, sys\nimport mizarnet as mz\n"
UNPRIVILEGED = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
"""Root without a single capability: it may read the interpreter's files, which another user may not."""


def start_python(
    program: str, *arguments: str, by: Sequence[str] = (), talk: bool = False
) -> subprocess.Popen[str]:
    """Start a program that finds ``mz``, ``os``, ``signal`` and ``sys`` imported, ``by`` a command in front.

    With ``talk`` it is told what to do by lines.
    """
    command = [*by, sys.executable, "-c", HEAD + textwrap.dedent(program), *arguments]
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE if talk else None,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def tell(process: subprocess.Popen[str], line: str = "") -> str:
    """Tell a process something, and hear the line that it answers."""
    assert process.stdin is not None
    process.stdin.write(f"{line}\n")
    process.stdin.flush()
    return heard(process)


def heard(process: subprocess.Popen[str]) -> str:
    """The next line of a process, without its end."""
    assert process.stdout is not None
    return process.stdout.readline().rstrip("\n")


def finish(process: subprocess.Popen[str], *, seconds: float = SECONDS) -> tuple[int, str]:
    """Its exit status and its output, errors included."""
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
        raise AssertionError(f"the process did not end:\n{output}") from None
    return process.returncode, output


def run_python(program: str, *arguments: str, by: Sequence[str] = ()) -> str:
    """The output of a program that must succeed."""
    status, output = finish(start_python(program, *arguments, by=by))
    assert status == 0, output
    return output


def in_child(check: Callable[[], object]) -> None:
    """Run ``check`` in a child made by fork; it must not raise there."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            check()
            status = 0
        except BaseException:  # reported, and the parent sees the status
            traceback.print_exc()
        finally:
            os._exit(status)
    deadline = time.monotonic() + SECONDS
    while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
        if time.monotonic() > deadline:
            os.kill(child, 9)
            os.waitpid(child, 0)
            raise AssertionError("the child hangs")
        time.sleep(0.01)
    assert os.waitstatus_to_exitcode(ended[1]) == 0
