# SPDX-License-Identifier: Apache-2.0
"""Two processes that do not see each other's lock attach to one tunnel at once: one agent comes of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from subprocess import Popen

import pytest

import mizarnet as mz
from mizarnet._datapath import hooks
from tests.support.depth import depth
from tests.support.own_run import OWN_RUN
from tests.support.process import heard, start_python
from tests.support.standing import attached_on, data_paths
from tests.support.wait import wait_until
from tests.world import Host

ROUNDS = {"auto": depth(20, 200), "clsact": depth(6, 200), "tcx": depth(6, 200)}
CASES = [pytest.param(hook, marks=pytest.mark.vm) if hook == "clsact" else hook for hook in ROUNDS]
"""A kernel before 6.6 has the filters of a clsact only, and no compare-and-swap for them."""

MAKER = """
tunnel = mz.Tunnel.open("tunnel0", netns=sys.argv[1])
print("ready", flush=True)
for hook in sys.stdin:
    try:
        with mz.TransitAgent.attach(tunnel, hook=hook.strip()) as agent:
            state = agent.state()
            print(agent.created, agent._datapath.meta_id, state.up and all(state.attached.values()), flush=True)
    except mz.MizarnetError as error:
        print(type(error).__name__, error, flush=True)
"""


@contextmanager
def makers(host: Host, count: int = 2) -> Iterator[list[Popen[str]]]:
    """Processes that attach when they are told a hook."""
    with started(MAKER, host, count) as made:
        yield made


@contextmanager
def started(program: str, host: Host, count: int = 2) -> Iterator[list[Popen[str]]]:
    """Processes that are ready, each with a lock of its own."""
    made = [start_python(program, host.namespace.name, by=OWN_RUN, talk=True) for _ in range(count)]
    try:
        assert [heard(each) for each in made] == ["ready"] * count
        yield made
    finally:
        for each in made:
            each.kill()
            each.communicate()


def at_once(both: list[Popen[str]], *lines: str) -> list[str]:
    """What they answer to a line each, which all are told before one is listened to."""
    for each, line in zip(both, lines, strict=True):
        assert each.stdin is not None
        each.stdin.write(f"{line}\n")
        each.stdin.flush()
    return [heard(each) for each in both]


@pytest.mark.parametrize("hook", CASES)
def test_two_makers_make_one_agent(host: Host, hook: str) -> None:
    if hook == "tcx" and not mz.probe().tcx:
        return  # a kernel before 6.6
    wanted = hooks.choose_layers(None if hook == "auto" else mz.Hook(hook))
    places = [str(place) for place in hooks.wanted_places(wanted)]
    host.agent.detach()
    with makers(host) as both:
        for _ in range(ROUNDS[hook]):
            told = [each.split() for each in at_once(both, hook, hook)]
            assert sum(created == "True" for created, *_ in told) >= 1, told
            assert {whole for _, _, whole in told} == {"True"}, told
            (meta,) = {int(meta) for _, meta, _ in told}
            assert attached_on(host) == places
            _assert_alone_and_detach(host, meta)


LEAVER = """
tunnel = mz.Tunnel.open("tunnel0", netns=sys.argv[1])
print("ready", flush=True)
for line in sys.stdin:
    try:
        if "attach" in line:
            mz.TransitAgent.attach(tunnel).close()
        else:
            with mz.TransitAgent.open(tunnel) as agent:
                agent.detach(force=True)
        print("done", flush=True)
    except mz.MizarnetError as error:
        print(type(error).__name__, flush=True)
"""


def test_a_tunnel_that_two_attach_and_detach_is_guarded_or_down(host: Host) -> None:
    """In whatever order their steps come: without a guard, it is down."""
    with started(LEAVER, host) as both:
        told: Counter[str] = Counter()
        for number in range(depth(60, 600)):
            told.update(at_once(both, *(("attach", "detach") if number % 2 else ("detach", "attach"))))
            standing = attached_on(host)
            assert any("guard" in place for place in standing) or not host.tunnel.state().up, (number, told)
    print(dict(told))
    assert told["done"] > 0
    with mz.TransitAgent.attach(host.tunnel) as agent:
        assert agent.state().up
        assert all(agent.state().attached.values())


def test_makers_that_want_different_hooks_do_not_block_each_other(host: Host) -> None:
    if not mz.probe().tcx:
        return  # there is one layer to want
    host.agent.detach()
    with makers(host) as both:
        for _ in range(depth(20, 200)):
            told = at_once(both, "auto", "clsact")
            with mz.TransitAgent.attach(host.tunnel) as agent:
                assert all(agent.state().attached.values()), told
                agent.detach()


def _assert_alone_and_detach(host: Host, meta: int) -> None:
    with mz.TransitAgent.open(host.tunnel) as agent:
        assert agent._datapath.meta_id == meta
        standing = set(agent.state().programs.values())
        wait_until(lambda: {*data_paths()[meta]} == standing, "a loser's program lives on")
        agent.detach()
    wait_until(lambda: meta not in data_paths(), "it lives on")
