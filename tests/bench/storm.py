# SPDX-License-Identifier: Apache-2.0
"""Prints what a storm of one endpoint costs the others; run as root: ``python -m tests.bench.storm``.

One endpoint sends broadcasts, then multicasts, then ARP requests for an address that nobody has, from a process of its
own and as fast as it can. A neighbour on its host pings an endpoint of that host and one of another host, one request
after the other. Idle and storm take turns, so that whatever else the machine does meets both. A row has the rate of
the storm, the median round trip without and with it, and how many of its frames any other endpoint received, by
captures that look for the sender.

Nothing is pinned to a CPU: the storm is dropped inside the call that sends, on the sender's own. On a machine without
a second free CPU the ratio tells of the scheduler.

The exit status is 1 if a round trip takes twice as long or more, or if anybody received anything.
"""

from __future__ import annotations

import ctypes
import os
import socket
import statistics
import struct
import sys
import time
from contextlib import ExitStack
from ipaddress import ip_address

import attrs

from tests.frames import BROADCAST, arp, datagram, echo_request, ethernet, ipv4
from tests.support.flood import Flood
from tests.support.isolation import isolate
from tests.support.namespace import Namespace
from tests.support.onlookers import PACKET_STATISTICS, SOL_PACKET
from tests.support.traffic import ETH_P_ALL, assert_ping, send_raw
from tests.support.wait import wait_until
from tests.world import Container, World

BLUE, GREEN = 7, 8
ROUNDS, PINGS = 5, 3000
ENDLESS = 1 << 40
UNBEARABLE = 2.0
SO_ATTACH_FILTER = 26  # <asm-generic/socket.h>
IDENTIFIER = os.getpid() & 0xFFFF


class Ear:
    """Counts the frames of a sender that a device receives."""

    def __init__(self, container: Container, sender: Container) -> None:
        """Start."""
        self._socket = container.namespace.socket(socket.AF_PACKET, socket.SOCK_RAW)
        # What comes from another host does not have the sender's MAC, only its address.
        is_near = container.host is sender.host
        at, known = (8, sender.mac[2:]) if is_near else (26, ip_address(sender.ip).packed)
        # ldw [at]; jeq known, else 1; accept; refuse
        code = ((0x20, 0, 0, at), (0x15, 0, 1, int.from_bytes(known, "big")), (6, 0, 0, 64), (6, 0, 0, 0))
        program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *each) for each in code))
        self._socket.setsockopt(
            socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("@HP", len(code), ctypes.addressof(program))
        )
        self._socket.bind((container.endpoint.ifname, ETH_P_ALL))

    def heard(self) -> int:
        """How many since the last call."""
        return int(struct.unpack("=II", self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))[0])

    def close(self) -> None:
        """Stop."""
        self._socket.close()


@attrs.frozen
class Crowd:
    """The one that floods, its neighbour, whom that one pings, and another tenant with the same addresses."""

    flooder: Container
    neighbour: Container
    near: Container
    far: Container
    tenant: Container

    @classmethod
    def on(cls, world: World) -> Crowd:
        """Make their containers."""
        one, other = world.hosts
        return cls(
            flooder=world.container(one, BLUE, "10.0.0.1/24"),
            neighbour=world.container(one, BLUE, "10.0.0.2/24"),
            near=world.container(one, BLUE, "10.0.0.3/24"),
            far=world.container(other, BLUE, "10.0.0.4/24"),
            tenant=world.container(one, GREEN, "10.0.0.1/24"),
        )


def storms(crowd: Crowd) -> dict[str, bytes]:
    """A frame of each storm."""
    mac, ip = crowd.flooder.mac, crowd.flooder.ip
    group = bytes.fromhex("01005e010203")
    return {
        "broadcast": datagram(mac, ip, "255.255.255.255", destination_mac=BROADCAST),
        "multicast": datagram(mac, ip, "239.1.2.3", destination_mac=group),
        "ARP for nobody": ethernet(BROADCAST, mac, 0x0806, arp(mac, ip, "10.0.0.200")),
    }


def round_trips(source: Namespace, to: str) -> list[float]:
    """Microseconds of each of many pings."""
    found: list[float] = []
    with source.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw:
        raw.connect((to, 0))
        for sequence in range(PINGS):
            request = echo_request(IDENTIFIER, sequence)
            start = time.perf_counter()
            raw.send(request)
            while raw.recv(2048)[24:28] != request[4:8]:
                pass
            found.append((time.perf_counter() - start) * 1e6)
    return found


@attrs.frozen
class Row:
    """What one storm did to one pair."""

    storm: str
    rate: float
    pinged: str
    idle: float
    stormy: float
    received: int

    @property
    def ratio(self) -> float:
        """How much longer a round trip takes."""
        return self.stormy / self.idle

    @property
    def bearable(self) -> bool:
        """Whether it may be so."""
        return self.ratio < UNBEARABLE and not self.received

    def __str__(self) -> str:
        times = f"{self.idle:8.1f} {self.stormy:8.1f} {self.ratio:6.2f}"
        return f"{self.storm:<16} {self.rate:>10,.0f} {self.pinged:<12} {times} {self.received:>9}"


def measure(crowd: Crowd, ears: list[Ear], storm: str, pinged: str, to: Container) -> Row:
    """Idle and storm in turns."""
    frame, idle, stormy, rates = storms(crowd)[storm], [], [], []
    for _ in range(ROUNDS):
        idle += round_trips(crowd.neighbour.namespace, to.ip)
        with (
            crowd.flooder.namespace.packet_socket(crowd.flooder.endpoint.ifname) as raw,
            Flood(raw.fileno(), [frame], ENDLESS),
        ):
            before = dropped(crowd)
            wait_until(lambda then=before: dropped(crowd) > then, "the storm does not begin")
            before, start = dropped(crowd), time.monotonic()
            stormy += round_trips(crowd.neighbour.namespace, to.ip)
            rates.append((dropped(crowd) - before) / (time.monotonic() - start))
    received = sum(ear.heard() for ear in ears)
    return Row(
        storm, statistics.median(rates), pinged, statistics.median(idle), statistics.median(stormy), received
    )


def dropped(crowd: Crowd) -> int:
    """Frames of the flooder that its host's agent has refused."""
    return crowd.flooder.endpoint.stats().dropped.packets


def assert_ears(crowd: Crowd, ears: list[Ear]) -> None:
    """Whoever may be spoken to hears the flooder: once."""
    tenants = (crowd.neighbour, crowd.near, crowd.far)
    with crowd.flooder.namespace.packet_socket(crowd.flooder.endpoint.ifname) as raw:
        for each in tenants:
            # The beginning of an echo reply, which nobody answers.
            packet = ipv4(crowd.flooder.ip, each.ip, bytes(8), protocol=socket.IPPROTO_ICMP)
            send_raw(raw, ethernet(each.mac, crowd.flooder.mac, 0x0800, packet))
    heard = [0] * len(ears)

    def all_heard() -> bool:
        heard[:] = [before + ear.heard() for before, ear in zip(heard, ears, strict=True)]
        return heard == [1, 1, 1, 0]

    wait_until(all_heard, lambda: f"heard {heard}")


def main() -> int:
    """Measure everything in namespaces of its own."""
    isolate()
    with World("vxlan") as world, ExitStack() as undo:
        crowd = Crowd.on(world)
        others = (crowd.neighbour, crowd.near, crowd.far, crowd.tenant)
        ears = [Ear(each, crowd.flooder) for each in others]
        for ear in ears:
            undo.callback(ear.close)
        assert_ears(crowd, ears)
        print(
            f"{'storm':<16} {'frames/s':>10} {'pinged on':<12} {'idle us':>8} {'storm us':>8} {'ratio':>6} received"
        )
        rows: list[Row] = []
        for storm in storms(crowd):
            for pinged, to in {"this host": crowd.near, "another": crowd.far}.items():
                assert_ping(crowd.neighbour.namespace, to.ip)
                rows.append(measure(crowd, ears, storm, pinged, to))
                print(rows[-1], flush=True)
    return 0 if all(row.bearable for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
