# SPDX-License-Identifier: Apache-2.0
"""Processes that do not see each other's lock make, delete and write the same things: no table is wrong afterwards."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import mizarnet as mz
from tests.support.agreement import disagreements
from tests.support.depth import SEED, depth
from tests.support.own_run import OWN_RUN, SHARED_RUN
from tests.support.process import heard
from tests.support.rivals import NAMES
from tests.support.traffic import assert_ping
from tests.world import Host, World, quiet

PROCESSES, SECONDS = depth(4, 8), depth(2, 60)
RUNS = {
    "the lock of all": [SHARED_RUN],
    "a lock each": [OWN_RUN],
    "some with, some without": [OWN_RUN, SHARED_RUN],
}


def _compete(host: Host, runs: list[tuple[str, ...]], namespaces: list[str]) -> Counter[str]:
    """Let them loose; how their calls ended."""
    module = [sys.executable, "-m", "tests.support.rivals", host.namespace.name]
    rivals = [
        subprocess.Popen(
            [*runs[number % len(runs)], *module, str(SEED + number), str(SECONDS), *namespaces],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(PROCESSES)
    ]
    ended: Counter[str] = Counter()
    try:
        assert [heard(each) for each in rivals] == ["ready"] * PROCESSES
        for each in rivals:
            assert each.stdin is not None
            each.stdin.write("\n")
            each.stdin.flush()
        for each in rivals:
            told, _ = each.communicate(timeout=SECONDS + 300)
            assert each.returncode == 0
            ended.update(json.loads(told))
    finally:
        for each in rivals:
            each.kill()
            each.wait()
    return ended


def _private() -> list[str]:
    return [path.name for path in Path("/run/netns").glob("mizarnet-*")]


@pytest.mark.parametrize("who", RUNS)
def test_no_table_is_wrong_after_rivals(world: World, who: str) -> None:
    host = world.hosts[0]
    spaces = [world.namespace(f"r{number}") for number in range(3)]
    for each in spaces:
        quiet(each)
    ended = _compete(host, RUNS[who], [each.name for each in spaces])
    print(who, json.dumps(ended, indent=1, sort_keys=True))
    made, *others = ("create: done", "delete: done", "write_one: done", "sync: done", "apply: done")
    assert min(ended[each] for each in (made, *others)) > 0
    names = [each.name for each in spaces] + _private()
    assert disagreements(host.agent, names) == [], f"seed {SEED}"
    _assert_alive(world, host)
    mz.Endpoint.delete_many(host.agent, NAMES)
    assert disagreements(host.agent, [each.name for each in spaces]) == []
    assert mz.Endpoint.list(host.agent) == []
    assert _private() == []


def _assert_alive(world: World, host: Host) -> None:
    """An endpoint talks: one that has its namespace for itself, since two of one network answer by either device."""
    asker = world.namespace("asker")
    quiet(asker)
    mz.Endpoint.create(host.agent, vni=7, ip="10.0.0.9/24", netns=asker.name, name="asker")
    found = mz.Endpoint.list(host.agent, prefix="rival")
    neighbours = Counter(endpoint.netns for endpoint in found)
    for endpoint in found:
        if endpoint.kind is mz.Kind.MACVLAN and neighbours[endpoint.netns] == 1:
            assert_ping(asker, str(endpoint.ip))
    mz.Endpoint.delete_many(host.agent, ["asker"])
