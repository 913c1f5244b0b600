# SPDX-License-Identifier: Apache-2.0
"""What the endpoints of a fabric offer each other, all served by one thread: web pages, files over TCP and UDP.

Servers listen in each endpoint's namespace on all its addresses, both families, and stay when it moves.
"""

from __future__ import annotations

import random
import selectors
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler
from typing import Any, cast

from tests.support.icmp import echo, family_of
from tests.support.namespace import SOCKET_SECONDS, Namespace

HTTP, FILE, DATAGRAMS = 8000, 9001, 5001
PAGE_BYTES, FILE_BYTES = 20_000, 150_000
DATAGRAM_BYTES, DATAGRAM_COUNT = 1000, 20
SO_RCVBUFFORCE, BUFFER_BYTES = 33, 1 << 22
Handler = Callable[[socket.socket], None]


def page(path: str) -> bytes:
    """The bytes that every server has under ``path``."""
    return random.Random(path).randbytes(PAGE_BYTES)


class _Page(BaseHTTPRequestHandler):
    timeout = SOCKET_SECONDS

    def do_GET(self) -> None:
        body = page(self.path)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def _serve_page(listener: socket.socket) -> None:
    connection, asker = listener.accept()
    connection.settimeout(SOCKET_SECONDS)
    with connection:
        _Page(connection, asker, cast(Any, None))


def _return_file(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    connection.settimeout(SOCKET_SECONDS)
    with connection:
        connection.sendall(_until_end(connection))


def _return_datagram(server: socket.socket) -> None:
    data, asker = server.recvfrom(1 << 16)
    server.sendto(data, asker)


def _until_end(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(1 << 16), b""))


_SERVERS: tuple[tuple[int, int, Handler], ...] = (
    (socket.SOCK_STREAM, HTTP, _serve_page),
    (socket.SOCK_STREAM, FILE, _return_file),
    (socket.SOCK_DGRAM, DATAGRAMS, _return_datagram),
)


class Services:
    """The servers of any number of namespaces, and the thread that runs them."""

    def __init__(self) -> None:
        """Start the thread."""
        self._selector = selectors.DefaultSelector()
        self._sockets: list[socket.socket] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="services")
        self._thread.start()

    def add(self, namespace: Namespace) -> None:
        """Serve in a namespace."""
        for kind, port, handler in _SERVERS:
            server = namespace.socket(socket.AF_INET6, kind)
            self._sockets.append(server)
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)  # nobody waits for datagrams
            server.bind(("::", port))
            if kind == socket.SOCK_STREAM:
                server.listen()
            self._selector.register(server, selectors.EVENT_READ, handler)

    def _run(self) -> None:
        while not self._over.is_set():
            for key, _ in self._selector.select(0.05):
                with suppress(OSError):  # the client, who waits for the answer, says what is missing
                    key.data(key.fileobj)

    def close(self) -> None:
        """End the thread and close everything."""
        self._over.set()
        self._thread.join()
        self._selector.close()
        for server in self._sockets:
            server.close()


# -- the clients -------------------------------------------------------------------------------------------


def _connect(client: Namespace, address: str, port: int) -> socket.socket:
    made = client.socket(family_of(address), socket.SOCK_STREAM)
    try:
        made.connect((address, port))
    except OSError as refused:
        made.close()
        raise AssertionError(f"{client.name} cannot connect to {address}: {refused}") from None
    return made


def fetch_page(client: Namespace, address: str, path: str = "/page", *, port: int = HTTP) -> None:
    """HTTP: every byte of a page."""
    connection = HTTPConnection("server", timeout=SOCKET_SECONDS)
    connection.sock = _connect(client, address, port)
    try:
        connection.request("GET", path)
        with connection.getresponse() as response:
            assert (response.status, response.read()) == (200, page(path))
    finally:
        connection.close()


def exchange_file(client: Namespace, address: str, *, size: int = FILE_BYTES) -> None:
    """TCP: a file there and back, byte by byte."""
    data = random.Random(size).randbytes(size)
    with _connect(client, address, FILE) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        assert _until_end(connection) == data


def exchange_datagrams(client: Namespace, address: str, *, size: int = DATAGRAM_BYTES) -> None:
    """UDP: a file in pieces there and back; none may be lost, though their order may change."""
    pieces = {bytes([number]) + random.Random(number).randbytes(size - 1) for number in range(DATAGRAM_COUNT)}
    with client.socket(family_of(address), socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
        sender.connect((address, DATAGRAMS))
        for piece in pieces:
            sender.send(piece)
        try:
            returned = {sender.recv(1 << 16) for _ in pieces}
        except TimeoutError:
            raise AssertionError(f"datagrams between {client.name} and {address} are missing") from None
    assert returned == pieces


def exchange_everything(client: Namespace, address: str) -> None:
    """Ping, a page, a file over TCP and one over UDP."""
    assert echo(client, address), f"{address} does not answer {client.name}"
    fetch_page(client, address)
    exchange_file(client, address)
    exchange_datagrams(client, address)
