# SPDX-License-Identifier: Apache-2.0
"""A handle goes on with the agent that is there now, with all that hangs on it."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from typing import Any

import pytest

import mizarnet as mz
from tests.support.leaks import descriptors
from tests.support.process import in_child
from tests.support.traffic import assert_ping
from tests.support.wait import wait_until
from tests.world import TUNNEL, UNDERLAY, Container, Host, World, links

FAR = mz.Remote("192.0.2.77")


def attach_anew(host: Host, **options: Any) -> None:
    """Another agent on the same tunnel, of another process as far as the handle knows."""
    with mz.Tunnel.open(TUNNEL, netns=host.namespace.name) as tunnel:
        with mz.TransitAgent.open(tunnel) as other:
            other.detach(force=True)
        mz.TransitAgent.attach(tunnel, **options).close()


def create_anew(host: Host, **options: Any) -> None:
    """Another tunnel of the same name, with an agent."""
    netns = host.namespace.name
    with mz.Tunnel.open(TUNNEL, netns=netns) as tunnel:
        tunnel.delete(force=True)
    wanted = {"encap": host.tunnel.encap, "underlay": UNDERLAY, **options}
    with mz.Tunnel.create(TUNNEL, netns=netns, **wanted) as tunnel:
        mz.TransitAgent.attach(tunnel).close()


ENDS: dict[str, Callable[[Host], None]] = {"attached": attach_anew, "created": create_anew}
again = pytest.mark.parametrize("renew", ENDS.values(), ids=ENDS)


def test_a_handle_that_is_not_stale_stays_as_it_is(host: Host) -> None:
    agent, before = host.agent, (host.agent.tunnel, host.agent._datapath.maps, descriptors())
    agent.reopen()
    assert (agent.tunnel, agent._datapath.maps, descriptors()) == before
    assert agent.created


@again
def test_everything_that_hangs_on_the_handle_goes_on(world: World, renew: Callable[[Host], None]) -> None:
    host, agent = world.hosts[0], world.hosts[0].agent
    endpoints, networks, peers = agent.endpoints, agent.networks, agent.peers
    renew(host)
    with pytest.raises(mz.StaleHandleError):
        endpoints[7, "10.0.0.9"] = FAR
    agent.reopen()
    endpoints[7, "10.0.0.9"] = FAR
    networks[7, "10.0.0.0/24"] = mz.Network()
    peers.add("203.0.113.0/24")
    with mz.TransitAgent.open(TUNNEL, netns=host.namespace.name) as other:
        assert other.endpoints.snapshot() == endpoints.snapshot() == {(7, ip_address("10.0.0.9")): FAR}
        assert other.networks.snapshot() == networks.snapshot() != {}
        assert other.peers == peers
    near = world.container(host, 7, "10.0.0.1/24")
    far = world.container(world.hosts[1], 7, "10.0.0.2/24")
    assert_ping(near.namespace, far.ip)
    assert near.endpoint.stats().sent.packets
    assert agent.state().up


def test_what_is_known_of_the_agent_and_its_tunnel_is_read_again(host: Host) -> None:
    agent, netns, ifindex = host.agent, host.namespace.name, host.tunnel.ifindex
    host.namespace.run("ip", "address", "add", "192.0.2.101/24", "dev", UNDERLAY)
    with mz.Tunnel.open(TUNNEL, netns=netns) as tunnel:
        tunnel.delete(force=True)
    with mz.Tunnel.create(
        TUNNEL, netns=netns, encap="vxlan", underlay=UNDERLAY, local="192.0.2.101", port=4790, mtu=1400
    ) as tunnel:
        mz.TransitAgent.attach(tunnel, max_endpoints=77, hook="clsact").close()
    agent.reopen()
    found = agent.tunnel
    assert (found.port, found.mtu, str(found.local)) == (4790, 1400, "192.0.2.101")
    assert found.ifindex != ifindex
    assert found.state().mtu == 1400
    assert agent.capacity.max_endpoints == 77
    assert agent.hook is mz.Hook.CLSACT
    agent.endpoints[7, "10.0.0.9"] = mz.Remote(host.address)
    with pytest.raises(mz.InvalidValueError, match="is this host"):
        agent.endpoints[7, "10.0.0.9"] = mz.Remote("192.0.2.101")


@again
def test_an_endpoint_that_was_made_again_is_another_one(
    web: Container, renew: Callable[[Host], None]
) -> None:
    host, old = web.host, web.endpoint
    renew(host)
    host.agent.reopen()
    with pytest.raises(mz.EndpointNotFoundError):
        old.state()
    new = mz.Endpoint.create(host.agent, old.spec)
    with pytest.raises(mz.EndpointNotFoundError):
        old.stats()
    old.delete()  # leaves the other one alone
    assert new.state().up


def test_a_switchs_handle_goes_on(host: Host) -> None:
    switch = mz.TransitSwitch.attach(host.agent)
    attach_anew(host)
    host.agent.reopen()
    assert not switch.state().attached
    mz.TransitSwitch.attach(host.agent)
    assert switch.state().attached
    switch.detach()


@again
def test_the_old_descriptors_are_closed(host: Host, renew: Callable[[Host], None]) -> None:
    for _ in range(3):
        renew(host)
        gc.collect()
        before = len(descriptors())
        gc.disable()  # at once: no cycle of an error and its traceback refers to them
        try:
            host.agent.reopen()
            assert len(descriptors()) == before
        finally:
            gc.enable()


def test_a_descriptor_stays_taken_while_another_thread_reads_through_it(host: Host) -> None:
    maps = host.agent._datapath.maps
    numbers = {each.fileno() for each in maps.all()}
    attach_anew(host)
    host.agent.reopen()
    assert numbers.isdisjoint(each.fileno() for each in host.agent._datapath.maps.all())
    with pytest.raises(mz.BpfError):  # a call that had it in hand
        maps.read_meta()
    gc.collect()
    before = len(descriptors())
    del maps
    gc.collect()  # the error may refer to them
    assert len(descriptors()) == before - len(numbers)


def test_without_another_the_handle_stays_stale(host: Host) -> None:
    agent, before, netns = host.agent, host.agent.tunnel, host.namespace.name
    with mz.TransitAgent.open(host.tunnel) as other:
        other.detach()
    with pytest.raises(mz.AgentNotFoundError):
        agent.reopen()
    host.namespace.run("ip", "link", "del", TUNNEL)
    with pytest.raises(mz.TunnelNotFoundError):
        agent.reopen()
    with pytest.raises(mz.StaleHandleError):
        agent.stats()
    assert agent.tunnel is before
    with mz.Tunnel.create(TUNNEL, encap="vxlan", underlay=UNDERLAY, netns=netns) as tunnel:
        with pytest.raises(mz.AgentNotFoundError):
            agent.reopen()
        mz.TransitAgent.attach(tunnel).close()
    agent.reopen()
    assert agent.state().up


def test_what_another_attached_is_not_deleted_on_the_way_out(host: Host) -> None:
    host.agent.detach()
    with mz.Tunnel.open(TUNNEL, netns=host.namespace.name) as tunnel:
        with mz.deleting(mz.TransitAgent.attach(tunnel)) as agent:
            assert agent.created
            attach_anew(host)
            agent.reopen()
        host.agent.reopen()
        assert host.agent.state().up


def test_a_closed_handle_and_one_of_another_process_are_refused(host: Host) -> None:
    def check() -> None:
        with pytest.raises(mz.ForkedError):
            host.agent.reopen()

    attach_anew(host)
    in_child(check)
    with mz.TransitAgent.open(host.tunnel) as agent:
        pass
    with pytest.raises(mz.ClosedError):
        agent.reopen()


def test_other_threads_see_the_old_or_the_new(host: Host) -> None:
    """Whoever uses the handle meanwhile gets an answer, or an error of the tree; afterwards each gets an answer."""
    agent, over = host.agent, threading.Event()
    calls: list[Callable[[], object]] = [
        agent.stats,
        agent.state,
        agent.endpoints.snapshot,
        lambda: mz.Endpoint.list(agent),
        lambda: agent.endpoints.update({(7, "10.0.0.9"): FAR}),
        agent.reopen,
        agent.reopen,
    ]

    def go_on(call: Callable[[], object]) -> int:
        answered = 0
        while not over.is_set():
            try:
                call()
                answered += 1
            except mz.MizarnetError:
                pass
        return answered

    with ThreadPoolExecutor(len(calls)) as pool:
        counts = [pool.submit(go_on, call) for call in calls]
        try:
            for renew in [attach_anew, create_anew] * 3:
                renew(host)
                wait_until(lambda: not agent._is_stale(), "nobody opened it again")
        finally:
            over.set()
        assert all(count.result() for count in counts)
    for call in calls:
        call()
    assert links(host.namespace).count(TUNNEL) == 1
