# SPDX-License-Identifier: Apache-2.0
"""The transit agent: attached, adopted, detached, by one process or several."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import attrs
import pytest

import mizarnet as mz
from mizarnet._datapath import loader
from mizarnet._datapath.lock import locked
from mizarnet._model.codec import FIRST
from mizarnet._model.enumerations import State
from mizarnet._model.finding import FindingKind
from tests.support.standing import attached_on
from tests.support.tables import contents
from tests.support.traffic import assert_ping
from tests.support.wait import wait_until
from tests.world import TUNNEL, Host, World, alive


def test_attaching_brings_the_tunnel_up(host: Host) -> None:
    state = host.agent.state()
    assert host.agent.created
    assert state.up
    assert set(state.programs) == set(state.attached) == set(attached_on(host))
    assert all(state.attached.values())
    assert state.ahead == ()
    assert state.memory > 0
    assert min(state.verified.values()) > 0
    assert host.tunnel.state().qdisc == "noqueue"


def test_the_device_that_has_the_port_is_named() -> None:
    """A plain VXLAN that is up; a metadata-mode device of that port is refused earlier."""
    with World("vxlan", hosts=1) as world:
        host = world.hosts[0]
        host.agent.detach()
        for command in ("add name plain type vxlan id 7 dstport 4789", "set plain up"):
            host.namespace.run("ip", "link", *command.split())
        with pytest.raises(mz.ExistsError, match="vxlan device plain uses UDP port 4789") as caught:
            mz.TransitAgent.attach(host.tunnel)
        assert caught.value.holder == "plain"
        assert attached_on(host) == []
        host.namespace.run("ip", "link", "set", "plain", "down")
        with mz.TransitAgent.attach(host.tunnel) as agent:
            assert agent.state().up


def test_without_its_tunnel_there_is_no_agent(host: Host) -> None:
    """Programs and tables are the device's, and go with it."""
    host.namespace.run("ip", "link", "del", TUNNEL)
    for call in (host.agent.state, host.agent.stats, host.agent.endpoints.snapshot):
        with pytest.raises(mz.StaleHandleError, match="tunnel0 is gone"):
            call()
    host.agent.detach()


def test_attaching_again_adopts(host: Host) -> None:
    given = {"peers": [*host.agent.peers], **attrs.asdict(host.agent.capacity)}
    for arguments in ({}, given):
        with mz.TransitAgent.attach(host.tunnel, **arguments) as again:
            assert not again.created
            assert again.state().programs == host.agent.state().programs
            assert again.capacity == host.agent.capacity
            assert set(again.peers) == set(host.agent.peers)


@pytest.mark.parametrize(
    ("argument", "value"), [("peers", ()), ("peers", ("192.0.2.7",)), ("max_endpoints", 7), ("max_local", 1)]
)
def test_a_given_argument_that_differs_is_named(host: Host, argument: str, value: object) -> None:
    before = contents(host.agent), set(host.agent.peers)
    with pytest.raises(mz.ExistsError, match=f"tunnel0 exists, but {argument} is") as refused:
        mz.TransitAgent.attach(host.tunnel, **{argument: value})
    assert [*refused.value.differences] == [argument]
    assert (contents(host.agent), set(host.agent.peers)) == before


def test_another_hook_than_the_deciding_one_is_named(host: Host) -> None:
    other = mz.Hook.CLSACT if host.agent.hook is mz.Hook.TCX else mz.Hook.TCX
    with pytest.raises((mz.ExistsError, mz.UnsupportedError), match=f"hook is tcx, not {other.value}|tcx"):
        mz.TransitAgent.attach(host.tunnel, hook=other)
    with mz.TransitAgent.attach(host.tunnel, hook=host.agent.hook) as again:
        assert not again.created
    assert all(host.agent.state().attached.values())


def test_open_says_all_that_is_wrong_and_attach_mends_it(host: Host) -> None:
    maps = host.agent._datapath.maps
    maps.meta.update(FIRST, attrs.evolve(maps.read_meta(), state=State.MAKING).pack())
    maps.lifeline.delete(FIRST)
    with pytest.raises(
        mz.AgentNotFoundError, match=r"is being attached.*; its lifeline is empty.*completes it"
    ):
        mz.TransitAgent.open(host.tunnel)
    kinds = {finding.kind for finding in host.agent._datapath.findings()}
    assert kinds == {FindingKind.UNFINISHED, FindingKind.LIFELINE_MISSING}
    with mz.TransitAgent.attach(host.tunnel) as again:
        assert again.created
        assert again._datapath.findings() == []


def test_an_agent_whose_end_has_begun_is_made_anew(host: Host) -> None:
    maps, before = host.agent._datapath.maps, host.agent._datapath.meta_id
    maps.meta.update(FIRST, attrs.evolve(maps.read_meta(), state=State.DELETING).pack())
    with pytest.raises(mz.AgentNotFoundError, match=r"is being detached.*removes what is left"):
        mz.TransitAgent.open(host.tunnel)
    with mz.TransitAgent.attach(host.tunnel) as again:
        assert again.created
        assert again._datapath.meta_id != before


def test_a_write_mends_the_lifeline(host: Host) -> None:
    host.agent._datapath.maps.lifeline.delete(FIRST)
    host.agent.endpoints[7, "10.0.0.9"] = mz.Remote("192.0.2.99")
    assert host.agent._datapath.findings() == []


def test_no_write_needs_the_packages_object(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is gone for a moment while another version is being installed."""
    monkeypatch.setattr(loader, "object_path", lambda: Path("/nowhere"))
    host.agent.endpoints[7, "10.0.0.9"] = mz.Remote("192.0.2.99")
    with pytest.raises(mz.NotFoundError, match="being installed"):
        _ = host.agent.outdated


def test_an_agent_that_is_not_there(host: Host) -> None:
    host.agent.detach()
    with pytest.raises(mz.AgentNotFoundError):
        mz.TransitAgent.open(host.tunnel)
    with pytest.raises(mz.TunnelNotFoundError):
        mz.TransitAgent.open("tunnel9", netns=host.namespace.name)


def test_the_peers_are_the_underlays_on_link_prefixes_unless_given(host: Host) -> None:
    assert {str(peer) for peer in host.agent.peers} == {"192.0.2.0/24"}
    host.agent.detach()
    with mz.TransitAgent.attach(host.tunnel, peers=["198.51.100.0/24", "203.0.113.7/32"]) as agent:
        assert {str(peer) for peer in agent.peers} == {"198.51.100.0/24", "203.0.113.7/32"}


@pytest.mark.parametrize(
    ("error", "options"),
    [
        (mz.InvalidValueError, {"max_local": 0}),
        (mz.InvalidValueError, {"max_endpoints": 0}),
        (mz.InvalidValueError, {"max_endpoints": 1 << 40}),
        (mz.InvalidTypeError, {"max_local": 4.0}),
        (mz.InvalidTypeError, {"max_local": True}),
        (mz.InvalidValueError, {"hook": "xdp"}),
        (mz.InvalidTypeError, {"hook": None}),
        (mz.InvalidTypeError, {"peers": "192.0.2.0/24"}),
        (mz.InvalidTypeError, {"peers": [5]}),
        (mz.InvalidValueError, {"peers": ["192.0.2.1/24"]}),
        (mz.CapacityError, {"peers": [f"10.{n >> 8}.{n & 255}.0/24" for n in range(4097)]}),
    ],
)
def test_bad_arguments_attach_nothing(host: Host, error: type[Exception], options: dict[str, Any]) -> None:
    host.agent.detach()
    with pytest.raises(error):
        mz.TransitAgent.attach(host.tunnel, **options)
    assert attached_on(host) == []
    assert not host.tunnel.state().up


def test_detaching_takes_the_tunnel_down_and_frees_everything(host: Host) -> None:
    programs = set(host.agent.state().programs.values())
    host.agent.detach()
    assert not host.tunnel.state().up
    assert attached_on(host) == []
    host.agent.close()
    wait_until(lambda: not alive(programs))


def test_detaching_twice_is_no_error(host: Host) -> None:
    host.agent.detach()
    host.agent.detach()


def test_it_stays_while_endpoints_use_it() -> None:
    with World("vxlan", hosts=1) as world:
        host = world.hosts[0]
        container = world.container(host, 7, "10.0.0.1/24", name="web")
        with pytest.raises(mz.InUseError) as caught:
            host.agent.detach()
        assert caught.value.users == ("web",)
        assert_ping(host.namespace, host.address)
        host.agent.detach(force=True)
        assert '"eth0"' not in container.namespace.run("ip", "-j", "link")


def test_a_detached_agents_handle_writes_nowhere(host: Host) -> None:
    with mz.TransitAgent.open(host.tunnel) as other:
        other.detach()
    mz.TransitAgent.attach(host.tunnel).close()
    calls: list[Callable[[], object]] = [
        host.agent.stats,
        host.agent.state,
        host.agent.endpoints.snapshot,
        lambda: host.agent.endpoints.update({(7, "10.0.0.1"): mz.Remote("192.0.2.2")}),
        lambda: host.agent.peers.add("203.0.113.0/24"),
        lambda: mz.Endpoint.create(host.agent, vni=7, ip="10.0.0.1/24"),
        lambda: mz.Endpoint.list(host.agent),
    ]
    for call in calls:
        with pytest.raises(mz.StaleHandleError):
            call()
    host.agent.detach()
    with mz.TransitAgent.open(host.tunnel) as now:
        assert now.state().up
        assert len(now.endpoints) == 0


def test_a_closed_handle_says_so(host: Host) -> None:
    host.agent.close()
    host.agent.close()
    calls: list[Callable[[], object]] = [
        host.agent.stats,
        host.agent.detach,
        lambda: len(host.agent.endpoints),
        lambda: host.agent.peers.add("203.0.113.0/24"),
        lambda: mz.Endpoint.create(host.agent, vni=7, ip="10.0.0.1/24"),
    ]
    for call in calls:
        with pytest.raises(mz.ClosedError):
            call()
    assert "closed" in repr(host.agent)
    assert "<table" in host.agent._repr_html_()


def test_a_port_taken_by_a_socket_is_named_and_nothing_stays(host: Host) -> None:
    host.agent.detach()
    with host.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("0.0.0.0", host.tunnel.port))
        with pytest.raises(mz.ExistsError, match="4789"):
            mz.TransitAgent.attach(host.tunnel)
    assert attached_on(host) == []


@pytest.mark.vm
@pytest.mark.parametrize("hook", ["tcx", "clsact"])
def test_each_hook_carries_traffic_or_says_why_not(hook: str) -> None:
    if hook == "tcx" and not mz.probe().tcx:
        with pytest.raises(mz.UnsupportedError), World("vxlan", hook=hook):
            raise AssertionError("attached")
        return
    with World("vxlan", hook=hook) as world:
        one = world.container(world.hosts[0], 7, "10.0.0.1/24")
        other = world.container(world.hosts[1], 7, "10.0.0.2/24")
        assert_ping(one.namespace, other.ip)
        assert world.hosts[0].agent.hook is mz.Hook(hook)
        with mz.TransitAgent.open(world.hosts[0].tunnel) as adopted:
            assert adopted.hook is mz.Hook(hook)


def test_a_lock_held_for_too_long_is_a_timeout(host: Host) -> None:
    cookie = host.agent._datapath.host.cookie
    with locked(cookie), pytest.raises(mz.LockTimeoutError) as caught, locked(cookie, timeout=0.05):
        raise AssertionError("locked twice")
    assert (caught.value.timeout, caught.value.pid) == (0.05, os.getpid())


def test_names_of_arguments_are_not_positions(host: Host) -> None:
    with pytest.raises(TypeError):
        cast("Any", mz.TransitAgent.attach)(host.tunnel, [])


def test_two_hosts_share_nothing(world: World) -> None:
    one, other = (host.agent._datapath.meta_id for host in world.hosts)
    assert one != other
    world.hosts[0].agent.detach()
    assert world.hosts[1].agent.state().up
