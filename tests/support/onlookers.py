# SPDX-License-Identifier: Apache-2.0
"""Who would see an attack succeed, without asking the library: captures, sockets and the kernel's own counters."""

from __future__ import annotations

import select
import socket
import struct
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import attrs

from tests.support.icmp import family_of
from tests.support.namespace import Namespace
from tests.support.traffic import ETH_P_ALL
from tests.support.wait import wait_until
from tests.world import Container

PORT = 9
SOL_PACKET, PACKET_STATISTICS, PACKET_IGNORE_OUTGOING = 263, 6, 23  # <linux/if_packet.h>


# -- the kernel's counters ---------------------------------------------------------------------------------


def _lines(namespace: Namespace, file: str) -> list[str]:
    # /proc/net is the view of the process, whatever namespace its threads live in.
    return namespace.call(Path("/proc/thread-self/net", file).read_text).splitlines()


def protocol_counters(namespace: Namespace) -> Counter[str]:
    """Of IPv4 and what is above it, ``"Udp.InDatagrams"`` for example, and of IPv6: ``"Ip6InReceives"``."""
    four, found = _lines(namespace, "snmp"), Counter[str]()
    for names, values in zip(four[::2], four[1::2], strict=True):
        protocol, *columns = names.split()
        for name, value in zip(columns, values.split()[1:], strict=True):
            found[f"{protocol.rstrip(':')}.{name}"] = int(value)
    for line in _lines(namespace, "snmp6"):
        name, value = line.split()
        found[name] = int(value)
    return found


def device_counters(namespace: Namespace, device: str) -> dict[str, int]:
    """What a device has received and could not send, by the names of ``/sys/class/net/*/statistics``."""
    (values,) = (line.split()[1:] for line in _lines(namespace, "dev") if line.split()[0] == f"{device}:")
    return {"rx_packets": int(values[1]), "tx_dropped": int(values[11])}


# -- at a device -------------------------------------------------------------------------------------------


@attrs.frozen
class Seen:
    """What came to a device.

    Attributes:
        captured: Frames at the capture.
        received: Frames by the device's own counter.
        packets: Packets for the IP stacks of its namespace.
    """

    captured: int
    received: int
    packets: int


NOTHING = Seen(0, 0, 0)


class Onlooker:
    """Watches one device. Its capture takes every frame, so nothing has to be looked for in them.

    Attributes:
        label: Who it is, to people.
    """

    def __init__(self, label: str, namespace: Namespace, device: str) -> None:
        """Start watching."""
        self.label = label
        self._namespace, self._device = namespace, device
        self._undo = ExitStack()
        self._capture = self._undo.enter_context(namespace.packet_socket(device))
        self._capture.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        self._capture.bind((device, ETH_P_ALL))
        self._capture.settimeout(0)
        self._captured = 0
        self._start = self._count()

    def _count(self) -> Seen:
        # The statistics also have what did not fit into the socket, and start again from zero each time.
        statistics = self._capture.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8)
        self._captured += struct.unpack("=II", statistics)[0]
        protocols = protocol_counters(self._namespace)
        return Seen(
            captured=self._captured,
            received=device_counters(self._namespace, self._device)["rx_packets"],
            packets=protocols["Ip.InReceives"] + protocols["Ip6InReceives"],
        )

    def seen(self) -> Seen:
        """What came since the last :meth:`forget`, or the beginning."""
        now, then = self._count(), self._start
        return Seen(now.captured - then.captured, now.received - then.received, now.packets - then.packets)

    def forget(self) -> None:
        """Begin anew."""
        while self.frame():
            pass
        self._start = self._count()

    def frame(self) -> bytes:
        """The oldest frame kept, for the message of a failure; empty if there is none."""
        try:
            return self._capture.recv(1 << 16)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        """End watching."""
        self._undo.close()


class EndpointOnlooker(Onlooker):
    """Watches an endpoint's device, with a socket on the port that keeps the container from answering anything."""

    def __init__(self, container: Container) -> None:
        """Start watching."""
        super().__init__(container.namespace.name, container.namespace, container.endpoint.ifname)
        self._socket = self._undo.enter_context(container.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self._socket.bind(("", PORT))

    def received(self) -> list[bytes]:
        """The datagrams that wait at the port."""
        found: list[bytes] = []
        while select.select([self._socket], [], [], 0)[0]:
            found.append(self._socket.recv(1 << 16))
        return found


def assert_silence(onlookers: Collection[Onlooker]) -> None:
    """None of them has seen a thing."""
    for onlooker in onlookers:
        seen = onlooker.seen()
        assert seen == NOTHING, f"{onlooker.label} saw {seen}, first {onlooker.frame().hex()}"


def assert_seen(onlookers: Collection[Onlooker], expected: Mapping[str, int]) -> None:
    """Each of them, and its device's counter, sees exactly as many frames, soon; those not named see none."""
    wanted = {onlooker.label: expected.get(onlooker.label, 0) for onlooker in onlookers}

    def seen() -> dict[str, tuple[int, int]]:
        now = {onlooker.label: onlooker.seen() for onlooker in onlookers}
        return {label: (each.captured, each.received) for label, each in now.items()}

    wait_until(
        lambda: seen() == {label: (frames, frames) for label, frames in wanted.items()},
        lambda: f"the onlookers saw {seen()} and not {wanted}",
    )


# -- at a host's sockets -----------------------------------------------------------------------------------


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
