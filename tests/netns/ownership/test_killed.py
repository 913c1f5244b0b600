# SPDX-License-Identifier: Apache-2.0
"""Whoever makes or deletes is killed in front of each call that changes anything: what is left is safe, and mended.

The figures at full depth are of every such call, and each way to go on from there; otherwise of a part that the seed
chooses.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import mizarnet as mz
from mizarnet._datapath.datapath import DataPath
from mizarnet._datapath.survey import survey
from mizarnet._datapath.tunnel_hooks import TunnelHooks
from mizarnet._kernel.bpf import XdpHook
from mizarnet._kernel.netlink import delete_unmounted, get_link, read_sysctl
from mizarnet._model.enumerations import State
from tests.netns.ownership.conftest import Scene
from tests.netns.ownership.test_taken_off import offered
from tests.support.agreement import disagreements
from tests.support.depth import FULL, SEED, some
from tests.support.injector import Injector
from tests.support.standing import data_paths
from tests.support.traffic import assert_ping
from tests.support.wait import wait_until
from tests.world import TUNNEL, UNDERLAY, device, links

Begin = Callable[[], None]
TENTH = 10


@pytest.fixture(scope="module")
def injector(tmp_path_factory: pytest.TempPathFactory) -> Injector:
    return Injector.build(tmp_path_factory.mktemp("injector"))


def private_names() -> list[Path]:
    """Names of namespaces that were made for endpoints.

    A deleter that dies between namespace and name leaves the file, which says whose it was: the next call that clears
    this host's leftovers removes it. A maker that dies before it wrote that leaves an empty one, which is nobody's.
    """
    return [*Path("/run/netns").glob("mizarnet-*")]


class Ground:
    """The first host of a scene, where everything is made and deleted by name."""

    def __init__(self, scene: Scene) -> None:
        """Begin with a tunnel alone."""
        self.scene = scene
        self.netns = scene.host.namespace.name
        self.host = scene.host.tunnel._host
        scene.agent.detach(force=True)

    # -- what is made

    def tunnel(self) -> mz.Tunnel:
        return mz.Tunnel.create(TUNNEL, encap="vxlan", underlay=UNDERLAY, netns=self.netns)

    def agent(self) -> mz.TransitAgent:
        with self.tunnel() as tunnel:
            return mz.TransitAgent.attach(tunnel)

    def web(self, agent: mz.TransitAgent) -> mz.Endpoint:
        web = self.scene.web
        return mz.Endpoint.create(
            agent, name="web", vni=7, ip="10.0.0.1/24", netns=web.namespace.name, mac=web.endpoint.mac
        )

    def everything(self) -> None:
        """Endpoints of both kinds, and a switch."""
        with self.agent() as agent:
            self.web(agent)
            mz.Endpoint.create(agent, name="vm", vni=7, ip="10.0.0.5/24", kind="macvtap")
            mz.TransitSwitch.attach(agent, mode="generic")

    # -- what is there

    def assert_safe(self, point: str) -> None:
        """Nothing on the hooks; or what was begun, on a tunnel that is down unless all of it stands."""
        link = get_link(self.host, TUNNEL)
        if link is None:
            return
        found = self.host.run(survey, link.ifindex)
        if found.any is None:
            assert not link.up, point
            return
        datapath = DataPath.find(TunnelHooks(self.host, TUNNEL, link.ifindex))
        assert datapath is not None
        state = datapath.maps.read_meta().state
        datapath.close()
        whole = [*found.standing] == offered()
        assert whole or not link.up, f"{point}: up with {[*map(str, found.standing)]}"
        assert whole or state is not State.LIVE, f"{point}: {state!r} with {[*map(str, found.standing)]}"

    def assert_works(self, agent: mz.TransitAgent, point: str) -> None:
        """All is attached, and packets go both ways."""
        state = agent.state()
        assert state.up, point
        assert all(state.attached.values()), point
        agent.endpoints[7, self.scene.db.ip] = mz.Remote(self.scene.db.host.address)
        self.web(agent)
        assert_ping(self.scene.web.namespace, self.scene.db.ip)

    def assert_clear(self, point: str) -> None:
        """Nothing of any tunnel is left on this host."""
        assert links(self.scene.host.namespace) == ["lo", UNDERLAY], point
        assert links(self.scene.web.namespace) == ["lo"], point
        self.assert_no_leftovers(point)
        wait_until(lambda: not self._programs(), f"{point}: programs live on")

    def assert_no_leftovers(self, point: str) -> None:
        """Nothing is left of what does not end with a tunnel."""
        assert self.xdp() == [], point
        assert self.forwarding() == "0", point
        left = [path.name for path in private_names() if os.path.ismount(path) or path.stat().st_size]
        assert left == [], point

    def xdp(self) -> list[int]:
        hook = XdpHook(device(self.scene.host.namespace, UNDERLAY).ifindex)
        return self.host.run(hook.query).program_ids

    def forwarding(self) -> str:
        return read_sysctl(self.host, f"ipv4/conf/{UNDERLAY}/forwarding")

    def _programs(self) -> list[int]:
        paths = data_paths().values()
        return [n for path in paths for n, each in path.items() if each.head.netns_cookie == self.host.cookie]

    # -- ways on

    def end_by_hand(self) -> None:
        if TUNNEL in links(self.scene.host.namespace):
            self.scene.host.namespace.run("ip", "link", "del", TUNNEL)

    def delete(self, *, force: bool = False) -> None:
        """By whoever comes next: with the tunnel, if it is there, or with what a new one finds."""
        with self.tunnel() as tunnel:
            tunnel.delete(force=force)


@pytest.fixture
def ground(scene: Scene) -> Iterator[Ground]:
    made = Ground(scene)
    yield made
    made.delete(force=True)
    for name in private_names():
        delete_unmounted(name.name)


Way = Callable[[Ground, str], None]


def sweep(
    ground: Ground,
    injector: Injector,
    verb: Callable[[Begin], object],
    before: Callable[[], object],
    ways: list[Way],
) -> None:
    """Kill the verb at each point, and go on each way; at less than full depth some points, and a way for each."""
    before()
    everything = injector.points(verb)
    ways[0](ground, "not killed")
    pairs = [(number, way) for number in range(len(everything)) for way in ways]
    chosen = pairs if FULL else _one_way_each(some(range(len(everything)), TENTH), ways)
    deaths = 0
    for number, way in chosen:
        before()
        last = injector.kill(verb, number + 1)
        deaths += last is not None
        point = f"point {number + 1}, {last}, then {way.__name__} (seed {SEED})"
        ground.assert_safe(point)
        way(ground, point)
    assert 2 * deaths >= len(chosen) - 1, "hardly anybody died"
    print(f"{len(chosen)} of {len(pairs)} deaths, {len(everything)} points")


def _one_way_each(points: list[int], ways: list[Way]) -> list[tuple[int, Way]]:
    return [(point, ways[(place + SEED) % len(ways)]) for place, point in enumerate(points)]


# -- attaching ---------------------------------------------------------------------------------------------


def complete_and_use(ground: Ground, point: str) -> None:
    with ground.agent() as agent:
        ground.assert_works(agent, point)
    ground.delete(force=True)
    ground.assert_clear(point)


def delete_it(ground: Ground, point: str) -> None:
    ground.delete()
    ground.assert_clear(point)


def delete_it_by_hand(ground: Ground, point: str) -> None:
    ground.end_by_hand()
    ground.delete()
    ground.assert_clear(point)


@pytest.mark.vm
def test_killed_while_attaching(ground: Ground, injector: Injector) -> None:
    def verb(begin: Begin) -> None:
        with mz.Tunnel.open(TUNNEL, netns=ground.netns) as tunnel:
            begin()
            mz.TransitAgent.attach(tunnel).close()

    ways: list[Way] = [complete_and_use, delete_it, delete_it_by_hand]
    with ground.scene.stream():
        sweep(ground, injector, verb, lambda: ground.tunnel().close(), ways)


# -- a switch ----------------------------------------------------------------------------------------------


def attach_the_switch(ground: Ground, point: str) -> None:
    with ground.agent() as agent:
        switch = mz.TransitSwitch.attach(agent)
        assert switch.state() == mz.SwitchState(attached=True, forwarding=True), point
        switch.detach()
    ground.assert_no_leftovers(point)


def detach_the_switch_by_name(ground: Ground, point: str) -> None:
    ground.end_by_hand()
    mz.TransitSwitch.detach(UNDERLAY, netns=ground.netns)
    ground.assert_no_leftovers(point)


@pytest.mark.parametrize("mode", ["native", "generic"])
def test_killed_while_attaching_a_switch(ground: Ground, injector: Injector, mode: str) -> None:
    def verb(begin: Begin) -> None:
        with mz.TransitAgent.open(TUNNEL, netns=ground.netns) as agent:
            begin()
            mz.TransitSwitch.attach(agent, mode=mode)  # type: ignore[arg-type]

    ways: list[Way] = [attach_the_switch, delete_it, detach_the_switch_by_name, delete_it_by_hand]
    sweep(ground, injector, verb, lambda: ground.agent().close(), ways)


def test_killed_while_detaching_a_switch(ground: Ground, injector: Injector) -> None:
    def before() -> None:
        with ground.agent() as agent:
            mz.TransitSwitch.attach(agent)

    def verb(begin: Begin) -> None:
        with mz.TransitAgent.open(TUNNEL, netns=ground.netns) as agent:
            switch = mz.TransitSwitch.open(agent)
            begin()
            switch.detach()

    ways: list[Way] = [attach_the_switch, delete_it, detach_the_switch_by_name, delete_it_by_hand]
    sweep(ground, injector, verb, before, ways)


# -- deleting everything -----------------------------------------------------------------------------------


def make_it_again(ground: Ground, point: str) -> None:
    with ground.agent() as agent:
        ground.assert_works(agent, point)
        agent.detach(force=True)
    ground.assert_no_leftovers(point)


def detach_by_name(ground: Ground, point: str) -> None:
    ground.tunnel().close()
    mz.TransitAgent.detach(TUNNEL, netns=ground.netns, force=True)
    with ground.tunnel() as tunnel, pytest.raises(mz.AgentNotFoundError):
        mz.TransitAgent.open(tunnel)
    ground.assert_no_leftovers(point)
    ground.delete()
    ground.assert_clear(point)


def delete_the_rest(ground: Ground, point: str) -> None:
    ground.delete(force=True)
    ground.assert_clear(point)


@pytest.mark.parametrize("verb_name", ["Tunnel.delete", "TransitAgent.detach"])
def test_killed_while_deleting_everything(ground: Ground, injector: Injector, verb_name: str) -> None:
    """A container's endpoint, a VM's with the namespace that was made for it, a switch, agent and tunnel."""

    def verb(begin: Begin) -> None:
        with mz.TransitAgent.open(TUNNEL, netns=ground.netns) as agent:
            begin()
            agent.tunnel.delete(force=True) if verb_name == "Tunnel.delete" else agent.detach(force=True)

    ways: list[Way] = [make_it_again, detach_by_name, delete_the_rest, delete_it_by_hand]
    sweep(ground, injector, verb, ground.everything, ways)


# -- an endpoint -------------------------------------------------------------------------------------------


def make(ground: Ground, agent: mz.TransitAgent, kind: str) -> mz.Endpoint:
    if kind == "macvlan":
        return ground.web(agent)
    return mz.Endpoint.create(agent, name="web", vni=7, ip="10.0.0.1/24", kind="macvtap")


def assert_agreed(ground: Ground, agent: mz.TransitAgent, point: str) -> None:
    names = [
        ground.scene.web.namespace.name,
        *(path.name for path in private_names() if os.path.ismount(path)),
    ]
    assert disagreements(agent, names) == [], point


def make_the_endpoint(kind: str) -> Way:
    def make_it(ground: Ground, point: str) -> None:
        with ground.agent() as agent:
            endpoint = make(ground, agent, kind)
            assert_agreed(ground, agent, point)
            if kind == "macvlan":
                ground.assert_works(agent, point)
            endpoint.delete()
            assert_agreed(ground, agent, point)

    return make_it


def delete_the_endpoint(ground: Ground, point: str) -> None:
    with ground.agent() as agent:
        mz.Endpoint.delete_many(agent, ["web"])
        assert mz.Endpoint.list(agent) == [], point
        assert_agreed(ground, agent, point)
    assert links(ground.scene.web.namespace) == ["lo"], point
    ground.assert_no_leftovers(point)


@pytest.mark.parametrize("kind", ["macvlan", "macvtap"])
@pytest.mark.parametrize("doing", ["create", "delete"])
def test_killed_with_an_endpoint(ground: Ground, injector: Injector, kind: str, doing: str) -> None:
    """The record comes first and goes last: it finds what else there is."""

    def before() -> None:
        with ground.agent() as agent:
            if doing == "delete":
                make(ground, agent, kind)

    def verb(begin: Begin) -> None:
        with mz.TransitAgent.open(TUNNEL, netns=ground.netns) as agent:
            begin()
            make(ground, agent, kind) if doing == "create" else mz.Endpoint.open(agent, "web").delete()

    ways = [make_the_endpoint(kind), delete_the_endpoint, delete_the_rest]
    sweep(ground, injector, verb, before, ways)
