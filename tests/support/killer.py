# SPDX-License-Identifier: Apache-2.0
"""Whoever does something is killed in front of each system call that would change anything: ``killer.c``."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import traceback
from collections.abc import Callable
from pathlib import Path

import attrs

_SOURCE = Path(__file__).with_suffix(".c")
_BEGIN, _END = 0x7FFFF001, 0x7FFFF002
_libc = ctypes.CDLL(None)


@attrs.frozen
class Killer:
    """The compiled program."""

    path: Path

    @classmethod
    def build(cls, directory: Path) -> Killer:
        """Compile it."""
        path = directory / "killer"
        subprocess.run(["gcc", "-Wall", "-Werror", "-O1", "-o", path, _SOURCE], check=True)
        return cls(path)

    def points(self, verb: Callable[[Callable[[], None]], object]) -> list[str]:
        """What ``verb`` changes, call by call, if nobody kills it. It says itself when it begins."""
        return self._run(verb, 0, {0})

    def kill(self, verb: Callable[[Callable[[], None]], object], point: int) -> str | None:
        """Kill it at the point of that number, from 1; what it was about to do.

        None if it came to its end before: whoever waits for a lock makes more calls at one time than at another.
        """
        told = self._run(verb, point, {0, -signal.SIGKILL})
        return told[-1] if told else None

    def _run(self, verb: Callable[[Callable[[], None]], object], point: int, expected: set[int]) -> list[str]:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            _live(verb, reading)
        try:
            with subprocess.Popen(
                [self.path, str(child), str(point)], stdout=subprocess.PIPE, text=True
            ) as tracer:
                assert tracer.stdout is not None
                assert tracer.stdout.readline() == "ready\n"
                os.write(writing, b"!")
                told, _ = tracer.communicate(timeout=60)
        except BaseException:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise
        finally:
            os.close(reading)
            os.close(writing)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status in expected, f"the process ended with {status} at point {point}: {told}"
        return told.splitlines()


def _live(verb: Callable[[Callable[[], None]], object], reading: int) -> None:
    """The life of the child: it waits to be followed, does what it is to do, and ends."""
    try:
        os.read(reading, 1)
        verb(lambda: _libc.getsid(_BEGIN))
        _libc.getsid(_END)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)
