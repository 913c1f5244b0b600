# SPDX-License-Identifier: Apache-2.0
"""Prints how many pairs of create and delete a second there are, and how long the last in a crowd waits; run as root.

``python -m tests.bench.crowd``. One process makes and deletes endpoints one after the other, then eight do, 40 each, in
namespaces of their own. To delete a device the kernel waits for a grace period, in which the others go on: so there is
to be more than one process's work, on two CPUs at least 1.8 times as much. Single and crowd take turns.

Then 24 writers write as often as they can for half a minute: entries, endpoints, VMs, the agent, and the switch,
which takes the host alone. Nobody's call is to take 2 s.

The exit status is 1 if any of this is missed.
"""

from __future__ import annotations

import statistics
import sys
import time

import mizarnet as mz
from tests.support.crowd import Crowd
from tests.support.isolation import isolate
from tests.support.writers import KINDS, WRITERS, write_for
from tests.world import World, quiet

ROUNDS, PROCESSES, EACH = 5, 8, 40
GAIN, PATIENCE, WRITING_SECONDS = 1.8, 2.0, 30.0


def pairs(world: World, processes: int, spaces: list[str]) -> float:
    """Pairs a second that so many processes reach together."""

    def act(agent: mz.TransitAgent, number: int, _: object) -> None:
        for n in range(EACH):
            ip, netns = f"10.0.{number}.{n + 1}/16", spaces[number]
            mz.Endpoint.create(agent, name=f"{number}/{n}", vni=7, ip=ip, netns=netns).delete()

    with Crowd(world.hosts[0], processes, act) as crowd:
        begun = time.perf_counter()
        crowd.at_once()
        return processes * EACH / (time.perf_counter() - begun)


def measure_gain(world: World) -> float:
    """How much more a crowd does than one process."""
    spaces = [world.namespace(f"c{number}") for number in range(PROCESSES)]
    for each in spaces:
        quiet(each)
    names = [each.name for each in spaces]
    rates: dict[int, list[float]] = {1: [], PROCESSES: []}
    for _ in range(ROUNDS):
        for processes, found in rates.items():
            found.append(pairs(world, processes, names))
    alone, together = (statistics.median(found) for found in rates.values())
    print(f"create and delete, 1 process      {alone:8.1f} pairs/s")
    print(
        f"create and delete, {PROCESSES} processes    {together:8.1f} pairs/s, {together / alone:.2f} times"
    )
    return together / alone


def measure_wait(world: World) -> float:
    """Seconds that the longest call among many writers took; infinite if one failed."""
    written = write_for(world, WRITING_SECONDS)
    print(f"{WRITERS} writers for {WRITING_SECONDS:g} s\n{written}")
    failed = {end: count for end, count in written.calls.items() if not end.endswith(": done")}
    print(*(f"{count} times {end}" for end, count in failed.items()), sep="\n", end="")
    return float("inf") if failed else max(written.longest[kind] for kind in KINDS)


def main() -> int:
    """Measure both on a host of its own."""
    isolate()
    with World("vxlan", hosts=1) as world:
        gain, wait = measure_gain(world), measure_wait(world)
    return 0 if gain >= GAIN and wait < PATIENCE else 1


if __name__ == "__main__":
    sys.exit(main())
