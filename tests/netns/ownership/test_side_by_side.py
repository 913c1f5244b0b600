# SPDX-License-Identifier: Apache-2.0
"""Endpoints of different names do not wait for each other, and nobody waits for ever."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from subprocess import Popen

import pytest

import mizarnet as mz
from mizarnet._datapath import lock
from mizarnet._datapath.lock import (
    HOST,
    SHARED_HOST,
    TABLE_WRITER,
    endpoint_writer,
    locked,
    of_name,
    of_names,
)
from mizarnet._model.codec import FIRST
from tests.support.agreement import disagreements
from tests.support.process import heard, start_python
from tests.support.traffic import assert_ping
from tests.world import Container, Host, World

COOKIE = 0x6D7B
"""Of no namespace."""
STOPPED = """
from mizarnet._datapath.endpoints import {module}
def stop(*_, **__):
    print("stopped", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
    signal.pause()  # another thread takes the signal, maybe later
{module}.{function} = stop
agent = mz.TransitAgent.open("tunnel0", netns=sys.argv[1])
{call}
"""
CREATE = "mz.Endpoint.create(agent, name='slow', vni=7, ip='10.0.0.77/24', netns=sys.argv[2])"
DELETE = "mz.Endpoint.delete_many(agent, ['slow'])"


@pytest.fixture
def db(world: World) -> Container:
    return world.container(world.hosts[0], 7, "10.0.0.2/24")


@contextmanager
def stopped(world: World, module: str, function: str, call: str) -> Iterator[Popen[str]]:
    """A process that was stopped in the middle of a call."""
    program = STOPPED.format(module=module, function=function, call=call)
    process = start_python(program, world.hosts[0].namespace.name, world.namespace("slow").name)
    try:
        assert heard(process) == "stopped"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_who_is_stopped_while_making_blocks_its_own_name_alone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = world.hosts[0].agent
    with stopped(world, "device", "_create", CREATE) as other:
        web, db = (
            world.container(world.hosts[0], 7, "10.0.0.1/24"),
            world.container(world.hosts[0], 7, "10.0.0.2/24"),
        )
        agent.endpoints[7, "10.0.0.9"] = mz.Remote("192.0.2.2")
        agent.peers.add("203.0.113.0/24")
        assert_ping(web.namespace, db.ip)
        db.endpoint.delete()
        monkeypatch.setattr(lock, "TIMEOUT", 0.1)
        for name, ip in (("slow", "10.0.0.78"), ("slow", "10.0.0.77")):
            with pytest.raises(mz.LockTimeoutError) as caught:
                mz.Endpoint.create(agent, name=name, vni=7, ip=f"{ip}/24", ifname="e9")
            assert caught.value.pid == other.pid
        with pytest.raises(mz.LockTimeoutError):
            agent.detach(force=True)
        with pytest.raises(mz.ExistsError, match=f"being made or deleted: process {other.pid}"):
            mz.Endpoint.create(agent, name="rival", vni=7, ip="10.0.0.77/24", ifname="e9")
        (slow,) = (each for each in mz.Endpoint.list(agent, dead=True) if each.name == "slow")
        assert slow.state().life is mz.Life.MAKING
    mz.Endpoint.delete_many(agent, ["slow"])
    assert [each.name for each in mz.Endpoint.list(agent, dead=True)] == [web.endpoint.name]


def test_who_is_stopped_while_deleting_blocks_its_own_name_alone(world: World) -> None:
    agent, space = world.hosts[0].agent, world.namespace("space")
    mz.Endpoint.create(agent, name="slow", vni=7, ip="10.0.0.77/24", netns=space.name)
    with stopped(world, "removal", "delete_links", DELETE):
        assert mz.Endpoint.open(agent, "slow", dead=True).state().life is mz.Life.DELETING
        others = world.namespace("others")
        made = [
            mz.Endpoint.create(agent, vni=7, ip=f"10.0.0.{n}/32", netns=others.name, ifname=f"e{n}")
            for n in range(1, 4)
        ]
        mz.Endpoint.delete_many(agent, [each.name for each in made])
        agent.endpoints[7, "10.0.0.77"] = mz.Remote("192.0.2.2")  # its address is free already
        heir = mz.Endpoint.create(agent, name="heir", vni=7, ip="10.0.0.77/24", netns=others.name)
        assert agent.endpoints[7, "10.0.0.77"] == mz.Local(heir.mac, heir._record.slot)
    mz.Endpoint.delete_many(agent, ["slow"])
    assert disagreements(agent, [space.name, others.name]) == []
    heir.delete()
    again = mz.Endpoint.create(agent, name="slow", vni=7, ip="10.0.0.77/24", netns=space.name)
    assert again.created


def test_attaching_again_waits_for_makers_only_where_something_is_missing(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    cookie, maps = host.agent._datapath.host.cookie, host.agent._datapath.maps
    monkeypatch.setattr(lock, "TIMEOUT", 0.1)
    with locked(cookie, *endpoint_writer("slow")):
        for arguments in ({}, {"peers": [*host.agent.peers]}):
            with mz.TransitAgent.attach(host.tunnel, **arguments) as again:
                assert not again.created
        with pytest.raises(mz.ExistsError, match="max_local"):
            mz.TransitAgent.attach(host.tunnel, max_local=1)
        maps.lifeline.delete(FIRST)
        with pytest.raises(mz.LockTimeoutError):
            mz.TransitAgent.attach(host.tunnel)
    with mz.TransitAgent.attach(host.tunnel) as again:
        assert not again.created
        assert again._datapath.findings() == []


def test_peers_are_not_compared_while_they_are_written(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a prefix that stays may be missing among those that were read."""
    peers = [*host.agent.peers]
    monkeypatch.setattr(lock, "TIMEOUT", 0.1)
    with locked(host.agent._datapath.host.cookie, *TABLE_WRITER), pytest.raises(mz.LockTimeoutError):
        mz.TransitAgent.attach(host.tunnel, peers=peers)


def test_deleting_goes_on_side_by_side_in_one_process(web: Container, db: Container) -> None:
    """Both wait for the kernel at the same time: the second is there before the first is let go."""
    from mizarnet._datapath.endpoints import removal

    both = threading.Barrier(2, timeout=30)
    really = removal.delete_links

    def meet(*arguments: object, **keywords: object) -> None:
        both.wait()
        really(*arguments, **keywords)  # type: ignore[arg-type]

    removal.delete_links = meet  # type: ignore[assignment]
    try:
        threads = [threading.Thread(target=each.endpoint.delete) for each in (web, db)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        removal.delete_links = really
    assert mz.Endpoint.list(web.host.agent, dead=True) == []


# -- the lock alone ----------------------------------------------------------------------------------------


def test_different_names_share_the_host_and_one_name_excludes() -> None:
    with locked(COOKIE, *endpoint_writer("a")):
        with locked(COOKIE, *endpoint_writer("b"), timeout=0):
            pass
        with locked(COOKIE, SHARED_HOST, timeout=0):
            pass
        for busy in ((HOST,), endpoint_writer("a"), (of_name("a"),)):
            with pytest.raises(mz.LockTimeoutError), locked(COOKIE, *busy, timeout=0):
                pass
    with locked(COOKIE, HOST, timeout=0):
        pass


def test_many_names_are_taken_in_one_order() -> None:
    names = [f"n{n}" for n in range(100)]
    assert of_names(names) == of_names(reversed(names + names))
    assert len({section.offset for section in of_names(names)}) == 100
