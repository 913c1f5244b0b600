# SPDX-License-Identifier: Apache-2.0
"""How long it takes to read, check and delete many endpoints: ``chrt -f 10 python -m tests.bench.endpoints``, one core.

Containers have a namespace each; with 16 namespaces, one holds many endpoints. What the kernel allows is in
``tests/bench/links.py``.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial

from prometheus_client import CollectorRegistry, generate_latest

import mizarnet as mz

HOST = 4_096
"""Endpoints that a host has room for."""
DELETED = 320
SCRAPED = 1_000
TURNS = 50


def median_of(call: Callable[[], object], rounds: int = 5) -> float:
    taken: list[float] = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def specs(lab: mz.Lab, count: int, namespaces: int) -> list[mz.EndpointSpec]:
    names = [lab.container(f"s{n}") for n in range(namespaces)]
    return [
        mz.EndpointSpec(
            vni=7,
            ip=f"10.{n >> 8}.{n & 255}.1",
            netns=names[n % namespaces],
            ifname=f"e{n // namespaces}",
            gateway=(),
        )
        for n in range(count)
    ]


def report(what: str, seconds: float) -> None:
    print(f"{what:60} {seconds:7.3f} s", flush=True)


def read_all(lab: mz.Lab) -> None:
    agent = lab.hosts[0].agent
    wanted = specs(lab, HOST, 16)
    report(f"create_many() of {HOST:,}", timed(partial(mz.Endpoint.create_many, agent, wanted)))
    report(f"list() of {HOST:,}", median_of(partial(mz.Endpoint.list, agent)))
    report(f"state_all() of {HOST:,}, in 16 namespaces", median_of(partial(mz.Endpoint.state_all, agent)))
    report(f"stats_all() of {HOST:,}", median_of(partial(mz.Endpoint.stats_all, agent)))
    with mz.Host.open(netns=lab.hosts[0].netns) as host:
        assert host.check() == []
        report(f"Host.check() with {HOST:,}", median_of(host.check))
        report(f"Host.health() with {HOST:,}", median_of(host.health))
    report(f"detach(force=True) of {HOST:,}", timed(partial(agent.detach, force=True)))


def scrape(lab: mz.Lab) -> None:
    """What a server for Prometheus does at each scrape."""
    agent = lab.hosts[0].agent
    mz.Endpoint.create_many(agent, specs(lab, SCRAPED, 16))
    registry = CollectorRegistry()
    registry.register(mz.metrics.Collector(agent))
    report(f"scrape of {SCRAPED:,}", median_of(partial(generate_latest, registry), rounds=15))


def delete_some(lab: mz.Lab, namespaces: int) -> None:
    agent = lab.hosts[0].agent
    wanted = specs(lab, DELETED, namespaces)
    names = [spec.name for spec in wanted]

    def once() -> float:
        mz.Endpoint.create_many(agent, wanted)
        return timed(partial(mz.Endpoint.delete_many, agent, names))

    taken = statistics.median(once() for _ in range(3))
    report(f"delete_many() of {DELETED} in {namespaces} namespaces", taken)


def beside_commands(lab: mz.Lab) -> None:
    """One endpoint, and many deleted, beside a shell that does the same with ``ip``."""
    agent, at = lab.hosts[0].agent, lab.hosts[0].netns
    name, device = lab.container("one"), agent.tunnel.name
    commands = (
        f"ip -n {at} link add e0 link {device} type macvlan mode private",
        f"ip -n {at} link set e0 netns {name}",
        f"ip -n {name} address add 10.0.0.9/24 dev e0",
        f"ip -n {name} link set e0 up",
        f"ip -n {name} route add default via 10.0.0.1",
    )
    taken: dict[str, list[float]] = {"create()": [], "five ip commands": []}
    for _ in range(TURNS):
        create = partial(mz.Endpoint.create, agent, vni=7, ip="10.0.0.8/24", netns=name, gateway="10.0.0.1")
        taken["create()"].append(timed(create))
        mz.Endpoint.delete_many(agent, ["7/10.0.0.8"])
        taken["five ip commands"].append(timed(partial(shell, commands)))
        shell([f"ip -n {name} link delete e0"])
    for what, each in taken.items():
        report(f"{what}, the least {min(each):.4f}", statistics.median(each))
    spaces = [lab.container(f"d{n}") for n in range(16)]
    places = [(spaces[n % 16], f"e{n}") for n in range(DELETED)]
    add = "ip -n {} link add {} link {} netns {} type macvlan mode private"
    shell([add.format(at, link, device, space) for space, link in places])
    loop = partial(shell, [f"ip -n {space} link delete {link}" for space, link in places])
    report(f"a loop of ip link delete for {DELETED} in 16 namespaces", timed(loop))


def shell(commands: Sequence[str]) -> None:
    subprocess.run(["sh", "-ec", "\n".join(commands)], check=True)


def timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> int:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    for namespaces in (16, DELETED):
        with mz.Lab(name="many", hosts=2) as lab:
            delete_some(lab, namespaces)
    with mz.Lab(name="many", hosts=2) as lab:
        read_all(lab)
    with mz.Lab(name="many", hosts=1) as lab:
        scrape(lab)
    with mz.Lab(name="many", hosts=2) as lab:
        beside_commands(lab)
    return 0


if __name__ == "__main__":
    sys.exit(main())
