# SPDX-License-Identifier: Apache-2.0
"""How late an event loop is while 100 endpoints are made and deleted by ``mz.aio.call``; run as root.

``chrt -f 10 python -m tests.bench.loop_lag`` prints, for each phase, the median, the 99th percentile and the longest
time in milliseconds by which a timer of the loop came late. Timers of asyncio come up to 1 ms late by themselves: the
row "idle". The exit status is 1 if the 99th percentile of a phase is 5 ms or more.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Awaitable
from typing import Any

import mizarnet as mz
from tests.support.isolation import isolate

ENDPOINTS, INTERVAL, UNBEARABLE = 100, 0.002, 5.0


async def lateness(work: Awaitable[Any]) -> tuple[list[float], float]:
    """How late each timer came while ``work`` went on, in milliseconds, and how long that took, in seconds."""
    late: list[float] = []

    async def tick() -> None:
        while True:
            due = time.perf_counter() + INTERVAL
            await asyncio.sleep(INTERVAL)
            late.append((time.perf_counter() - due) * 1e3)

    ticking, start = asyncio.create_task(tick()), time.perf_counter()
    await work
    taken = time.perf_counter() - start
    ticking.cancel()
    return late, taken


async def report(name: str, work: Awaitable[Any]) -> bool:
    """Print a row; whether it is bearable."""
    late, taken = await lateness(work)
    percentile = statistics.quantiles(late, n=100, method="inclusive")[98]
    print(
        f"{name:32} {statistics.median(late):8.2f} {percentile:8.2f} {max(late):8.2f} {taken:8.2f}",
        flush=True,
    )
    return percentile < UNBEARABLE


async def phases(agent: mz.TransitAgent, netns: str) -> list[bool]:
    specs = [
        mz.EndpointSpec(vni=7, ip=f"10.7.0.{n}/32", netns=netns, ifname=f"e{n}")
        for n in range(1, ENDPOINTS + 1)
    ]
    print(f"{'phase':32} {'median':>8} {'p99':>8} {'longest':>8} ms  in s")
    return [
        await report("idle", asyncio.sleep(1)),
        await report(
            f"{ENDPOINTS} x create()",
            asyncio.gather(*(mz.aio.call(mz.Endpoint.create, agent, spec) for spec in specs)),
        ),
        await report(
            f"delete_many() of {ENDPOINTS}",
            mz.aio.call(mz.Endpoint.delete_many, agent, [spec.name for spec in specs]),
        ),
        await report("create_many() of them", mz.aio.call(mz.Endpoint.create_many, agent, specs)),
    ]


def main() -> int:
    isolate()
    with mz.Lab(name="lag", hosts=1) as lab:
        bearable = asyncio.run(phases(lab.hosts[0].agent, lab.container("c")))
    return int(not all(bearable))


if __name__ == "__main__":
    sys.exit(main())
