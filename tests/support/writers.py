# SPDX-License-Identifier: Apache-2.0
"""Writers of every kind that write as often as they can: entries, endpoints, VMs, agent and switch."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import attrs

import mizarnet as mz
from tests.support.crowd import Crowd
from tests.world import World, quiet

PROCESSES, THREADS = 12, 2
WRITERS = PROCESSES * THREADS


@attrs.frozen
class Written:
    """What became of the calls.

    Attributes:
        calls: How many ended in which way, by kind.
        longest: Seconds that the longest call took, by kind.
    """

    calls: Counter[str]
    longest: dict[str, float]

    def __str__(self) -> str:
        rows = (f"{kind:16} {self.calls[f'{kind}: done']:7} {self.longest[kind]:7.3f} s" for kind in KINDS)
        return "\n".join(["writers of           calls  longest", *rows])


def _write_entries(agent: mz.TransitAgent, number: int, _: str) -> None:
    agent.endpoints.update({(8, f"10.8.0.{number + 1}"): mz.Remote("192.0.2.9")}, feed=f"writer{number % 4}")


def _change_endpoints(agent: mz.TransitAgent, number: int, netns: str) -> None:
    name, ip = f"writer{number}", f"10.9.0.{number + 1}"
    mz.Endpoint.create(agent, name=name, vni=9, ip=ip, netns=netns, ifname=f"e{number}")
    mz.Endpoint.delete_many(agent, [name])


def _change_vms(agent: mz.TransitAgent, number: int, _: str) -> None:
    # The kernel keeps all of rtnetlink waiting until a thread of its own has made, or removed, a VM's device node.
    name, ip = f"writer{number}", f"10.9.0.{number + 1}/24"
    mz.Endpoint.create(agent, name=name, vni=9, ip=ip, kind="macvtap")
    mz.Endpoint.delete_many(agent, [name])


def _change_switch(agent: mz.TransitAgent, _: int, __: str) -> None:
    # Both steps take the host alone.
    mz.TransitSwitch.attach(agent, mode="generic").detach()


def _attach_again(agent: mz.TransitAgent, number: int, _: str) -> None:
    mz.TransitAgent.attach(agent.tunnel).close()


KINDS: dict[str, Callable[[mz.TransitAgent, int, str], None]] = {
    "entries": _write_entries,
    "endpoints": _change_endpoints,
    "VMs": _change_vms,
    "the agent": _attach_again,
    "the switch": _change_switch,
}


def write_for(world: World, seconds: float) -> Written:
    """Let all of them write on the first host for so long."""
    space = world.namespace("writers")
    quiet(space)

    def act(agent: mz.TransitAgent, process: int, _: object) -> list[Written]:
        numbers = range(process * THREADS, (process + 1) * THREADS)
        with ThreadPoolExecutor(THREADS) as pool:
            return [*pool.map(lambda number: _write(agent, number, space.name, seconds), numbers)]

    with ExitStack() as stack:
        crowd = stack.enter_context(Crowd(world.hosts[0], PROCESSES, act))
        return _together([each for told in crowd.at_once() for each in told])


def _write(agent: mz.TransitAgent, number: int, netns: str, seconds: float) -> Written:
    kind = [*KINDS][number % len(KINDS)]
    calls, longest = Counter[str](), 0.0
    end = time.monotonic() + seconds
    while (begun := time.monotonic()) < end:
        try:
            KINDS[kind](agent, number, netns)
            calls[f"{kind}: done"] += 1
        except mz.MizarnetError as error:
            calls[f"{kind}: {type(error).__name__}: {error}"] += 1
        longest = max(longest, time.monotonic() - begun)
    return Written(calls, {kind: longest})


def _together(each: list[Written]) -> Written:
    calls: Counter[str] = Counter()
    longest = dict.fromkeys(KINDS, 0.0)
    for one in each:
        calls.update(one.calls)
        longest |= {kind: max(longest[kind], seconds) for kind, seconds in one.longest.items()}
    return Written(calls, longest)
