# SPDX-License-Identifier: Apache-2.0
"""An exception of a signal handler, as Ctrl-C is one, comes after a call that changes something, not in its middle."""

from __future__ import annotations

import itertools
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import mizarnet as mz
from mizarnet._kernel import runners
from mizarnet._kernel.jobs import stopping, whole
from mizarnet._kernel.netlink._worker import registry
from tests.support.depth import depth
from tests.support.process import finish, start_python
from tests.support.steps import ends_at
from tests.world import Container, World, links

ROUNDS = depth(150, 2500)
SECONDS = {
    "create": 0.006,
    "delete": 0.03,
    "macvtap": 0.03,
    "write": 0.001,
    "sync": 0.002,
    "peers": 0.002,
    "attach": 0.3,
}
"""How long each call takes at most, more or less: the signal comes at a random moment of it."""

# What a process that lives on, such as a notebook, does after each interrupted call: everything must be as before or
# after the call, and nobody may be kept from the host's lock.
PROGRAM = """
import json, random, signal
from mizarnet._datapath import lock
from mizarnet._datapath.endpoints import LocalEndpoints

host, netns, rounds, moments = sys.argv[1], sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4])
agent = mz.TransitAgent.open("tunnel0", netns=host)
spec = mz.EndpointSpec(name="web", vni=7, ip=["10.0.0.1/24", "fd00::1/64"], netns=netns)
vm = mz.EndpointSpec(name="vm", vni=7, ip="10.0.0.2/24", kind="macvtap")
far = mz.Remote("192.0.2.77")


def interrupt(number, frame):
    raise KeyboardInterrupt


def attach():
    with mz.Tunnel.create("other", encap=agent.tunnel.encap, underlay="eth0", port=7777, netns=host) as other:
        mz.TransitAgent.attach(other).close()
        other.delete(force=True)


CALLS = {
    "create": lambda: mz.Endpoint.create(agent, spec),
    "delete": lambda: mz.Endpoint.delete_many(agent, ["web"]),
    "macvtap": lambda: mz.Endpoint.create(agent, vm).delete(),
    "write": lambda: agent.endpoints.__setitem__((7, "10.0.0.3"), far),
    "sync": lambda: agent.endpoints.sync({(7, "10.0.0.4"): far}),
    "peers": lambda: (agent.peers.add("203.0.113.0/24"), agent.peers.discard("203.0.113.0/24")),
    "attach": attach,
}
random.seed(7)
signal.signal(signal.SIGALRM, interrupt)
came = dict.fromkeys(CALLS, 0)
for number in range(rounds):
    name = random.choice(list(CALLS)[:-1]) if number % 10 else "attach"
    try:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-4, moments[name]))
        CALLS[name]()
        signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        came[name] += 1
    signal.setitimer(signal.ITIMER_REAL, 0)
    with lock.locked(agent.tunnel._host.cookie, timeout=0):
        found = [record for record in LocalEndpoints.of(agent._datapath).recorded()]
    assert [each.name for each in mz.Endpoint.list(agent)] == [each.spec.name for each in found], name
    mz.Endpoint.create(agent, spec)  # a device without a record would be in the way
mz.Endpoint.delete_many(agent, ["web", "vm"])
mz.Tunnel.create("other", encap=agent.tunnel.encap, underlay="eth0", port=7777, netns=host).delete(force=True)
agent.endpoints.sync({})
print(json.dumps(came))
"""


def test_a_call_is_interrupted_before_or_after_never_in_its_middle(world: World) -> None:
    host, namespace = world.hosts[0], world.namespace("web")
    arguments = (host.namespace.name, namespace.name, str(ROUNDS), json.dumps(SECONDS))
    status, output = finish(start_python(PROGRAM, *arguments), seconds=depth(60, 600))
    assert status == 0, output
    came = json.loads(output.splitlines()[-1])
    print(f"{sum(came.values())} of {ROUNDS} signals came in a call: {came}")
    assert sum(came.values()) > ROUNDS / 5, came
    assert came["create"] and came["delete"], came
    assert links(namespace) == ["lo"]
    assert [name for name in os.listdir("/run/netns") if name.startswith("mizarnet-")] == []
    assert "other" not in links(host.namespace)


@pytest.mark.parametrize(
    "open_one",
    [
        lambda netns, vm: mz.Tunnel.open("tunnel0", netns=netns),
        lambda netns, vm: mz.TransitAgent.open("tunnel0", netns=netns),
        lambda netns, vm: mz.Host.open(netns=netns),
        lambda netns, vm: vm.open_tap(),
    ],
    ids=["tunnel", "agent", "host", "tap"],
)
def test_a_handle_that_an_interrupt_kept_from_being_closed_can_be_closed_again(
    world: World, open_one: Callable[[str, mz.Endpoint], Any]
) -> None:
    host = world.hosts[0]
    vm = mz.Endpoint.create(host.agent, vni=7, ip="10.0.0.2/24", kind="macvtap")
    before = held()
    for step in itertools.count():
        handle = open_one(host.namespace.name, vm)
        is_one = ends_at(step, handle.close)
        handle.close()
        del handle
        assert held() == before, step
        if not is_one:
            break


def held() -> tuple[int, int]:
    """Descriptors of this process, and sessions that share a thread in a namespace."""
    return len(os.listdir("/proc/self/fd")), sum(each.users for each in registry._shared.values())


class Stop(Exception):
    """What a handler of SIGTERM raises in many services."""


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sends this process a signal in a moment, whose handler raises."""

    def handler(number: int, frame: object) -> None:
        raise Stop

    before = signal.signal(signal.SIGUSR1, handler)
    yield lambda: threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1)).start()
    signal.signal(signal.SIGUSR1, before)


def test_the_exception_comes_when_the_call_has_ended(soon: Any) -> None:
    ended: list[bool] = []

    @whole
    def slow() -> None:
        time.sleep(0.4)
        ended.append(stopping())

    soon()
    with pytest.raises(Stop):
        slow()
    assert ended == [True]


def test_many_endpoints_stop_between_two(soon: Any, web: Container) -> None:
    specs = [
        mz.EndpointSpec(vni=7, ip=f"10.0.{n >> 8}.{n & 255}/32", netns=web.namespace.name, ifname=f"e{n}")
        for n in range(10, 2000)
    ]
    soon()
    with pytest.raises(Stop):
        mz.Endpoint.create_many(web.host.agent, specs)
    made = [each.name for each in mz.Endpoint.list(web.host.agent) if each.name != "web"]
    assert 0 < len(made) < len(specs)
    assert len(links(web.namespace)) == 2 + len(made)


def test_an_error_of_the_call_is_its_own(web: Container) -> None:
    @whole
    def refuse() -> None:
        raise Stop

    with pytest.raises(Stop):
        refuse()
    with pytest.raises(mz.ExistsError, match="belongs to"):
        mz.Endpoint.create(web.host.agent, name="other", vni=7, ip="10.0.0.1/24", netns=web.namespace.name)


def test_without_another_thread_the_call_goes_on_where_it_is(
    web: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the limit of threads, and at the interpreter's exit, when it starts no more."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    runners._kept.clear()
    with monkeypatch.context() as without:
        without.setattr(threading.Thread, "start", refuse)
        web.host.agent.endpoints[7, "10.0.0.9"] = mz.Remote("192.0.2.77")
        with pytest.raises(mz.LocalEndpointError):
            del web.host.agent.endpoints[7, "10.0.0.1"]
        assert (7, "10.0.0.9") in web.host.agent.endpoints
        web.endpoint.delete()
    assert mz.Endpoint.list(web.host.agent, dead=True) == []
