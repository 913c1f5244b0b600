# SPDX-License-Identifier: Apache-2.0
"""Traffic that goes on while something changes: a TCP stream, and a datagram each millisecond."""

from __future__ import annotations

import json
import random
import socket
import subprocess
import sys
import threading

import attrs

from tests.support.icmp import family_of
from tests.support.namespace import SOCKET_SECONDS, Namespace
from tests.support.wait import wait_until

CHUNK = random.Random(1).randbytes(4096)
STREAM_PORT, PROBE_PORT = 9100, 9200
PATIENCE = 30.0
"""Seconds for a stream to go on: TCP waits twice as long after each loss."""


class Stream:
    """A TCP stream that repeats the same bytes and is compared on arrival; both ends in threads of this process."""

    def __init__(self, client: Namespace, server: Namespace, address: str) -> None:
        """Connect and start."""
        with server.socket(family_of(address), socket.SOCK_STREAM) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((address, STREAM_PORT))
            listener.listen(1)
            self._near = client.socket(family_of(address), socket.SOCK_STREAM)
            self._near.connect((address, STREAM_PORT))
            self._far, _ = listener.accept()
        self._over = threading.Event()
        self._arrived = 0
        self._error: str | None = None
        for each in (self._near, self._far):
            each.settimeout(PATIENCE)
        self._threads = [threading.Thread(target=run) for run in (self._send, self._receive)]
        for thread in self._threads:
            thread.start()

    def _send(self) -> None:
        try:
            while not self._over.is_set():
                self._near.sendall(CHUNK)
                self._over.wait(0.001)
            self._near.shutdown(socket.SHUT_WR)
        except OSError as error:
            self._error = f"the sender: {error}"

    def _receive(self) -> None:
        try:
            while data := self._far.recv(1 << 16):
                at = self._arrived % len(CHUNK)
                expected = (CHUNK * (2 + len(data) // len(CHUNK)))[at : at + len(data)]
                if data != expected:
                    self._error = f"bytes differ after {self._arrived}"
                    return
                self._arrived += len(data)
        except OSError as error:
            self._error = f"the receiver: {error}"

    def goes_on(self) -> None:
        """Wait until more bytes arrive than were under way; the connection must live."""
        enough = self._arrived + (1 << 18)
        wait_until(
            lambda: self._error or self._arrived > enough,
            lambda: f"the stream stands still after {self._arrived} bytes",
            timeout=PATIENCE,
        )
        assert self._error is None, self._error

    def __enter__(self) -> Stream:
        self.goes_on()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._over.set()
        if kind is not None:  # do not wait for what will not come
            self._near.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._near.close()
        self._far.close()
        assert kind is not None or self._error is None, self._error


# A process of its own, so that nothing that the tests do delays a datagram.
_PROBE = """
import json, os, select, socket, struct, sys, time
sender, receiver = (socket.socket(fileno=int(fd)) for fd in sys.argv[1:3])
target = (sys.argv[3], int(sys.argv[4]))
receiver.setblocking(False)
arrivals, refused, number, next_at = [], 0, 0, time.monotonic()
print("ready", flush=True)
while not select.select([0], [], [], max(0, next_at - time.monotonic()))[0]:
    try:
        sender.sendto(struct.pack("!Q", number), target)
    except OSError:
        refused += 1
    number, next_at = number + 1, next_at + float(sys.argv[5])
    try:
        while True:
            arrivals.append((time.monotonic(), struct.unpack("!Q", receiver.recv(8))[0]))
    except BlockingIOError:
        pass
time.sleep(0.2)
try:
    while True:
        arrivals.append((time.monotonic(), struct.unpack("!Q", receiver.recv(8))[0]))
except BlockingIOError:
    pass
numbers = [each for _, each in arrivals]
missing = [later - earlier - 1 for earlier, later in zip(numbers, numbers[1:])]
times = [at for at, _ in arrivals]
print(json.dumps({"sent": number, "received": len(set(numbers)), "refused": refused,
    "longest_loss": max(missing, default=0),
    "longest_pause": max((b - a for a, b in zip(times, times[1:])), default=0.0)}))
"""


@attrs.frozen
class Delivery:
    """What became of the datagrams.

    Attributes:
        sent: How many.
        received: How many of them arrived.
        refused: How many the sender's own kernel refused, with an error.
        longest_loss: The most datagrams lost in a row.
        longest_pause: Seconds between two arrivals.
    """

    sent: int
    received: int
    refused: int
    longest_loss: int
    longest_pause: float

    @property
    def lost(self) -> int:
        """How many did not arrive."""
        return self.sent - self.received


class Probe:
    """A datagram each millisecond, or as often as asked for, from one namespace to an address of another."""

    def __init__(
        self, source: Namespace, to: Namespace, address: str, *, every: float = 0.001, near: str = ""
    ) -> None:
        """Start it; ``every`` is in seconds, and ``near`` the address to send from, if not the kernel's choice."""
        family = family_of(address)
        with source.socket(family, socket.SOCK_DGRAM) as out, to.socket(family, socket.SOCK_DGRAM) as back:
            if near:
                out.bind((near, 0))
            back.bind((address if near else "", PROBE_PORT))
            fds = (out.fileno(), back.fileno())
            command = [sys.executable, "-c", _PROBE, *map(str, fds), address, str(PROBE_PORT), str(every)]
            self._process = subprocess.Popen(
                command, pass_fds=fds, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def result(self) -> Delivery:
        """End it."""
        output, _ = self._process.communicate("over", timeout=SOCKET_SECONDS)
        return Delivery(**json.loads(output))

    def __enter__(self) -> Probe:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()
