# SPDX-License-Identifier: Apache-2.0
"""Prints what a reader of events costs packets; run as root: ``python -m tests.bench.events``.

One endpoint floods its host with frames that are dropped, from a process of its own and as fast as it can. A neighbour
pings an endpoint of that host and one of another host. With and without a reader of drops take turns, so that whatever
else the machine does meets both. A row has the median round trips, and the rate of the flood.

The exit status is 1 if a round trip takes 2 % longer, the flood is slower by 15 %, or a frame was neither told nor
counted as lost. Nothing is pinned to a CPU, so on a busy machine the ratios tell of the scheduler.
"""

from __future__ import annotations

import statistics
import sys
import time
from contextlib import ExitStack

import attrs

from tests.bench.storm import ENDLESS, Crowd, dropped, round_trips
from tests.frames import datagram
from tests.support.flood import Flood
from tests.support.isolation import isolate
from tests.support.wait import wait_until
from tests.world import Container, World

ROUNDS = 10
LONGER, SLOWER = 1.02, 0.85
NOBODY = "10.0.0.200"


@attrs.frozen
class Times:
    """What was measured with a reader, or without one: microseconds of round trips, and frames a second."""

    pings: list[float] = attrs.field(factory=list[float])
    rates: list[float] = attrs.field(factory=list[float])

    def add(self, crowd: Crowd, to: Container) -> None:
        """One round."""
        before, start = dropped(crowd), time.monotonic()
        self.pings.append(statistics.median(round_trips(crowd.neighbour.namespace, to.ip)))
        self.rates.append((dropped(crowd) - before) / (time.monotonic() - start))


def measure(crowd: Crowd, pinged: str, to: Container) -> bool:
    """Both in turns; whether it is bearable."""
    frame = datagram(crowd.flooder.mac, crowd.flooder.ip, NOBODY, destination_mac=crowd.flooder.mac)
    without, reading, missed = Times(), Times(), 0
    for _ in range(ROUNDS):
        before = dropped(crowd)
        with crowd.flooder.host.agent.events(endpoint=crowd.flooder.endpoint) as events:
            with ExitStack() as flood:
                begin(crowd, frame, flood)
                reading.add(crowd, to)
            told = sum(1 for _ in iter(lambda: events.read(timeout=0), None))
            missed += dropped(crowd) - before - told - events.lost
        with ExitStack() as flood:
            begin(crowd, frame, flood)
            without.add(crowd, to)
    idle, busy = statistics.median(without.pings), statistics.median(reading.pings)
    rate, slower = statistics.median(without.rates), statistics.median(reading.rates)
    print(
        f"{pinged:<12} {idle:8.1f} {busy:8.1f} {busy / idle:6.3f}"
        f" {rate:10,.0f} {slower:10,.0f} {slower / rate:6.3f} {missed:6}",
        flush=True,
    )
    return busy / idle <= LONGER and slower / rate >= SLOWER and not missed


def begin(crowd: Crowd, frame: bytes, stack: ExitStack) -> None:
    """Flood until the stack is closed."""
    raw = stack.enter_context(crowd.flooder.namespace.packet_socket(crowd.flooder.endpoint.ifname))
    stack.enter_context(Flood(raw.fileno(), [frame], ENDLESS))
    before = dropped(crowd)
    wait_until(lambda: dropped(crowd) > before, "the flood does not begin")


def main() -> int:
    """Measure in namespaces of its own."""
    isolate()
    with World("vxlan") as world:
        crowd = Crowd.on(world)
        times, rates = (
            f"{'us':>8} {'reading':>8} {'ratio':>6}",
            f"{'drops/s':>10} {'reading':>10} {'ratio':>6}",
        )
        print(f"{'pinged':<12} {times} {rates} missed")
        return (
            0
            if all([measure(crowd, "same host", crowd.near), measure(crowd, "other host", crowd.far)])
            else 1
        )


if __name__ == "__main__":
    sys.exit(main())
