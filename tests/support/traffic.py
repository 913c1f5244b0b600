# SPDX-License-Identifier: Apache-2.0
"""Real traffic between namespaces. Every call ends within its timeout."""

from __future__ import annotations

import errno
import itertools
import os
import random
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from tests.frames import echo_request
from tests.support.namespace import SOCKET_SECONDS, Namespace

ETH_P_ALL = 3
_SO_RCVBUFFORCE = 33
_sequence = itertools.count(1)


def ping(
    source: Namespace, address: str, *, size: int = 56, timeout: float = SOCKET_SECONDS, ttl: int = 64
) -> bool:
    """Whether one echo request is answered, with its own bytes, within ``timeout`` seconds."""
    identifier, sequence, payload = os.getpid() & 0xFFFF, next(_sequence) & 0xFFFF, os.urandom(size)
    with source.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw:
        raw.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
        raw.connect((address, 0))
        raw.send(echo_request(identifier, sequence, payload))
        expected = struct.pack("!HH", identifier, sequence) + payload
        return _receive_until(raw, lambda packet: packet[20:21] == b"\0" and packet[24:] == expected, timeout)


def _receive_until(raw: socket.socket, wanted: Callable[[bytes], bool], timeout: float) -> bool:
    deadline = time.monotonic() + timeout
    while (left := deadline - time.monotonic()) > 0 and select.select([raw], [], [], left)[0]:
        if wanted(raw.recv(65535)):
            return True
    return False


def assert_ping(source: Namespace, address: str, **options: int) -> None:
    """One echo request must be answered."""
    assert ping(source, address, **options), f"{address} does not answer {source.name}"


def assert_no_ping(source: Namespace, address: str) -> None:
    """Nobody may answer. Half a second is plenty of time for an answer; a counter should tell why there is none."""
    assert not ping(source, address, timeout=0.5), f"{address} answers {source.name}"


# -- UDP ---------------------------------------------------------------------------------------------------


@contextmanager
def udp_echo(namespace: Namespace, address: str, *, port: int = 7, tag: bytes) -> Iterator[None]:
    """Answer datagrams with ``tag`` and their own bytes, while the block lasts."""
    with namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((address, port))
        server.settimeout(0.05)
        over = threading.Event()
        thread = threading.Thread(target=_echo, args=(server, tag, over), name=f"echo {namespace.name}")
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(SOCKET_SECONDS)


def _echo(server: socket.socket, tag: bytes, over: threading.Event) -> None:
    while not over.is_set():
        try:
            data, asker = server.recvfrom(65535)
            server.sendto(tag + data, asker)
        except TimeoutError:
            continue


def udp_ask(
    source: Namespace, address: str, payload: bytes, *, port: int = 7, timeout: float = SOCKET_SECONDS
) -> bytes | None:
    """The answer to one datagram, None if there is none."""
    with source.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(timeout)
        client.connect((address, port))
        client.send(payload)
        try:
            return client.recv(65535)
        except TimeoutError:
            return None


# -- TCP ---------------------------------------------------------------------------------------------------


def transfer(
    client: Namespace, server: Namespace, address: str, *, size: int = 1 << 20, port: int = 5000
) -> None:
    """Send ``size`` random bytes over TCP and compare every one of them on arrival."""
    data = random.Random(size).randbytes(size)
    with server.socket(socket.AF_INET, socket.SOCK_STREAM) as listener, ThreadPoolExecutor(1) as pool:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(1)
        receiving = pool.submit(_receive_all, listener)
        with client.socket(socket.AF_INET, socket.SOCK_STREAM) as sender:
            sender.connect((address, port))
            sender.sendall(data)
            sender.shutdown(socket.SHUT_WR)
            arrived = receiving.result(3 * SOCKET_SECONDS)
    assert len(arrived) == size, f"{len(arrived)} of {size} bytes arrived"
    assert arrived == data, "bytes differ"


def _receive_all(listener: socket.socket) -> bytes:
    connection, _ = listener.accept()
    connection.settimeout(SOCKET_SECONDS)
    with connection:
        return b"".join(iter(lambda: connection.recv(1 << 16), b""))


# -- frames ------------------------------------------------------------------------------------------------


def send_frame(namespace: Namespace, device: str, frame: bytes) -> None:
    """Send one frame, as it is, out of a device; that it was dropped there is no error."""
    with namespace.packet_socket(device) as raw:
        send_raw(raw, frame)


def send_raw(raw: socket.socket, frame: bytes) -> None:
    """Send one frame; a sender is told ENOBUFS when a program at the hook drops it."""
    try:
        raw.send(frame)
    except OSError as error:
        if error.errno != errno.ENOBUFS:
            raise


class Capture:
    """Frames of one device, in both directions, from the moment it is made."""

    def __init__(self, namespace: Namespace, device: str) -> None:
        self._socket = namespace.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 25)
        self._socket.bind((device, ETH_P_ALL))
        self.frames: list[bytes] = []

    def until(self, last: Callable[[bytes], bool], *, timeout: float = SOCKET_SECONDS) -> list[bytes]:
        """Every frame so far, up to one that is ``last``; fails if that one does not come."""
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0 and select.select([self._socket], [], [], left)[0]:
            self.frames.append(self._socket.recv(1 << 16))
            if last(self.frames[-1]):
                return self.frames
        raise AssertionError(f"the frame did not come; {len(self.frames)} others did")

    def __enter__(self) -> Capture:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
