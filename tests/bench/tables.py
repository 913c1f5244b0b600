# SPDX-License-Identifier: Apache-2.0
"""Prints what a change of a table costs; run as root: ``python -m tests.bench.tables``.

It is made beside 65,536 remote entries, and beside 4,000 networks and as many peers, of 4,096 that there is room for.
Each row has the median and the longest of its calls in milliseconds. Everything runs on one CPU, and in the real-time
class where that is allowed, so that nothing else on the machine comes in between.
"""

from __future__ import annotations

import itertools
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from ipaddress import ip_network

import mizarnet as mz
from tests.world import World

ENTRIES, PREFIXES = 65_536, 4_000
FEED, OTHER = "directory", "plan:web"
HOSTS = (mz.Remote("198.51.100.2"), mz.Remote("198.51.100.3"))
NETWORKS = (mz.Network(switches=["198.51.100.2"]), mz.Network(switches=["198.51.100.3"]))
KEYS = [mz.EndpointKey.parse((9, f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}")) for n in range(ENTRIES)]

SUBNETS = [ip_network((0x0A000000 + (n << 8), 24)) for n in range(PREFIXES + 1)]
NETWORK_KEYS = [mz.NetworkKey(9, each) for each in SUBNETS]


def timed(name: str, calls: list[Callable[[], object]]) -> None:
    """Time each call once."""
    print_row(name, [taken_by(call) for call in calls])


def alternately(first: Callable[[], object], second: Callable[[], object], *names: str) -> None:
    """Time two calls in turn, the second of which takes back what the first one did."""
    taken = [(taken_by(first), taken_by(second)) for _ in range(50)]
    for name, times in zip(names, zip(*taken, strict=True), strict=True):
        print_row(name, times)


def taken_by(call: Callable[[], object]) -> float:
    """Milliseconds that a call takes."""
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e3


def print_row(name: str, times: Sequence[float]) -> None:
    """Median and maximum of some times in milliseconds."""
    print(f"{name:48} {statistics.median(times):9.3f} {max(times):9.3f}", flush=True)


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
    timed("update() of 65,536", [partial(table.update, entries(each), feed=FEED) for each in HOSTS * 3])
    timed("snapshot() of 65,536", [table.snapshot] * 5)
    report_columns(table)
    timed("sync() that removes 32,768", [partial(table.sync, entries(HOSTS[0], ENTRIES // 2), feed=FEED)])
    timed("feed_of()", [partial(table.feed_of, KEYS[5])] * 200)
    timed("feeds()", [table.feeds] * 5)


def report_columns(table: mz.EndpointTable) -> None:
    """Rows of columns, beside the kernel's own batches of the same entries; all of them are there."""
    read = table.columns()
    turns = [
        mz.EndpointColumns(
            read.vnis, read.addresses, len(read) * (bytes(10) + b"\xff\xff" + each.host.packed)
        )
        for each in HOSTS
    ]
    timed("columns() of 65,536", [table.columns] * 5)
    timed("update() of 65,536 in columns", [partial(table.update, each, feed=FEED) for each in turns * 3])
    own = table._map(table._datapath.maps)
    keys, values, _ = own.lookup_all()
    timed("the kernel's batch that reads them", [own.lookup_all] * 5)
    timed("the kernel's batch that writes them", [partial(own.update_packed, keys, values)] * 5)


def report_networks(table: mz.NetworkTable) -> None:
    """Rows of a table of prefixes, in which all entries but the last of ``NETWORK_KEYS`` are."""
    turns, new = itertools.cycle(NETWORKS), NETWORK_KEYS[-1]
    for count in (1, 1_000):
        some = NETWORK_KEYS[:count]
        calls = [partial(table.apply, dict.fromkeys(some, next(turns)), feed=FEED) for _ in range(50)]
        timed(f"networks.apply() of {count:,}", calls)
    adds, removes = partial(table.update, {new: NETWORKS[0]}), partial(table.__delitem__, new)
    alternately(adds, removes, "networks.update() that adds one", "del networks[]")
    timed("networks[]", [partial(table.__getitem__, NETWORK_KEYS[5])] * 200)
    timed("in networks, of one that is not there", [partial(table.__contains__, new)] * 200)
    timed("networks.sync() without a change", [partial(table.sync, table.snapshot(), feed=FEED)] * 5)
    timed("networks.snapshot()", [table.snapshot] * 5)


def report_peers(table: mz.PeerSet) -> None:
    """Rows of the set of peers, in which all but the last of ``SUBNETS`` are."""
    new = SUBNETS[-1]
    alternately(
        partial(table.add, new), partial(table.discard, new), "peers.add() of a new one", "peers.discard()"
    )
    timed("in peers", [partial(table.__contains__, SUBNETS[5])] * 200)
    timed("peers.covers()", [partial(table.covers, "10.0.5.9")] * 200)


def main() -> int:
    """Fill the tables, and report."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
    with World("vxlan", hosts=1, max_endpoints=ENTRIES + 16) as world:
        agent = world.hosts[0].agent
        agent.endpoints.update(entries(HOSTS[1]), feed=FEED)
        print(f"{'beside 65,536 entries':48} {'median':>9} {'longest':>9}   ms")
        report(agent)
        agent.networks.update(dict.fromkeys(NETWORK_KEYS[:PREFIXES], NETWORKS[1]), feed=FEED)
        agent.peers.update(SUBNETS[:PREFIXES], feed=FEED)
        print(f"{'beside 4,000 prefixes':48} {'median':>9} {'longest':>9}   ms")
        report_networks(agent.networks)
        report_peers(agent.peers)
    return 0


if __name__ == "__main__":
    sys.exit(main())
