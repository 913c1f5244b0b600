# SPDX-License-Identifier: Apache-2.0
"""Who would see an attack succeed, without asking the library: captures, sockets and the kernel's own counters."""

from __future__ import annotations

import select
import socket
import struct
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.support.icmp import family_of
from tests.support.namespace import Namespace
from tests.support.topology import Container
from tests.support.traffic import ETH_P_ALL
from tests.support.wait import wait_until

PORT = 9
SOL_PACKET, PACKET_STATISTICS, PACKET_IGNORE_OUTGOING = 263, 6, 23  # <linux/if_packet.h>


def protocol_counters(namespace: Namespace) -> Counter[str]:
    """The kernel's counters of IPv4 and what is above it: ``"Udp.InDatagrams"``, for example."""
    # /proc/net is the view of the process, whatever namespace its threads live in.
    lines = namespace.call(lambda: Path("/proc/thread-self/net/snmp").read_text()).splitlines()
    found: Counter[str] = Counter()
    for names, values in zip(lines[::2], lines[1::2], strict=True):
        protocol, *columns = names.split()
        for name, value in zip(columns, values.split()[1:], strict=True):
            found[f"{protocol.rstrip(':')}.{name}"] = int(value)
    return found


def device_counters(namespace: Namespace, device: str) -> dict[str, int]:
    """What a device has received and could not send, by the names of ``/sys/class/net/*/statistics``."""
    lines = namespace.call(lambda: Path("/proc/thread-self/net/dev").read_text()).splitlines()
    (values,) = (line.split()[1:] for line in lines if line.split()[0] == f"{device}:")
    return {"rx_packets": int(values[1]), "tx_dropped": int(values[11])}


class EndpointOnlooker:
    """Counts the frames that an endpoint's device received, of every kind: by a capture and by the device."""

    def __init__(self, container: Container) -> None:
        """Start; a socket on the port keeps the container from answering anything."""
        self.container = container
        self._undo = ExitStack()
        space, name = container.namespace, container.endpoint.ifname
        self._socket = self._undo.enter_context(space.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self._socket.bind(("", PORT))
        self._capture = self._undo.enter_context(space.socket(socket.AF_PACKET, socket.SOCK_RAW))
        self._capture.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        self._capture.bind((name, ETH_P_ALL))
        self._captured = 0
        self._before = device_counters(space, name)["rx_packets"]

    def seen(self) -> tuple[int, int]:
        """Frames in the capture, and frames by the device's own counter."""
        statistics = self._capture.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8)
        self._captured += struct.unpack("=II", statistics)[0]  # reading resets it; what did not fit is in it
        space, name = self.container.namespace, self.container.endpoint.ifname
        return self._captured, device_counters(space, name)["rx_packets"] - self._before

    def received(self) -> list[bytes]:
        """The datagrams that wait at the port."""
        found: list[bytes] = []
        while select.select([self._socket], [], [], 0)[0]:
            found.append(self._socket.recv(1 << 16))
        return found

    def close(self) -> None:
        """Stop."""
        self._undo.close()


class HostOnlooker:
    """A UDP and a TCP socket on each given address of a host, and UDP sockets for whatever else it has."""

    def __init__(self, namespace: Namespace, addresses: Sequence[str]) -> None:
        """Start to listen."""
        self._namespace, self._addresses = namespace, addresses
        self._undo = ExitStack()
        self._sockets: list[socket.socket] = []
        for address in (*addresses, "0.0.0.0", "::"):
            self._listen(socket.SOCK_DGRAM, address)
        for address in addresses:
            self._listen(socket.SOCK_STREAM, address)

    def _listen(self, kind: int, address: str) -> None:
        made = self._undo.enter_context(self._namespace.socket(family_of(address), kind))
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if address == "::":
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind((address, PORT))
        if kind == socket.SOCK_STREAM:
            made.listen(16)
        self._sockets.append(made)

    def reached(self) -> list[str]:
        """The sockets that something waits at."""
        return [str(each.getsockname()) for each in select.select(self._sockets, [], [], 0)[0]]

    def assert_reachable(self) -> None:
        """Each of them hears whoever may speak to it: the host itself."""
        with ExitStack() as undo:
            for address in (*self._addresses, "127.0.0.2", "::1"):
                asking = undo.enter_context(self._namespace.socket(family_of(address), socket.SOCK_DGRAM))
                asking.sendto(b"heard?", (address, PORT))
            for address in self._addresses:
                asking = undo.enter_context(self._namespace.socket(family_of(address), socket.SOCK_STREAM))
                asking.connect((address, PORT))
            wait_until(lambda: len(self.reached()) == len(self._sockets), lambda: f"only {self.reached()}")

    def close(self) -> None:
        """Stop."""
        self._undo.close()
