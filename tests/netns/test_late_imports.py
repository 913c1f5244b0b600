# SPDX-License-Identifier: Apache-2.0
"""A call that imports modules of the package late, in a process that can no longer read them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import mizarnet
from tests.world import World

CALLS = [
    "agent.check()",
    "agent.health()",
    "agent.state()",
    "agent.explain('10.0.0.1', '10.0.0.2', vni=7)",
    "agent.events().close()",
    "agent.outdated",
    "agent.update(shortcut='off')",
    "agent.upgrade()",
    "agent.detach(force=True)",
    "mz.TransitAgent.attach(tunnel)",
    "tunnel.check()",
    "tunnel.update(mtu=1400)",
    "tunnel.delete(force=True)",
    "endpoint.check()",
    "endpoint.update(labels={'a': 'b'})",
]
PREPARE = """
import os, resource, sys
import mizarnet as mz
_, hard = limits = resource.getrlimit(resource.RLIMIT_NOFILE)
here, inside = sys.argv[1:3]
tunnel = mz.Tunnel.open("tunnel0", netns=here)
agent = mz.TransitAgent.open(tunnel)
endpoint = mz.Endpoint.create(agent, name="web", vni=7, ip="10.0.0.1/24", netns=inside)
"""
FEW_DESCRIPTORS = """
used, refused, of_imports = max(map(int, os.listdir("/proc/self/fd"))), 0, 0
for spare in range(200):
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + spare, hard))
    try:
        CALL
    except mz.KernelError as error:
        assert "ulimit -n" in error.hint, error
        refused += 1
        of_imports += error.operation.startswith("import ")
    else:
        break
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
assert 0 < of_imports <= refused < 200, (of_imports, refused)
"""
NO_PACKAGE = """
os.rename(os.path.dirname(mz.__file__), sys.argv[3])
for call in sys.argv[4:]:
    try:
        eval(call)
    except mz.MissingLibraryError as error:
        assert "start the process anew" in error.hint, error
    else:
        raise AssertionError(call)
"""


def _run(world: World, code: str, *words: str, cwd: Path | None = None) -> None:
    host, inside = world.hosts[0], world.namespace("late")
    assert host.agent
    command = (sys.executable, "-c", PREPARE + code, host.namespace.name, inside.name, *words)
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=cwd)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("call", CALLS)
def test_is_refused_by_an_error_of_the_tree_until_there_are_descriptors(world: World, call: str) -> None:
    _run(world, FEW_DESCRIPTORS.replace("CALL", call))


def test_is_refused_by_an_error_of_the_tree_where_the_package_is_gone(world: World, tmp_path: Path) -> None:
    package = Path(mizarnet.__file__).parent
    shutil.copytree(package, tmp_path / package.name)
    _run(world, NO_PACKAGE, str(tmp_path / "elsewhere"), *CALLS, cwd=tmp_path)
