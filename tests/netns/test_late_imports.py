# SPDX-License-Identifier: Apache-2.0
"""A call that imports modules of the package late, in a process that has few descriptors left."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.world import World

CODE = """
import os, resource, sys
import mizarnet as mz
_, hard = limits = resource.getrlimit(resource.RLIMIT_NOFILE)
here, inside = sys.argv[1:3]
tunnel = mz.Tunnel.open("tunnel0", netns=here)
agent = mz.TransitAgent.open(tunnel)
endpoint = mz.Endpoint.create(agent, name="web", vni=7, ip="10.0.0.1/24", netns=inside)
used, refused = max(map(int, os.listdir("/proc/self/fd"))), 0
for spare in range(200):
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + spare, hard))
    try:
        CALL
    except mz.KernelError as error:
        assert "ulimit -n" in error.hint, error
        refused += 1
    else:
        break
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
assert 0 < refused < 200, refused
"""


@pytest.mark.parametrize(
    "call",
    [
        "agent.check()",
        "agent.health()",
        "agent.state()",
        "agent.explain('10.0.0.1', '10.0.0.2', vni=7)",
        "agent.events().close()",
        "agent.outdated",
        "agent.update(shortcut='off')",
        "agent.upgrade()",
        "agent.detach(force=True)",
        "mz.TransitAgent.detach('tunnel0', netns=here, force=True)",
        "mz.TransitAgent.attach(tunnel)",
        "tunnel.check()",
        "tunnel.update(mtu=1400)",
        "tunnel.delete(force=True)",
        "endpoint.check()",
        "endpoint.update(labels={'a': 'b'})",
    ],
)
def test_is_refused_by_an_error_of_the_tree_until_there_are_enough(world: World, call: str) -> None:
    host, inside = world.hosts[0], world.namespace("late")
    assert host.agent
    command = (sys.executable, "-c", CODE.replace("CALL", call), host.namespace.name, inside.name)
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
