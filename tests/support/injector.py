# SPDX-License-Identifier: Apache-2.0
"""Something happens to a process in front of one of its system calls: ``injector.c``."""

from __future__ import annotations

import ctypes
import enum
import os
import signal
import subprocess
import traceback
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import attrs

_SOURCE = Path(__file__).with_suffix(".c")
_BEGIN, _END = 0x7FFFF001, 0x7FFFF002
_SECONDS = 60
_libc = ctypes.CDLL(None)


class Calls(enum.IntFlag):
    """The system calls that are counted."""

    CHANGING = 1
    """Those that change anything."""
    ASKING = 2
    """Those that ask the kernel, or make descriptors or threads."""


@attrs.frozen
class Fault:
    """What happens, and in front of which call.

    Attributes:
        point: Number of the call, from 1; 0: nothing happens, and each call is listed.
        calls: Which calls are counted.
        signal: Signal that the process gets; 0: none.
        hold: Seconds that the thread is held.
        errno: Error that the call fails with, in place of being executed; 0: none.
        lasting: Whether every counted call from there on fails.
    """

    point: int
    calls: Calls = Calls.CHANGING
    signal: int = 0
    hold: float = 0.0
    errno: int = 0
    lasting: bool = False

    def arguments(self) -> list[str]:
        """The fault as the program takes it."""
        numbers = (self.calls, self.point, self.signal, self.hold * 1000, self.errno, self.lasting)
        return [str(int(number)) for number in numbers]


def begin() -> None:
    """Count from here on."""
    _libc.getsid(_BEGIN)


def end() -> None:
    """Count no more: this is the last call that counts, of those that change anything."""
    _libc.getsid(_END)


@attrs.frozen
class Injector:
    """The compiled program."""

    path: Path

    @classmethod
    def build(cls, directory: Path) -> Injector:
        """Compile it."""
        path = directory / "injector"
        subprocess.run(["gcc", "-Wall", "-Werror", "-O1", "-o", path, _SOURCE], check=True)
        return cls(path)

    @contextmanager
    def following(self, process: int, fault: Fault) -> Generator[subprocess.Popen[str], None, None]:
        """Follow a process until it ends; what comes out says which call it was, or all of them."""
        command = [str(self.path), str(process), *fault.arguments()]
        # Nobody reads before the process has ended: a verb of very many calls must not fill the pipe.
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, pipesize=1 << 20) as tracer:
            assert tracer.stdout is not None
            assert tracer.stdout.readline() == "ready\n"
            yield tracer

    def points(self, verb: Callable[[Callable[[], None]], object]) -> list[str]:
        """What ``verb`` changes, call by call, if nobody kills it. It says itself when it begins."""
        return self._run(verb, Fault(0), {0})

    def kill(self, verb: Callable[[Callable[[], None]], object], point: int) -> str | None:
        """Kill it at the point of that number, from 1; what it was about to do.

        None if it came to its end before: whoever waits for a lock makes more calls at one time than at another.
        """
        told = self._run(verb, Fault(point, signal=signal.SIGKILL), {0, -signal.SIGKILL})
        return told[-1] if told else None

    def _run(
        self, verb: Callable[[Callable[[], None]], object], fault: Fault, expected: set[int]
    ) -> list[str]:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            _live(verb, reading)
        try:
            with self.following(child, fault) as tracer:
                os.write(writing, b"!")
                told, _ = tracer.communicate(timeout=_SECONDS)
        except BaseException:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise
        finally:
            os.close(reading)
            os.close(writing)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status in expected, f"the process ended with {status} at point {fault.point}: {told}"
        return told.splitlines()


def _live(verb: Callable[[Callable[[], None]], object], reading: int) -> None:
    """The life of the child: it waits to be followed, does what it is to do, and ends."""
    try:
        os.read(reading, 1)
        verb(begin)
        end()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)
