# SPDX-License-Identifier: Apache-2.0
"""Attachments that somebody takes away: what stands guards on, and the next changing verb puts all back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import combinations

import pytest

import mizarnet as mz
from mizarnet._datapath import hooks, loader
from mizarnet._datapath.hooks import GUARD, HANDLE, PLACES, PRIORITY, Place
from mizarnet._kernel import bpf
from mizarnet._kernel.netlink import read_sysctl
from mizarnet._model import layouts
from mizarnet._model.specs import Hook
from tests.netns.ownership.conftest import Scene
from tests.support.depth import FULL
from tests.support.standing import attached_on
from tests.support.traffic import assert_ping
from tests.world import TUNNEL, UNDERLAY, Host, device, links

SUBSETS = ["+".join(subset) for count in (1, 2, 3) for subset in combinations(map(str, PLACES), count)]


def _spare(scene: Scene) -> mz.Endpoint:
    return mz.Endpoint.create(scene.agent, vni=7, ip="10.0.0.66/24", name="spare", ifname="spare0")


CHANGES: dict[str, Callable[[Scene], object]] = {
    "attach": lambda scene: mz.TransitAgent.attach(scene.host.tunnel).close(),
    "create": _spare,
    "delete": lambda scene: scene.web.endpoint.delete(),
    "delete many": lambda scene: mz.Endpoint.delete_many(scene.agent, ["nobody"]),
    "an entry": lambda scene: scene.agent.endpoints.update({(7, "10.0.0.2"): mz.Remote("192.0.2.2")}),
    "sync": lambda scene: scene.agent.endpoints.sync({(7, "10.0.0.2"): mz.Remote("192.0.2.2")}),
    "a network": lambda scene: scene.agent.networks.update({(7, "10.9.0.0/24"): mz.Network()}),
    "a peer": lambda scene: scene.agent.peers.add("203.0.113.0/24"),
    "switch": lambda scene: mz.TransitSwitch.attach(scene.agent).detach(),
}
LOOKS: list[Callable[[Scene], object]] = [
    lambda scene: mz.TransitAgent.open(scene.host.tunnel).close(),
    lambda scene: mz.Tunnel.open(TUNNEL, netns=scene.host.namespace.name).close(),
    lambda scene: mz.Endpoint.list(scene.agent),
    lambda scene: mz.Endpoint.open(scene.agent, "web").state(),
    lambda scene: scene.agent.stats(),
    lambda scene: scene.agent.endpoints.snapshot(),
    lambda scene: scene.agent.networks.snapshot(),
    lambda scene: set(scene.agent.peers),
]
CASES = [
    pytest.param(subset, change, marks=[pytest.mark.vm] if "+" not in subset else [])
    for number, subset in enumerate(SUBSETS)
    for change in (CHANGES if FULL else [[*CHANGES][number % len(CHANGES)]])
]


def offered() -> list[Place]:
    """The places on this kernel: before 6.6 there is one layer."""
    return hooks.wanted_places(hooks.choose_layers(None))


def take(host: Host, places: Iterable[Place]) -> None:
    """Take programs off as any tool might that does not know them."""
    there = host.agent.state().programs
    for place in places:
        program = bpf.Program.open_id(there[str(place)])
        assert program is not None
        with program:
            host.tunnel._host.run(hooks.detach, place, program, host.tunnel.ifindex)


def guards(places: Iterable[Place]) -> bool:
    return any(place.program == GUARD for place in places)


def generation(scene: Scene) -> int:
    return scene.agent._datapath.maps.read_meta().generation


@pytest.fixture
def whole(shared_scene: Scene) -> Iterator[Scene]:
    """A scene with everything on its place, before and after."""
    scene = shared_scene
    yield scene
    mz.TransitAgent.attach(scene.host.tunnel).close()
    mz.Endpoint.delete_many(scene.agent, ["spare"])
    mz.Endpoint.create(
        scene.agent,
        name="web",
        vni=7,
        ip="10.0.0.1/24",
        netns=scene.web.namespace.name,
        mac=scene.web.endpoint.mac,
    )


@pytest.mark.parametrize(("subset", "change"), CASES)
def test_what_is_left_guards_and_the_next_change_puts_all_back(
    whole: Scene, subset: str, change: str
) -> None:
    taken = [place for place in offered() if str(place) in subset.split("+")]
    left = [place for place in offered() if place not in taken]
    if not taken or not left:
        return  # before 6.6 there is one layer: what is said here of two is said of it elsewhere
    scene, before = whole, whole.agent.endpoints.snapshot()
    ids, replaced = scene.agent.state().programs, generation(scene)
    with scene.stream() as packets:
        packets.await_honest()
        take(scene.host, taken)
        _assert_left(scene, left)
        if guards(left):
            packets.await_honest()
            packets.assert_guarded()
        else:
            packets.await_foreign()
        for look in LOOKS:
            look(scene)
        _assert_left(scene, left)
        assert scene.agent.endpoints.snapshot() == before
        if {place.program for place in left} == {*loader.PROGRAMS[:2]}:
            assert_ping(scene.web.namespace, scene.db.ip)
        CHANGES[change](scene)
        packets.forget()
        _assert_left(scene, offered())
        packets.assert_guarded() if change == "delete" else packets.await_honest()
    anew = {place.program for place in taken} - {place.program for place in left}
    # The switch is attached for a moment: from the second time on it takes the place of another.
    assert generation(scene) - replaced in {len(anew), len(anew) + (change == "switch")}
    assert scene.agent.state().ahead == ()
    kept = {str(place): ids[str(place)] for place in offered() if place.program not in anew}
    assert kept.items() <= scene.agent.state().programs.items()
    if change != "delete":
        assert_ping(scene.web.namespace, scene.db.ip)


def _assert_left(scene: Scene, left: Iterable[Place]) -> None:
    standing = {str(place) for place in left}
    assert scene.agent.state().attached == {str(place): str(place) in standing for place in offered()}
    assert set(attached_on(scene.host)) == standing


def test_a_clsact_that_somebody_deletes_comes_back(whole: Scene) -> None:
    """With it go all filters at once; before kernel 6.6 those are all there is."""
    scene = whole
    if not mz.probe().tcx:
        return  # then nothing is left, as below
    with scene.stream() as packets:
        scene.host.namespace.run("tc", "qdisc", "del", "dev", TUNNEL, "clsact")
        _assert_left(scene, [place for place in offered() if place.layer is Hook.TCX])
        packets.await_honest()
        scene.agent.endpoints[7, "10.0.0.2"] = mz.Remote("192.0.2.2")
        _assert_left(scene, offered())
        take(scene.host, [place for place in offered() if place.layer is Hook.TCX])
        packets.await_honest()
    assert_ping(scene.web.namespace, scene.db.ip)


# -- nothing left, and places that are taken ---------------------------------------------------------------

WRITES: list[Callable[[Scene], object]] = [
    _spare,
    lambda scene: scene.agent.endpoints.update({(7, "10.0.0.9"): mz.Remote("192.0.2.2")}),
    lambda scene: scene.agent.peers.add("203.0.113.0/24"),
    lambda scene: mz.TransitSwitch.attach(scene.agent),
]


@pytest.mark.vm
def test_with_nothing_left_there_is_no_agent(scene: Scene) -> None:
    take(scene.host, offered())
    inside = links(scene.host.namespace)
    for call in (*WRITES, lambda each: each.agent.state()):
        with pytest.raises(mz.AgentNotFoundError, match="tcx, clsact") as caught:
            call(scene)
        assert "create it again" in caught.value.hint
    with pytest.raises(mz.AgentNotFoundError):
        mz.TransitAgent.open(scene.host.tunnel)
    assert links(scene.host.namespace) == inside
    assert attached_on(scene.host) == []


@pytest.mark.vm
def test_with_nothing_left_a_detach_takes_the_switch_off(scene: Scene) -> None:
    """It would go on by tables that nobody finds any more, on a device that forwards."""
    host = scene.host
    mz.TransitSwitch.attach(scene.agent, mode="generic")
    take(host, offered())
    scene.agent.detach(force=True)
    assert not host.tunnel.state().up
    nic = device(host.namespace, UNDERLAY)
    assert nic.xdp_ids == ()
    assert read_sysctl(host.tunnel._host, f"ipv4/conf/{UNDERLAY}/forwarding") == "0"


def test_what_was_taken_off_to_the_last_is_not_put_back(scene: Scene) -> None:
    """Whoever saw a part of it standing may come too late: it was detached meanwhile, or replaced."""
    host, maps = scene.host, scene.agent._datapath.maps
    layers = maps.read_meta().layers
    take(host, offered())
    with pytest.raises(mz.StaleHandleError, match="detached meanwhile"):
        host.tunnel._device.hooks.put_back(maps, layers)
    assert attached_on(host) == []
    with mz.TransitAgent.attach(host.tunnel) as heir:
        with pytest.raises(mz.StaleHandleError, match="detached meanwhile"):
            host.tunnel._device.hooks.put_back(maps, layers)
        assert all(heir.state().attached.values())


def test_programs_of_two_agents_are_taken_off_each_by_its_own(scene: Scene) -> None:
    """One took a place of the other's: neither can go on, and each may take its own away."""
    host = scene.host
    if not mz.probe().tcx:
        return  # there is one layer, and so one place for each program
    here, there = scene.agent, scene.db.host
    lower = [place for place in offered() if place.layer is Hook.CLSACT and place.program == GUARD]
    take(host, lower)
    foreign = bpf.Program.open_id(there.agent.state().programs[str(lower[0])])
    assert foreign is not None
    session, ifindex, meta = host.tunnel._host, host.tunnel.ifindex, here._datapath.meta_id
    with foreign:
        found = session.run(hooks.read_hooks, ifindex)
        session.run(hooks.attach, lower[0], foreign, found)
        with pytest.raises(mz.ExistsError, match="two transit agents"):
            here.state()
        host.tunnel._device.hooks.take_off(meta)
        assert attached_on(host) == [str(lower[0])]
        host.tunnel._device.hooks.take_off(there.agent._datapath.meta_id)
    assert attached_on(host) == []


@contextmanager
def strangers_filter(host: Host, direction: bpf.Direction) -> Iterator[bpf.Program]:
    """A filter of somebody else at the very place of ours."""
    capacity = mz.Capacity(max_endpoints=1, max_local=1)
    place = bpf.ClsactPlace(
        ifindex=host.tunnel.ifindex, direction=direction, priority=PRIORITY, handle=HANDLE
    )
    with loader.load(bytes(layouts.CONFIG.size), capacity) as loaded:
        program = loaded.programs[GUARD]
        host.tunnel._host.run(place.attach, program)
        yield program
        host.tunnel._host.run(place.detach, program)


@pytest.mark.vm
@pytest.mark.parametrize("direction", bpf.Direction)
def test_a_filter_of_somebody_else_at_our_place_is_named(scene: Scene, direction: bpf.Direction) -> None:
    behind = [place for place in offered() if place.layer is Hook.CLSACT and place.direction is direction]
    take(scene.host, behind)
    inside = links(scene.host.namespace)
    with strangers_filter(scene.host, direction) as program:
        for write in WRITES:
            with pytest.raises(mz.ExistsError, match=str(program.id)) as caught:
                write(scene)
            assert str(program.id) in caught.value.holder
        assert links(scene.host.namespace) == inside
        assert len(scene.agent.endpoints.snapshot()) == 2
    assert_ping(scene.db.namespace, scene.db.ip)
    mz.TransitAgent.attach(scene.host.tunnel).close()
    assert all(scene.agent.state().attached.values())
    assert_ping(scene.web.namespace, scene.db.ip)
