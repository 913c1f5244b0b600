# SPDX-License-Identifier: Apache-2.0
"""A steady stream of tunnel packets to one endpoint: honest ones, and just as good ones of a foreign VNI.

Whatever is done to the hooks meanwhile, a foreign packet that gets through would be heard: it is right in everything
but its VNI.
"""

from __future__ import annotations

import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import attrs

from tests.frames import PORTS, datagram, frame, ipv4, mac, tunnel, udp
from tests.support.namespace import Namespace
from tests.support.wait import wait_until
from tests.world import ADDRESSES, UNDERLAY, Container, EncapName, mac_of

HONEST_PORT, FOREIGN_PORT = 9, 10
FOREIGN_VNI = 4242
_SENDER, _SENDER_IP = mac("02:00:00:00:00:99"), "10.0.0.99"

# Both frames in turn, some thousand of them a second, until it is told to stop.
_PROGRAM = """
import os, signal, struct, sys, time
over = []
signal.signal(signal.SIGTERM, lambda *_: over.append(True))
fd, stdin, frames, sent = int(sys.argv[1]), sys.stdin.buffer, [], 0
while length := stdin.read(4):
    frames.append(stdin.read(struct.unpack("=I", length)[0]))
print("sending", flush=True)
while not over:
    for frame in frames:
        try:
            os.write(fd, frame)
            sent += 1
        except OSError:  # the link is down
            pass
    time.sleep(0.0004)
print(sent)
"""


@attrs.frozen
class Stream:
    """The receiving end, in the endpoint's namespace."""

    honest: socket.socket
    foreign: socket.socket

    def await_honest(self) -> None:
        """Wait for an honest packet that was sent after this call began."""
        _drain(self.honest)
        wait_until(lambda: _drain(self.honest), "no honest packet came")

    def await_foreign(self) -> None:
        """Wait for a foreign one: what must never come as long as there is a guard."""
        wait_until(lambda: _drain(self.foreign), "no foreign packet came, although nothing guards")

    def forget(self) -> None:
        """What came so far does not count."""
        _drain(self.honest), _drain(self.foreign)

    def assert_guarded(self) -> None:
        """No foreign packet came since the last look."""
        assert _drain(self.foreign) == 0, "a packet of a foreign VNI came through"


@contextmanager
def stream(to: Container, wire: Namespace, encap: EncapName = "vxlan") -> Iterator[Stream]:
    """Packets to an endpoint of the first host from the other end of its cable, while the block lasts."""
    with ExitStack() as stack:
        ears = [stack.enter_context(_listen(to.namespace, port)) for port in (HONEST_PORT, FOREIGN_PORT)]
        found = Stream(*ears)
        raw = stack.enter_context(wire.packet_socket(UNDERLAY))
        macs = mac_of(to.host.namespace, UNDERLAY), mac_of(wire, UNDERLAY)
        frames = [
            _frame(to, macs, encap, vni, port)
            for vni, port in ((to.endpoint.vni, HONEST_PORT), (FOREIGN_VNI, FOREIGN_PORT))
        ]
        sender = stack.enter_context(_sender(raw.fileno(), frames))
        yield found
        sender.send_signal(signal.SIGTERM)
        sent = int(sender.communicate(timeout=20)[0].split()[-1])
        assert sent > 0
        found.assert_guarded()


def _listen(namespace: Namespace, port: int) -> socket.socket:
    ear = namespace.socket(socket.AF_INET, socket.SOCK_DGRAM)
    ear.bind(("", port))
    ear.setblocking(False)
    return ear


def _drain(ear: socket.socket) -> int:
    count = 0
    while True:
        try:
            ear.recv(2048)
        except BlockingIOError:
            return count
        count += 1


def _frame(to: Container, macs: tuple[bytes, bytes], encap: EncapName, vni: int, port: int) -> bytes:
    inner = datagram(_SENDER, _SENDER_IP, to.ip, destination_mac=to.mac, payload=b"stream", port=port)
    host, peer = ADDRESSES
    return frame(*macs, ipv4(peer, host, udp(4242, PORTS[encap], tunnel(encap, vni, inner))))


@contextmanager
def _sender(fd: int, frames: list[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _PROGRAM, str(fd)],
        pass_fds=(fd,),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"".join(struct.pack("=I", len(each)) + each for each in frames))
        process.stdin.close()
        process.stdin = None
        assert process.stdout.readline() == b"sending\n"
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
