# SPDX-License-Identifier: Apache-2.0
"""One agent, several processes and threads, some of which are killed."""

from __future__ import annotations

import asyncio
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

import mizarnet as mz
from tests.support.namespace import Namespace
from tests.support.process import finish, in_child, run_python, start_python
from tests.support.traffic import assert_ping
from tests.world import TUNNEL, Host, World, links


def test_after_a_fork_a_handle_refuses(host: Host) -> None:
    def check() -> None:
        for call in (
            host.agent.stats,
            lambda: len(host.agent.endpoints),
            host.agent.detach,
            host.tunnel.state,
        ):
            with pytest.raises(mz.ForkedError):
                call()

    in_child(check)
    assert host.agent.state().up


def test_another_process_finds_it(host: Host) -> None:
    mz.Endpoint.create(host.agent, vni=7, ip="10.0.0.1/24", name="web", ifname="web0")
    output = run_python(
        """
        with mz.TransitAgent.open("tunnel0", netns=sys.argv[1]) as agent:
            print(mz.Endpoint.open(agent, "web").ip, [each.name for each in mz.Endpoint.list(agent)])
            agent.endpoints[7, "10.0.0.9"] = mz.Remote("192.0.2.2")
        """,
        host.namespace.name,
    )
    assert output == "10.0.0.1 ['web']\n"
    assert host.agent.endpoints[7, "10.0.0.9"] == mz.Remote("192.0.2.2")


def test_what_a_killed_process_made_stays_and_works() -> None:
    with World("vxlan") as world:
        first, second = world.hosts
        container = world.container(second, 7, "10.0.0.2/24")
        inside = world.namespace("web")
        first.tunnel.delete(force=True)
        process = start_python(
            """
            tunnel = mz.Tunnel.create("tunnel0", encap="vxlan", underlay="eth0", netns=sys.argv[1])
            agent = mz.TransitAgent.attach(tunnel)
            agent.endpoints[7, "10.0.0.2"] = mz.Remote("192.0.2.2")
            mz.Endpoint.create(agent, vni=7, ip="10.0.0.1/24", netns=sys.argv[2], name="web")
            os.kill(os.getpid(), signal.SIGKILL)
            """,
            first.namespace.name,
            inside.name,
        )
        assert finish(process)[0] == -signal.SIGKILL
        second.agent.endpoints[7, "10.0.0.1"] = mz.Remote(first.address)
        assert_ping(inside, container.ip)
        with mz.Tunnel.open(TUNNEL, netns=first.namespace.name) as tunnel:
            with mz.TransitAgent.attach(tunnel) as agent:
                assert not agent.created
                mz.Endpoint.open(agent, "web").delete()
            tunnel.delete()


def test_a_process_killed_while_attaching_is_no_obstacle(host: Host) -> None:
    host.agent.detach()
    process = start_python(
        """
        from mizarnet._datapath.tunnel_device import TunnelDevice
        TunnelDevice.bring_up = lambda tunnel: os.kill(os.getpid(), signal.SIGKILL)
        with mz.Tunnel.open("tunnel0", netns=sys.argv[1]) as tunnel:
            mz.TransitAgent.attach(tunnel)
        """,
        host.namespace.name,
    )
    assert finish(process)[0] == -signal.SIGKILL
    with pytest.raises(mz.AgentNotFoundError):
        mz.TransitAgent.open(host.tunnel)
    with mz.TransitAgent.attach(host.tunnel) as agent:
        assert agent.created
        assert agent.state().up


def test_several_threads_write_at_once(host: Host) -> None:
    def write(thread: int) -> None:
        for n in range(20):
            host.agent.endpoints[7, f"10.{thread}.0.{n}"] = mz.Remote("192.0.2.2")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    assert len(host.agent.endpoints) == 160


def test_calls_work_inside_a_running_event_loop() -> None:
    async def work() -> mz.MacvlanMode:
        with World("vxlan", hosts=1) as world:
            return world.container(world.hosts[0], 7, "10.0.0.1/24").endpoint.state().mode

    assert asyncio.run(work()) is mz.MacvlanMode.PRIVATE


def test_a_call_is_made_where_the_calling_thread_is_by_then(bare: Namespace) -> None:
    """Its namespaces are those of the main thread, which may have entered another one since the last call."""
    output = run_python(
        """
        import ctypes
        try:
            mz.Tunnel.create("t0", encap="vxlan", underlay="eth0")
        except mz.UnderlayNotFoundError:
            pass
        with open("/run/netns/" + sys.argv[1]) as netns:
            assert ctypes.CDLL(None).setns(netns.fileno(), 0) == 0
        print(mz.Tunnel.create("t0", encap="vxlan", underlay="eth0").created)
        """,
        bare.name,
        by=("unshare", "--net"),
    )
    assert output == "True\n"
    assert "t0" in links(bare)
