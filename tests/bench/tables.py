# SPDX-License-Identifier: Apache-2.0
"""Prints what a change of a table costs, beside 65,536 remote entries; run as root: ``python -m tests.bench.tables``.

Each row has the median and the longest of its calls in milliseconds. Everything runs on one CPU, and in the real-time
class where that is allowed, so that nothing else on the machine comes in between.
"""

from __future__ import annotations

import itertools
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial

import mizarnet as mz
from tests.world import World

ENTRIES = 65_536
FEED, OTHER = "directory", "plan:web"
HOSTS = (mz.Remote("198.51.100.2"), mz.Remote("198.51.100.3"))
KEYS = [mz.EndpointKey.parse((9, f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}")) for n in range(ENTRIES)]


def timed(name: str, calls: list[Callable[[], object]]) -> None:
    """Time each call once."""
    taken: list[float] = []
    for call in calls:
        start = time.perf_counter()
        call()
        taken.append((time.perf_counter() - start) * 1e3)
    print(f"{name:48} {statistics.median(taken):9.3f} {max(taken):9.3f}", flush=True)


def entries(host: mz.Remote, count: int = ENTRIES) -> Mapping[mz.EndpointKey, mz.Remote]:
    """The first entries, all with one host."""
    return dict.fromkeys(KEYS[:count], host)


def report(agent: mz.TransitAgent) -> None:
    """All rows. What is written turns between two hosts, so that each call changes what it names."""
    table, turns = agent.endpoints, itertools.cycle(HOSTS)

    def timed_turns(name: str, method: Callable[..., object], rounds: int, **options: str) -> None:
        for count in (1, 1_000):
            calls = [partial(method, entries(next(turns), count), **options) for _ in range(rounds)]
            timed(f"{name} of {count:,}", calls)

    timed_turns("update()", table.update, 200, feed=FEED)
    timed_turns("apply()", table.apply, 200, feed=FEED)
    timed_turns("apply() by another feed, all refused,", table.apply, 200, feed=OTHER)
    back = [
        partial(table.apply, {KEYS[0]: HOSTS[0]}, feed=FEED),
        partial(table.apply, {}, KEYS[:1], feed=FEED),
    ]
    timed("apply() that adds one and removes one in turn", back * 100)
    whole = entries(HOSTS[0])
    table.sync(whole, feed=FEED)
    timed("sync() of 65,536 without a change", [partial(table.sync, whole, feed=FEED)] * 5)
    timed("sync() that removes 32,768", [partial(table.sync, entries(HOSTS[0], ENTRIES // 2), feed=FEED)])
    timed("feed_of()", [partial(table.feed_of, KEYS[5])] * 200)
    timed("feeds()", [table.feeds] * 5)


def main() -> int:
    """Fill a table, and report."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
    with World("vxlan", hosts=1, max_endpoints=ENTRIES + 16) as world:
        agent = world.hosts[0].agent
        agent.endpoints.update(entries(HOSTS[1]), feed=FEED)
        print(f"{'beside 65,536 entries':48} {'median':>9} {'longest':>9}   ms")
        report(agent)
    return 0


if __name__ == "__main__":
    sys.exit(main())
