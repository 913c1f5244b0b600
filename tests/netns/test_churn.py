# SPDX-License-Identifier: Apache-2.0
"""While endpoints come and go, and those who make them are killed, the others lose nothing, at any rate."""

from __future__ import annotations

import itertools
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress

import pytest

import mizarnet as mz
from mizarnet import Verdict
from tests.machine.ground import private_names
from tests.support.agreement import disagreements
from tests.support.depth import SEED, depth
from tests.support.injector import Injector
from tests.support.rivals import NAMES, Rival
from tests.support.torrent import Torrent
from tests.world import GREEN, TUNNEL, UNDERLAY, Host, World, quiet

SECONDS = depth(10, 300)
MOST_CALLS = 100
"""A churner is killed in front of one of so many calls that change something, some verbs later."""


class Churner(Rival):
    """Does to endpoints and tables of its tenant what rivals do, and to agent and switch what leaves them whole."""

    def __init__(self, host: str, seed: int, namespaces: list[str]) -> None:
        agent = mz.TransitAgent.open(TUNNEL, netns=host)
        super().__init__(agent, seed, namespaces)
        self._host = host
        self._calls += [self.attach_again, self.attach_switch, self.detach_switch]

    def attach_again(self) -> None:
        mz.TransitAgent.attach(self._agent.tunnel).close()

    def attach_switch(self) -> None:
        mz.TransitSwitch.attach(self._agent, mode="generic")

    def detach_switch(self) -> None:
        mz.TransitSwitch.detach(UNDERLAY, netns=self._host)


class Churn:
    """Churners, one after the other, none of whom comes to its end."""

    def __init__(self, host: Host, injector: Injector, namespaces: list[str]) -> None:
        self._host, self._namespaces = host.namespace.name, namespaces
        self._injector = injector
        self._random = random.Random(SEED)
        self._seeds = itertools.count(SEED)
        self.deaths: Counter[str] = Counter()

    def go_on(self, seconds: float) -> None:
        """For so long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._random.choice((self._die_at_any_moment, self._die_before_a_call))()

    def _churner(self, seed: int) -> Churner:
        return Churner(self._host, seed, self._namespaces)

    def _die_at_any_moment(self) -> None:
        seed = next(self._seeds)
        child = os.fork()
        if child == 0:
            with suppress(BaseException):
                churner = self._churner(seed)
                while True:
                    churner.step()
            os._exit(1)
        time.sleep(self._random.uniform(0.02, 0.5))
        os.kill(child, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        self.deaths["at any moment"] += 1

    def _die_before_a_call(self) -> None:
        seed = next(self._seeds)

        def verb(begin: Callable[[], None]) -> None:
            churner = self._churner(seed)
            begin()
            while True:
                churner.step()

        assert self._injector.kill(verb, self._random.randint(1, MOST_CALLS))
        self.deaths["before a call"] += 1


@pytest.fixture
def injector(tmp_path_factory: pytest.TempPathFactory) -> Injector:
    return Injector.build(tmp_path_factory.mktemp("injector"))


def test_nobody_loses_a_datagram_while_others_come_go_and_die(world: World, injector: Injector) -> None:
    first, second = world.hosts
    near = world.container(first, GREEN, "10.0.0.1/24")
    beside = world.container(first, GREEN, "10.0.0.2/24")
    far = world.container(second, GREEN, "10.0.0.3/24")
    spaces = [world.namespace(f"c{number}") for number in range(2)]
    for each in spaces:
        quiet(each)
    churn = Churn(first, injector, [each.name for each in spaces])
    before = first.agent.stats(), second.agent.stats()
    with (
        Torrent(near.namespace, beside.namespace, beside.ip) as local,
        Torrent(near.namespace, far.namespace, far.ip) as outward,
        Torrent(far.namespace, near.namespace, near.ip) as inward,
    ):
        churn.go_on(SECONDS)
        told = {"local": local.result(), "outward": outward.result(), "inward": inward.result()}
    print(dict(churn.deaths), *(f"{way}: {each}" for way, each in told.items()), sep="\n")
    assert all(each.is_whole for each in told.values()), told
    _assert_counted(world, before, {way: each.sent for way, each in told.items()})
    assert min(churn.deaths["at any moment"], churn.deaths["before a call"]) > 0
    _assert_nothing_left(first, [each.name for each in (*spaces, near.namespace, beside.namespace)])


def _assert_counted(world: World, before: tuple[mz.Stats, mz.Stats], sent: dict[str, int]) -> None:
    """Each frame that was offered has one verdict, and nobody else's frame has one."""
    here, there = (host.agent.stats().since(then) for host, then in zip(world.hosts, before, strict=True))
    answered = here.agent[Verdict.NEIGHBOUR_ANSWERED].packets
    _assert_all(
        here.agent,
        {
            Verdict.DELIVERED_LOCALLY: sent["local"],
            Verdict.ENCAPSULATED: sent["outward"],
            Verdict.NEIGHBOUR_ANSWERED: answered,
        },
    )
    _assert_all(
        here.guard,
        {Verdict.ACCEPTED: sent["inward"], Verdict.ACCEPTED_LOCALLY: sent["local"] + answered},
    )
    answered = there.agent[Verdict.NEIGHBOUR_ANSWERED].packets
    _assert_all(there.agent, {Verdict.ENCAPSULATED: sent["inward"], Verdict.NEIGHBOUR_ANSWERED: answered})
    _assert_all(there.guard, {Verdict.ACCEPTED: sent["outward"], Verdict.ACCEPTED_LOCALLY: answered})


def _assert_all(counted: Mapping[Verdict, mz.Counter], wanted: dict[Verdict, int]) -> None:
    found = {verdict: each.packets for verdict, each in counted.items() if each.packets}
    assert found == {verdict: count for verdict, count in wanted.items() if count}


def _assert_nothing_left(host: Host, spaces: list[str]) -> None:
    mz.TransitSwitch.detach(UNDERLAY, netns=host.namespace.name)
    mz.Endpoint.delete_many(host.agent, NAMES)
    assert all(host.agent.state().attached.values())
    assert disagreements(host.agent, [*spaces, *private_names()]) == []
    assert [each.name for each in mz.Endpoint.list(host.agent, prefix="rival", dead=True)] == []
    assert private_names() == []
