# SPDX-License-Identifier: Apache-2.0
"""What arrives at a device, seen by a capture socket and by the kernel's own counter, and not by the agent's."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

from tests.support.namespace import Namespace
from tests.support.traffic import ETH_P_ALL
from tests.support.wait import wait_until

SOL_PACKET, PACKET_STATISTICS, PACKET_IGNORE_OUTGOING = 263, 6, 23  # <linux/if_packet.h>
RECEIVED_PACKETS = 1  # column of /proc/net/dev
NET = "/proc/thread-self/net"


def _device_counter(namespace: Namespace, device: str) -> int:
    text = namespace.call(Path(f"{NET}/dev").read_text)
    line = next(line for line in text.splitlines() if line.strip().startswith(f"{device}:"))
    return int(line.partition(":")[2].split()[RECEIVED_PACKETS])


def _ip_counters(namespace: Namespace) -> int:
    """Packets that the IP stacks of a namespace were given, of both families."""
    old = namespace.call(Path(f"{NET}/snmp").read_text).splitlines()
    new = namespace.call(Path(f"{NET}/snmp6").read_text).splitlines()
    names, values = (line.split() for line in old if line.startswith("Ip:"))
    six = dict(line.split() for line in new)
    return int(values[names.index("InReceives")]) + int(six.get("Ip6InReceives", 0))


@attrs.frozen
class Seen:
    """Frames that came to a device: at the capture socket, by the device's counter, and as packets for the stack."""

    captured: int
    received: int
    packets: int


class Witness:
    """Watches one device. Its capture socket takes every frame, so nothing has to be looked for in them."""

    def __init__(self, label: str, namespace: Namespace, device: str) -> None:
        """Start watching."""
        self.label = label
        self._namespace, self._device = namespace, device
        self._socket = namespace.packet_socket(device)
        self._socket.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        self._socket.bind((device, ETH_P_ALL))
        self._socket.settimeout(0)
        self._captured = 0
        self._start = self._count()

    def _count(self) -> Seen:
        # The statistics also have what did not fit into the socket, and start again from zero each time.
        statistics = self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8)
        self._captured += struct.unpack("=II", statistics)[0]
        return Seen(
            captured=self._captured,
            received=_device_counter(self._namespace, self._device),
            packets=_ip_counters(self._namespace),
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
            return self._socket.recv(1 << 16)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        """End watching."""
        self._socket.close()


NOTHING = Seen(0, 0, 0)


def assert_silence(witnesses: Sequence[Witness]) -> None:
    """None of them has seen a thing."""
    for witness in witnesses:
        seen = witness.seen()
        assert seen == NOTHING, f"{witness.label} saw {seen}, first {witness.frame().hex()}"


def assert_seen(witnesses: Sequence[Witness], expected: Mapping[str, int]) -> None:
    """Each of them, and its device's counter, sees exactly as many frames, soon; those not named see none."""
    wanted = {witness.label: expected.get(witness.label, 0) for witness in witnesses}

    def seen() -> dict[str, tuple[int, int]]:
        now = {witness.label: witness.seen() for witness in witnesses}
        return {label: (each.captured, each.received) for label, each in now.items()}

    wait_until(
        lambda: seen() == {label: (frames, frames) for label, frames in wanted.items()},
        lambda: f"the witnesses saw {seen()} and not {wanted}",
    )
