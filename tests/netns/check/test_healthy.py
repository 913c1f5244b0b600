# SPDX-License-Identifier: Apache-2.0
"""On two hosts that are whole, with endpoints that come and go and traffic between them, no check finds anything."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import mizarnet as mz
from tests.netns.check.conftest import of_host
from tests.support.depth import depth
from tests.support.traffic import ping
from tests.world import Container, Host, World, quiet

SECONDS = depth(30, 600)
ENDPOINTS = 40


def churn(world: World, host: Host, number: int) -> Callable[[], None]:
    """Creates and deletes endpoints on a host, and changes its tables, one step at a time."""
    space = world.namespace(f"churn{number}")
    quiet(space)
    other = world.hosts[1 - number].address
    numbers = itertools.count()

    def step() -> None:
        last = next(numbers) % 250 + 1
        name = f"churn-{number}-{last}"
        mz.Endpoint.create(host.agent, name=name, vni=9, ip=f"10.{number}.9.{last}/16", netns=space.name)
        host.agent.endpoints.update({(9, f"10.{number}.8.{last}"): mz.Remote(other)})
        host.agent.networks.update({(9, f"10.{last}.0.0/16"): mz.Network()})
        del host.agent.networks[9, f"10.{last}.0.0/16"]
        mz.TransitAgent.attach(host.tunnel).close()
        mz.Endpoint.delete_many(host.agent, [name])

    return step


def test_a_healthy_pair_has_no_findings(world: World) -> None:
    containers: list[Container] = [
        world.container(world.hosts[number % 2], 7, f"10.0.0.{number + 1}/24") for number in range(ENDPOINTS)
    ]
    vms = [
        mz.Endpoint.create(host.agent, name="vm", vni=8, ip=f"10.8.0.{n}/24", kind="macvtap")
        for n, host in enumerate(world.hosts, 1)
    ]
    assert all(vm.created for vm in vms)
    end = time.monotonic() + SECONDS

    def repeat(step: Callable[[], object]) -> int:
        count = 0
        while time.monotonic() < end:
            step()
            count += 1
        return count

    # Each to the next three: all pairs would fill the kernel's table of neighbours, which is a finding.
    pairs = itertools.cycle((n, (n + step) % ENDPOINTS) for step in (1, 2, 3) for n in range(ENDPOINTS))

    def traffic() -> None:
        one, other = (containers[number] for number in next(pairs))
        assert ping(one.namespace, other.ip), f"{one.ip} to {other.ip}"

    handles: list[mz.Host] = []

    def look() -> None:
        for handle in handles:
            assert of_host(handle.check()) == []
            health = handle.health()
            assert (health.ok, of_host(health.reasons)) == (True, [])

    steps = [churn(world, host, number) for number, host in enumerate(world.hosts)]
    with ExitStack() as opened, ThreadPoolExecutor(4) as pool:
        handles += [opened.enter_context(mz.Host.open(netns=host.namespace.name)) for host in world.hosts]
        done = [each.result() for each in [pool.submit(repeat, step) for step in (look, traffic, *steps)]]
    print(f"{done[0]} checks of both hosts, {done[1]} pings, {done[2:]} endpoints came and went")
    assert min(done) > 1
