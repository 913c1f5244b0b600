# SPDX-License-Identifier: Apache-2.0
"""How long each call of the library blocks, with 100 endpoints and 10,000 remote entries on the host.

``chrt -f 10 python -m tests.bench.calls`` prints the median and the longest of each in milliseconds.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from functools import partial

import mizarnet as mz

ENDPOINTS, REMOTES = 100, 10_000
FAR = mz.Remote("198.51.100.2")


def timed(name: str, call: Callable[[], object], rounds: int) -> None:
    taken: list[float] = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        taken.append((time.perf_counter() - start) * 1e3)
    print(f"{name:45} {statistics.median(taken):8.2f} {max(taken):8.2f}", flush=True)


def main() -> int:
    with mz.Lab(name="calls", hosts=2) as lab:
        agent, netns = lab.hosts[0].agent, lab.container("c")
        remotes = {(9, f"10.{n >> 8}.{n & 255}.7"): FAR for n in range(REMOTES)}
        agent.endpoints.update(remotes)
        specs = [
            mz.EndpointSpec(vni=7, ip=f"10.7.0.{n}/32", netns=netns, ifname=f"e{n}")
            for n in range(1, ENDPOINTS + 1)
        ]
        start = time.perf_counter()
        mz.Endpoint.create_many(agent, specs)
        print(f"{'call':45} {'median':>8} {'longest':>8}   ms")
        each = (time.perf_counter() - start) * 1e3 / ENDPOINTS
        print(f"{'Endpoint.create_many(), for each':45} {each:8.2f}")
        report(agent, specs[0], remotes)
        start = time.perf_counter()
        mz.Endpoint.delete_many(agent, [spec.name for spec in specs])
        each = (time.perf_counter() - start) * 1e3 / ENDPOINTS
        print(f"{'Endpoint.delete_many(), for each':45} {each:8.2f}")
    return 0


def report(agent: mz.TransitAgent, spec: mz.EndpointSpec, remotes: dict[tuple[int, str], mz.Remote]) -> None:
    key = next(iter(remotes))
    found = mz.Endpoint.open(agent, spec.name)
    once = mz.EndpointSpec(vni=7, ip="10.7.1.1/16", netns=spec.netns, ifname="once")
    timed("agent.endpoints[key]", lambda: agent.endpoints[key], 200)
    timed("agent.endpoints[key] = Remote", partial(agent.endpoints.__setitem__, key, FAR), 200)
    timed("agent.stats()", agent.stats, 100)
    timed("agent.state()", agent.state, 50)
    timed("endpoint.stats()", found.stats, 100)
    timed("endpoint.state()", found.state, 100)
    timed("Endpoint.open()", partial(mz.Endpoint.open, agent, spec.name), 100)
    timed("Endpoint.list() of 100", partial(mz.Endpoint.list, agent), 10)
    timed("Endpoint.create() of what exists", partial(mz.Endpoint.create, agent, spec), 50)
    timed("Endpoint.create() and delete()", lambda: mz.Endpoint.create(agent, once).delete(), 20)
    for many in (1, 100, 1000):
        few = dict([*remotes.items()][:many])
        timed(f"endpoints.update() of {many:,}", partial(agent.endpoints.update, few), 10)
    timed("endpoints.sync() of 10,000, no change", partial(agent.endpoints.sync, remotes), 10)
    timed("endpoints.snapshot() of 10,000", agent.endpoints.snapshot, 10)
    timed("TransitAgent.open() and close()", lambda: mz.TransitAgent.open(agent.tunnel).close(), 20)
    timed(
        "TransitAgent.attach() of what is attached", lambda: mz.TransitAgent.attach(agent.tunnel).close(), 20
    )
    timed("probe()", mz.probe, 3)


if __name__ == "__main__":
    sys.exit(main())
