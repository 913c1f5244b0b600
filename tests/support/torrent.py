# SPDX-License-Identifier: Apache-2.0
"""Numbered datagrams as fast as they arrive: each loss is noticed, and none is for want of a buffer."""

from __future__ import annotations

import json
import socket
import subprocess
import sys

import attrs

from tests.support.icmp import family_of
from tests.support.namespace import SOCKET_SECONDS, Namespace

PORT = 9300
WINDOW = 128
"""Datagrams under way at most: fewer than any queue on the way has room for."""

# A window that is full for so long that all of it is lost is forgotten, so that the rest goes on and is counted.
_PROGRAM = """
import json, select, signal, socket, struct, sys, time
sender, receiver = (socket.socket(fileno=int(fd)) for fd in sys.argv[1:3])
sender.connect((sys.argv[3], int(sys.argv[4])))
window, pack, unpack = int(sys.argv[5]), struct.Struct("!Q").pack, struct.Struct("!Q").unpack
for each in (sender, receiver):
    each.setblocking(False)
over = []
signal.signal(signal.SIGTERM, lambda *_: over.append(True))
sent = received = doubled = lost = refused = 0
expected = 0

def hear(wait):
    global received, doubled, lost, expected
    if not select.select([receiver], [], [], wait)[0]:
        return False
    try:
        while True:
            number, = unpack(receiver.recv(64))
            received += 1
            if number == expected:
                expected += 1
            elif number < expected:
                doubled += 1
            else:
                lost, expected = lost + number - expected, number + 1
    except BlockingIOError:
        return True

print("ready", flush=True)
started = time.monotonic()
while not over:
    for _ in range(window - (sent - expected)):
        try:
            sender.send(pack(sent))
            sent += 1
        except OSError:
            refused += 1
            break
    if not hear(1.0):
        lost, expected = lost + sent - expected, sent
seconds = time.monotonic() - started
while expected < sent and hear(1.0):
    pass
print(json.dumps({"sent": sent, "received": received, "lost": lost + sent - expected, "doubled": doubled,
    "refused": refused, "seconds": seconds}))
"""


@attrs.frozen
class Arrived:
    """What became of the datagrams.

    Attributes:
        sent: How many.
        received: How many arrived.
        lost: How many did not.
        doubled: How many came twice, or behind a later one.
        refused: How often the sender's own kernel refused one, with an error.
        seconds: How long it took.
    """

    sent: int
    received: int
    lost: int
    doubled: int
    refused: int
    seconds: float

    @property
    def is_whole(self) -> bool:
        """Whether each arrived, once and in its place."""
        return self.sent == self.received and not (self.lost or self.doubled or self.refused)

    def __str__(self) -> str:
        return f"{self.sent} at {self.sent / self.seconds:.0f}/s, {self.lost} lost, {self.doubled} doubled"


class Torrent:
    """From one namespace to an address of another, in a process of its own."""

    def __init__(self, source: Namespace, to: Namespace, address: str, *, port: int = PORT) -> None:
        family = family_of(address)
        with source.socket(family, socket.SOCK_DGRAM) as out, to.socket(family, socket.SOCK_DGRAM) as back:
            back.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
            back.bind((address, port))
            fds = (out.fileno(), back.fileno())
            command = [sys.executable, "-c", _PROGRAM, *map(str, fds), address, str(port), str(WINDOW)]
            self._process = subprocess.Popen(command, pass_fds=fds, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def result(self) -> Arrived:
        """End it."""
        self._process.terminate()
        output, _ = self._process.communicate(timeout=SOCKET_SECONDS)
        return Arrived(**json.loads(output))

    def __enter__(self) -> Torrent:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()
