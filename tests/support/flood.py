# SPDX-License-Identifier: Apache-2.0
"""Frames in great numbers: a process that writes prepared messages to one descriptor as fast as it can.

The descriptor is a socket of the sender's namespace, or a VM's tap. One call of ``write`` through ctypes costs two
thirds of one of ``socket.send``, which has to raise an exception for each frame that is dropped.
"""

from __future__ import annotations

import errno
import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import attrs

from tests.support.depth import depth

T = TypeVar("T")

SECONDS = 100

# One message after the other and over again, up to the count. The loop is short because it runs a million times.
_PROGRAM = """
import ctypes, itertools, json, os, struct, sys, time
fd, count = int(sys.argv[1]), int(sys.argv[2])
messages, stdin = [], sys.stdin.buffer
while length := stdin.read(4):
    messages.append(stdin.read(struct.unpack("=I", length)[0]))
os.set_blocking(fd, True)
write = ctypes.PyDLL(None, use_errno=True).write
calls = [(ctypes.c_int(fd), ctypes.c_char_p(each), ctypes.c_size_t(len(each))) for each in messages]
refused = [0] * 4096
start = time.monotonic()
for _ in range(count // len(calls)):
    for call in calls:
        if write(*call) < 0:
            refused[ctypes.get_errno()] += 1
for call in itertools.islice(calls, count % len(calls)):
    if write(*call) < 0:
        refused[ctypes.get_errno()] += 1
seconds = time.monotonic() - start
numbers = {number: times for number, times in enumerate(refused) if times}
print(json.dumps({"refused": numbers, "seconds": seconds}))
"""


def frame_count(*, routed: bool = False) -> int:
    """How many frames an attack has: 200,000, at full depth a million; a tenth when they come ``routed``.

    An attack has a few hundred different frames, which come again and again. ``MIZARNET_TEST_FRAMES`` says otherwise,
    for an emulated machine.
    """
    count = int(os.environ.get("MIZARNET_TEST_FRAMES", depth(200_000, 1_000_000)))
    return max(1, count // 10) if routed else count


def shares(parts: Sequence[T], count: int) -> dict[T, int]:
    """How often each of ``parts`` comes up when they are taken in turn ``count`` times."""
    found = dict.fromkeys(parts, 0)
    rounds, rest = divmod(count, len(parts))
    for place, part in enumerate(parts):
        found[part] += rounds + (place < rest)
    return {part: times for part, times in found.items() if times}


@attrs.frozen
class Flooded:
    """What became of the messages at the sender.

    Attributes:
        count: How many were written.
        refused: How many of them the kernel refused, by error. A frame that a program at the hook drops is ENOBUFS
            to a packet socket, and no error at all to a tap or an ordinary IPv4 socket.
        seconds: How long it took.
    """

    count: int
    refused: Mapping[str, int]
    seconds: float

    @property
    def rate(self) -> int:
        """Messages a second."""
        return round(self.count / self.seconds)


class Flood:
    """``count`` messages to a descriptor, in turn, by a process of their own; :meth:`result` waits for it."""

    def __init__(self, fd: int, messages: Iterable[bytes], count: int) -> None:
        """Start it. The descriptor becomes a blocking one."""
        self._count = count
        with open(os.memfd_create("messages"), "r+b") as file:
            file.writelines(struct.pack("=I", len(each)) + each for each in messages)
            file.seek(0)
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _PROGRAM, str(fd), str(count)],
                pass_fds=(fd,),
                stdin=file,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )

    @property
    def over(self) -> bool:
        """Whether it has come to its end."""
        return self._process.poll() is not None

    def result(self) -> Flooded:
        """Wait for the end."""
        try:
            output, errors = self._process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self._count} messages took more than {SECONDS} s") from None
        assert self._process.returncode == 0, errors.decode()
        told = json.loads(output)
        refused = {errno.errorcode[int(number)]: times for number, times in told["refused"].items()}
        return Flooded(self._count, refused, told["seconds"])

    def __enter__(self) -> Flood:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()


def flood(fd: int, messages: Iterable[bytes], count: int) -> Flooded:
    """Write ``count`` messages and wait for it."""
    with Flood(fd, messages, count) as running:
        return running.result()
