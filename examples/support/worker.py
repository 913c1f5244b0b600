# SPDX-License-Identifier: Apache-2.0
"""Runs inside a container: answers its neighbours over TCP, and takes orders, one line of JSON each.

Ends when its standard input does, so it never outlives the process that started it.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
import threading
import time

PORT = 7000
CHUNK = 1 << 18
SOCKET_SECONDS = 10.0


# -- for others --------------------------------------------------------------------------------------------


def serve(name: str) -> None:
    """``w``: return our name. ``s``: discard what comes, then return the number of bytes."""
    with socket.create_server(("0.0.0.0", PORT)) as listener:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=answer, args=(connection, name), daemon=True).start()


def answer(connection: socket.socket, name: str) -> None:
    with connection:
        connection.settimeout(SOCKET_SECONDS)
        wanted = connection.recv(1)
        reply = str(swallow(connection)) if wanted == b"s" else name
        connection.sendall(reply.encode())


def swallow(connection: socket.socket) -> int:
    buffer, total = bytearray(CHUNK), 0
    while size := connection.recv_into(buffer):
        total += size
    return total


# -- by order ----------------------------------------------------------------------------------------------


def checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def echo_request(sequence: int) -> bytes:
    identity = struct.pack("!HH", os.getpid() & 0xFFFF, sequence) + bytes(56)
    return struct.pack("!BBH", 8, 0, checksum(b"\x08\0\0\0" + identity)) + identity


def ping(to: str, count: int, timeout: float) -> dict[str, object]:
    """Echo requests, one after the other: the round trips in milliseconds of those answered."""
    trips: list[float] = []
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw:
        raw.connect((to, 0))
        for sequence in range(count):
            start = time.perf_counter()
            try:
                raw.send(echo_request(sequence))
                await_reply(raw, sequence, start + timeout)
            except OSError:
                continue  # no answer in time, or the kernel knows of no neighbour
            trips.append((time.perf_counter() - start) * 1000)
    return {"trips": trips}


def await_reply(raw: socket.socket, sequence: int, deadline: float) -> None:
    expected = b"\0" + echo_request(sequence)[4:]
    while True:
        raw.settimeout(max(deadline - time.perf_counter(), 0.001))
        packet = raw.recv(2048)[20:]  # a raw socket gives the IPv4 header, too
        if packet[:1] + packet[4:] == expected:
            return


def who(to: str) -> dict[str, object]:
    with socket.create_connection((to, PORT), SOCKET_SECONDS) as connection:
        connection.sendall(b"w")
        return {"name": read_all(connection).decode()}


def send(to: str, seconds: float) -> dict[str, object]:
    """Send as much as possible in that time, then wait until the receiver reports how much it got."""
    data, sent = bytes(CHUNK), 0
    with socket.create_connection((to, PORT), SOCKET_SECONDS) as connection:
        connection.sendall(b"s")
        start = time.perf_counter()
        while time.perf_counter() - start < seconds:
            connection.sendall(data)
            sent += len(data)
        connection.shutdown(socket.SHUT_WR)
        received = int(read_all(connection))
        return {"sent": sent, "received": received, "seconds": time.perf_counter() - start}


def read_all(connection: socket.socket) -> bytes:
    """Read to the end; after it no packet of the connection is on its way."""
    with connection.makefile("rb") as stream:
        return stream.read()


ORDERS = {"ping": ping, "who": who, "send": send}


def obey(order: str, arguments: dict[str, object]) -> dict[str, object]:
    try:
        return ORDERS[order](**arguments)  # type: ignore[operator]  # the caller knows the signature
    except OSError as error:
        return {"error": str(error)}


def main() -> None:
    threading.Thread(target=serve, args=(sys.argv[1],), daemon=True).start()
    print("{}", flush=True)  # ready
    for line in sys.stdin:
        order, arguments = json.loads(line)
        print(json.dumps(obey(order, arguments)), flush=True)


if __name__ == "__main__":
    main()
