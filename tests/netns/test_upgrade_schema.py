# SPDX-License-Identifier: Apache-2.0
"""Tables of an older schema are moved to this package's under traffic, and nobody notices."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs
import pytest

import mizarnet as mz
from mizarnet import Verdict
from mizarnet._datapath import datapath, hooks, lock, migration
from mizarnet._datapath.datapath import DataPath
from mizarnet._datapath.maps import Maps
from mizarnet._datapath.older import Older
from mizarnet._kernel.bpf import has_tcx
from mizarnet._model.codec import FIRST
from mizarnet._model.enumerations import Limit, State
from mizarnet._model.layout import Layout
from mizarnet._model.layouts import LAYOUTS
from mizarnet.tunnel import device_of
from tests.frames import datagram
from tests.support.depth import FULL, some
from tests.support.flow import Probe
from tests.support.namespace import Namespace
from tests.support.process import finish, start_python
from tests.support.schemas import SMALLER, compile_older, newer_package, older, start_newer
from tests.support.standing import program_ids
from tests.support.tables import contents
from tests.support.traffic import assert_ping, send_frame
from tests.world import BLUE, TUNNEL, UNDERLAY, Container, Host, World, cable, new_namespace

MANY = 10_000
FAR = mz.Remote("192.0.2.2")
NETWORKS = {
    (BLUE, f"10.{n}.0.0/16"): mz.Network(gateway=f"10.{n}.0.1", switches=["192.0.2.2"]) for n in (8, 9)
}


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The object of the older package."""
    return compile_older(tmp_path_factory.mktemp("older"))


@pytest.fixture
def made(before: Path) -> Iterator[tuple[World, Container, Container, Container]]:
    """Two hosts whose agents an older package attached, two endpoints on the first of them, and one on the second.

    The handles are that package's.
    """
    with ExitStack() as stack:
        with older(before):
            world = stack.enter_context(World("vxlan"))
            first, other = world.hosts
            one, near = (world.container(first, BLUE, f"10.0.0.{n}/24", labels={"n": str(n)}) for n in (1, 2))
            far = world.container(other, BLUE, "10.0.0.3/24")
            first.agent.networks.update(NETWORKS)
            first.agent.peers.add("198.51.100.0/24")
            try_everything(one, near, far)
        yield world, one, near, far
        for host in world.hosts:  # the world's own checks read with this package
            with warnings.catch_warnings(action="ignore"), mz.TransitAgent.open(host.tunnel) as agent:
                agent.upgrade()
            host.agent.reopen()


def try_everything(one: Container, near: Container, far: Container) -> None:
    """Local and remote, both ways."""
    for source, to in ((one, near), (near, one), (one, far), (far, one)):
        assert_ping(source.namespace, to.ip)


def upgrade(host: Host) -> None:
    """Through a handle of this package, which says that it is needed."""
    with pytest.warns(mz.OutdatedWarning, match="another build"):
        agent = mz.TransitAgent.open(host.tunnel)
    with agent:
        agent.upgrade()
        assert not agent.outdated


def test_tables_move_and_nothing_else_changes(
    made: tuple[World, Container, Container, Container],
) -> None:
    world, one, near, far = made
    host = world.hosts[0]
    frame = datagram(one.mac, one.ip, "10.0.0.99", destination_mac=one.mac)
    send_frame(one.namespace, one.endpoint.ifname, frame)
    entries, counted, sizes = contents(host.agent), host.agent.stats(), host.agent.capacity
    sent = one.endpoint.stats()
    upgrade(host)
    with pytest.raises(mz.StaleHandleError, match="replaced"):
        host.agent.endpoints[BLUE, "10.0.0.9"] = FAR
    host.agent.reopen()
    assert (contents(host.agent), host.agent.capacity) == (entries, sizes)
    assert host.agent._datapath.maps.read_meta().head.schema == Limit.SCHEMA
    assert host.agent._datapath.maps.networks.max_entries == 2 * SMALLER["networks"]
    assert host.agent.stats().agent == counted.agent
    assert one.endpoint.stats() == sent
    try_everything(one, near, far)
    since = host.agent.stats().since(counted).agent
    assert since[Verdict.ENCAPSULATED].packets >= 2
    assert since[Verdict.DELIVERED_LOCALLY].packets >= 4
    assert one.endpoint.stats().reasons == {Verdict.NO_DESTINATION: mz.Counter(1, len(frame))}
    assert near.endpoint.labels == {"n": "2"}
    world.container(host, BLUE, "10.0.0.4/24")
    with mz.Host.open(netns=host.namespace.name) as all_of_it:
        assert not [each for each in all_of_it.check() if each.object.kind != "kernel"]


def test_an_older_agent_is_named_and_can_only_be_upgraded(
    made: tuple[World, Container, Container, Container],
) -> None:
    host = made[0].hosts[0]
    entries, programs = contents(host.agent), program_ids(host.agent)
    schemas = rf"schema {Limit.SCHEMA - 1}, this one has {Limit.SCHEMA}"
    for call in (mz.TransitAgent.attach, mz.Tunnel.delete):
        with pytest.raises(mz.LayoutError, match=schemas) as refused:
            call(host.tunnel)
        assert "upgrade()" in refused.value.hint
    with pytest.warns(mz.OutdatedWarning), mz.TransitAgent.open(host.tunnel) as agent:
        assert (agent.hook, agent.capacity) == (host.agent.hook, host.agent.capacity)
        assert agent.outdated
        calls: tuple[Callable[[], object], ...] = (
            agent.stats,
            agent.state,
            agent.detach,
            agent.events,
            lambda: agent.endpoints.update({(BLUE, "10.0.0.9"): FAR}),
            lambda: dict(agent.endpoints),
            lambda: mz.Endpoint.list(agent),
        )
        for each in calls:
            with pytest.raises(mz.LayoutError, match=schemas):
                each()
    for closed in (agent.stats, agent.upgrade, agent.reopen, lambda: agent.outdated):
        with pytest.raises(mz.ClosedError):
            closed()
    with mz.Host.open(netns=host.namespace.name) as everything:
        with pytest.warns(mz.OutdatedWarning):
            assert everything.agents() == []
        found = [each for each in everything.check() if each.object.kind != "kernel"]
    assert {each.kind for each in found} == {mz.FindingKind.OTHER_VERSION}
    assert "upgrade()" in found[0].message
    assert (contents(host.agent), program_ids(host.agent)) == (entries, programs)


@pytest.mark.parametrize("hook", ["auto", *(["clsact"] if FULL else [])])
def test_no_datagram_is_lost_or_counted_twice(before: Path, hook: str) -> None:
    with ExitStack() as stack:
        with older(before):
            world = stack.enter_context(World("vxlan", hook=hook))
            first, other = world.hosts
            one, near = (world.container(first, BLUE, f"10.0.0.{n}/24") for n in (1, 2))
            far = world.container(other, BLUE, "10.0.0.3/24")
            try_everything(one, near, far)
            counted = first.agent.stats()
        probes = [stack.enter_context(Probe(one.namespace, to.namespace, to.ip)) for to in (near, far)]
        for host in world.hosts:
            upgrade(host)
        found = [probe.result() for probe in probes]
        assert [each.lost for each in found] == [0, 0], found
        for host in world.hosts:
            host.agent.reopen()
        since = first.agent.stats().since(counted).agent
        packets = {verdict: counter.packets for verdict, counter in since.items() if counter.packets}
        assert packets.pop(Verdict.DELIVERED_LOCALLY) == found[0].sent
        assert packets.pop(Verdict.ENCAPSULATED) == found[1].sent
        assert set(packets) <= {Verdict.NEIGHBOUR_ANSWERED}


@pytest.mark.skipif(not has_tcx(), reason="this kernel has no tcx, and so no shortcut")
def test_switch_and_shortcut_move_as_well(
    made: tuple[World, Container, Container, Container], before: Path
) -> None:
    world, one, near, far = made
    host = world.hosts[0]
    with older(before):
        host.agent.update(shortcut="auto")
        mz.TransitSwitch.attach(host.agent, mode="generic")
        old = program_ids(host.agent)
    upgrade(host)
    host.agent.reopen()
    now = program_ids(host.agent)
    assert set(now) == set(old)
    assert not set(now.values()) & set(old.values())
    assert host.agent.state().shortcut.on
    try_everything(one, near, far)
    mz.TransitSwitch.detach("eth0", netns=host.namespace.name)


def test_a_collector_of_metrics_goes_on_with_an_agent_that_others_upgrade(
    made: tuple[World, Container, Container, Container],
) -> None:
    host = made[0].hosts[0]
    pytest.importorskip("prometheus_client")
    from mizarnet.metrics import Collector

    with pytest.warns(mz.OutdatedWarning), mz.TransitAgent.open(host.tunnel) as agent:
        collector = Collector(agent)
        assert _up(collector) == 0
        upgrade(host)
        assert _up(collector) == 1


def test_a_collector_of_metrics_leaves_an_older_agent_and_its_host_alone(
    made: tuple[World, Container, Container, Container], monkeypatch: pytest.MonkeyPatch
) -> None:
    host = made[0].hosts[0]
    pytest.importorskip("prometheus_client")
    from mizarnet.metrics import Collector

    with pytest.warns(mz.OutdatedWarning):
        agent = mz.TransitAgent.open(host.tunnel)
    with agent, host.tunnel._host.locked(), warnings.catch_warnings():
        monkeypatch.setattr(lock, "TIMEOUT", 0.1)
        warnings.simplefilter("error")
        collector, before = Collector(agent), {*os.listdir("/proc/self/fd")}
        assert [_up(collector), _up(collector)] == [0, 0]
        agent.reopen()
        assert {*os.listdir("/proc/self/fd")} == before


def test_a_collector_of_metrics_warns_of_nothing(
    made: tuple[World, Container, Container, Container], monkeypatch: pytest.MonkeyPatch
) -> None:
    host = made[0].hosts[0]
    pytest.importorskip("prometheus_client")
    from mizarnet.metrics import Collector

    with pytest.warns(mz.OutdatedWarning):
        agent = mz.TransitAgent.open(host.tunnel)
    with agent, warnings.catch_warnings():
        upgrade(host)
        warnings.simplefilter("error")
        monkeypatch.setattr(datapath, "installed_build", lambda: 1)
        assert _up(Collector(agent)) == 1


def test_a_handle_of_an_older_agent_notices_that_others_upgrade(
    made: tuple[World, Container, Container, Container],
) -> None:
    host = made[0].hosts[0]
    with pytest.warns(mz.OutdatedWarning), mz.TransitAgent.open(host.tunnel) as agent:
        assert agent.outdated
        upgrade(host)
        assert not agent.outdated
        agent.reopen()
        assert not agent.outdated


def _up(collector: Any) -> float:
    (family,) = (each for each in collector.collect() if each.name == "mizarnet_up")
    return float(family.samples[0].value)


@pytest.mark.parametrize("name", ["readers", ".data.attention"])
def test_a_map_is_shared_only_if_its_members_stand_where_they_did(
    made: tuple[World, Container, Container, Container], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Its size may be the same."""
    seen = device_of(made[0].hosts[0].tunnel).hooks.survey()
    assert seen.any is not None
    old = Older.open(seen.any)
    assert old is not None
    with closing(old):
        shape, struct = old.maps[name].shape, f"mzn_{name.rpartition('.')[2].removesuffix('s')}"
        assert old.is_alike(name, shape)
        turned = Layout(struct, *reversed(LAYOUTS[struct]._fields))
        monkeypatch.setitem(LAYOUTS, struct, turned)
        assert not old.is_alike(name, shape)


# -- a newer package ---------------------------------------------------------------------------------------

NEWER = """
import json
import os
agent = mz.TransitAgent.open("tunnel0", netns=sys.argv[1])
agent.upgrade()
assert not agent.outdated
assert agent.check() == [], agent.check()
print(json.dumps([
    sorted([key.vni, str(key.ip), str(value)] for key, value in agent.endpoints.items()),
    sorted([key.vni, str(key.prefix), str(value)] for key, value in agent.networks.items()),
    sorted(map(str, agent.peers)),
    sorted([str(each.to_dict()) for each in mz.Endpoint.list(agent)]),
]))
"""


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package of the next schema."""
    return newer_package(tmp_path_factory.mktemp("newer"))


def test_ten_thousand_entries_of_other_layouts_move_and_no_datagram_is_lost(
    world: World, newer: Path
) -> None:
    """Members stand elsewhere in the newer package, and are wider; there is a map more."""
    host, other = world.hosts
    one, near = (world.container(host, BLUE, f"10.0.0.{n}/24", labels={"n": str(n)}) for n in (1, 2))
    far = world.container(other, BLUE, "10.0.0.3/24")
    host.agent.networks.update(NETWORKS)
    host.agent.endpoints.update({(BLUE, f"10.{n >> 8 | 64}.{n & 255}.7"): FAR for n in range(MANY)})
    try_everything(one, near, far)
    wanted = public_view(host.agent)
    with (
        Probe(one.namespace, near.namespace, near.ip) as probe,
        Probe(one.namespace, far.namespace, far.ip) as away,
    ):
        status, output = finish(start_newer(newer, NEWER, host.namespace.name))
        found = [each.result() for each in (probe, away)]
    assert status == 0, output
    print(f"\n{MANY:,} entries of another layout moved: {found}")
    assert [each.lost for each in found] == [0, 0], found
    assert json.loads(output) == wanted
    try_everything(one, near, far)
    for call in (mz.TransitAgent.attach, mz.TransitAgent.open, mz.Tunnel.delete):
        with pytest.raises(mz.LayoutError, match=rf"schema {Limit.SCHEMA + 1}, this one has {Limit.SCHEMA}"):
            call(host.tunnel)
    with pytest.raises(mz.LayoutError, match="another version"):
        host.agent.endpoints[BLUE, "10.0.0.9"] = FAR
    with mz.Host.open(netns=host.namespace.name) as everything:
        assert mz.FindingKind.OTHER_VERSION in {each.kind for each in everything.check()}
    host.agent.close()
    host.tunnel.delete(force=True)


def public_view(agent: mz.TransitAgent) -> list[list[object]]:
    """What users see of an agent."""
    return [
        sorted([key.vni, str(key.ip), str(value)] for key, value in agent.endpoints.items()),
        sorted([key.vni, str(key.prefix), str(value)] for key, value in agent.networks.items()),
        sorted(map(str, agent.peers)),
        sorted([str(each.to_dict()) for each in mz.Endpoint.list(agent)]),
    ]


# -- halfway -----------------------------------------------------------------------------------------------

DYING = """
from mizarnet._datapath import hooks
host, left = sys.argv[1], int(sys.argv[2])
agent = mz.TransitAgent.open("tunnel0", netns=host)
real = hooks.replace
def dying(*args, **kwargs):
    global left
    if not left:
        os._exit(9)
    left -= 1
    return real(*args, **kwargs)
hooks.replace = dying
agent.upgrade()
"""


def both_sets(host: Host) -> tuple[Older, Maps]:
    """The old maps on the hooks, and the new ones."""
    seen = device_of(host.tunnel).hooks.survey()
    assert seen.any is not None and seen.newest is not None
    old, new = Older.open(seen.any), Maps.open(seen.newest.map_ids)
    assert old is not None and new is not None
    return old, new


@pytest.mark.parametrize("replaced", some([0, 1, 2, 3], 2))
def test_whoever_dies_halfway_leaves_two_sets_that_are_one_agent(
    made: tuple[World, Container, Container, Container], before: Path, replaced: int
) -> None:
    world, one, near, far = made
    host = world.hosts[0]
    entries = contents(host.agent)
    if replaced >= len(host.agent.state().attached):
        return  # a kernel with one layer
    status, output = finish(start_python(DYING, host.namespace.name, str(replaced)))
    assert status == 9, output
    try_everything(one, near, far)
    if replaced:
        old, new = both_sets(host)
        assert old.standing.head.instance == new.read_meta().head.instance
        for name, table in entries.items():
            target = new.by_name()[name]
            assert old.converted(target, old.entries(name)) == dict(target.items()) == table
        old.close()
        new.close()
        with older(before), pytest.raises(mz.LayoutError, match="another version"):
            host.agent.endpoints[BLUE, "10.0.0.9"] = FAR
        with pytest.raises(mz.LayoutError, match="another version"):
            mz.TransitAgent.attach(host.tunnel)
        with mz.Host.open(netns=host.namespace.name) as everything:
            everything.gc()
            kinds = {each.kind for each in everything.check() if each.object.kind != "kernel"}
        assert kinds == {mz.FindingKind.OTHER_VERSION}
        try_everything(one, near, far)
    upgrade(host)
    host.agent.reopen()
    assert contents(host.agent) == entries
    assert all(host.agent.state().attached.values())
    try_everything(one, near, far)


def test_an_older_agent_that_was_never_finished_says_what_ends_it(before: Path) -> None:
    space, end = new_namespace("older"), new_namespace("end")
    cable(space, end)
    with mz.Tunnel.create(TUNNEL, encap="vxlan", underlay=UNDERLAY, netns=space.name) as tunnel:
        with older(before), mz.TransitAgent.attach(tunnel, peers=["192.0.2.0/24"]) as agent:
            maps = agent._datapath.maps
            maps.meta.update(FIRST, attrs.evolve(maps.read_meta(), state=State.MAKING).pack())
        with pytest.raises(mz.AgentNotFoundError) as refused:
            mz.TransitAgent.open(tunnel)
        assert "force=True" in refused.value.hint
        tunnel.delete(force=True)
        assert mz.Tunnel.list(netns=space.name) == []
    for each in (space, end):
        each.delete()


def test_a_handle_of_an_older_agent_that_is_gone_says_so(before: Path, bare: Namespace) -> None:
    with mz.Tunnel.create(TUNNEL, encap="vxlan", underlay=UNDERLAY, netns=bare.name) as tunnel:
        with older(before):
            mz.TransitAgent.attach(tunnel).close()
        with pytest.warns(mz.OutdatedWarning), mz.TransitAgent.open(tunnel) as agent:
            device_of(tunnel).hooks.take_off(agent._datapath.meta_id)
            with pytest.raises(mz.StaleHandleError, match="was detached"):
                _ = agent.outdated
            with pytest.raises(mz.AgentNotFoundError):
                agent.reopen()
            tunnel.delete(force=True)
            with pytest.raises(mz.StaleHandleError, match="is gone"):
                _ = agent.outdated
            with pytest.raises(mz.TunnelNotFoundError):
                agent.reopen()


def test_a_switch_with_old_tables_moves_also_if_the_tunnel_has_no_old_program_left(
    made: tuple[World, Container, Container, Container], before: Path
) -> None:
    """Others took the rest off, once the process that moved it had died at the switch."""
    at_switch = "from mizarnet._kernel.bpf import XdpHook\nXdpHook.replace = lambda *_, **__: os._exit(9)\n"
    host = made[0].hosts[0]
    with older(before):
        mz.TransitSwitch.attach(host.agent, mode="generic")
    status, output = finish(start_python(at_switch + DYING, host.namespace.name, "1"))
    assert status == 9, output
    device_of(host.tunnel).hooks.take_off(host.agent._datapath.meta_id)
    with mz.TransitAgent.open(host.tunnel) as agent:
        assert agent.outdated
        agent.upgrade()
        assert not agent.outdated
        assert {*program_ids(agent)} == {"mzn_guard", "mzn_agent", "mzn_switch"}
    mz.TransitSwitch.detach("eth0", netns=host.namespace.name)


@pytest.mark.parametrize("number", some([1, 2, 3, 4], 4))
def test_what_was_replaced_is_put_back_when_a_place_is_not_as_it_was(
    made: tuple[World, Container, Container, Container], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    host = made[0].hosts[0]
    entries, programs = contents(host.agent), host.agent.state().programs
    if number > len(programs):
        return
    real, left = hooks.replace, [number]

    def replace(*args: object, **kwargs: object) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise mz.StaleHandleError("somebody else was here")
        real(*args, **kwargs)  # type: ignore[arg-type]

    with monkeypatch.context() as refusing, pytest.warns(mz.OutdatedWarning):
        refusing.setattr(hooks, "replace", replace)
        with mz.TransitAgent.open(host.tunnel) as agent, pytest.raises(mz.StaleHandleError, match="somebody"):
            agent.upgrade()
    assert (contents(host.agent), host.agent.state().programs) == (entries, programs)
    host.agent.networks[BLUE, "10.7.0.0/16"] = mz.Network(gateway="10.7.0.1")


@pytest.mark.parametrize(
    ("module", "step", "number"), [(migration, "replace_programs", 1), (hooks, "replace", 2)]
)
def test_of_two_who_do_not_see_each_other_the_faster_one_is_not_undone(
    made: tuple[World, Container, Container, Container],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    module: ModuleType,
    step: str,
    number: int,
) -> None:
    """Before the first place has changed, or between two places."""
    host = made[0].hosts[0]
    real, seen, left = getattr(module, step), lock.DIRECTORY, [number]

    def overtaken(*args: object, **kwargs: object) -> None:
        left[0] -= 1
        if left[0] == 0:
            monkeypatch.setattr(lock, "DIRECTORY", tmp_path / "run")
            upgrade(host)
            host.agent.reopen()
            monkeypatch.setattr(lock, "DIRECTORY", seen)
        real(*args, **kwargs)

    monkeypatch.setattr(module, step, overtaken)
    with (
        pytest.warns(mz.OutdatedWarning),
        mz.TransitAgent.open(host.tunnel) as agent,
        pytest.raises(mz.StaleHandleError),
    ):
        agent.upgrade()
    assert not host.agent.outdated
    host.agent.networks.update(NETWORKS)


def test_tables_are_whole_also_if_a_program_that_was_taken_off_cannot_come_back(
    made: tuple[World, Container, Container, Container],
) -> None:
    """Nobody can write the old ones any more, and the next call needs no more than the place."""
    host = made[0].hosts[0]
    place, run = f"dev {TUNNEL} egress pref 1 handle 0x6d7a", host.namespace.run
    run("tc", "filter", "del", *place.split(), "bpf")
    rival = host.agent._datapath._maps.networks
    run("tc", "filter", "add", *place.split(), "protocol", "all", "bpf", "da", "bytecode", "1,6 0 0 0")
    with (
        pytest.warns(mz.OutdatedWarning),
        mz.TransitAgent.open(host.tunnel) as agent,
        pytest.raises(mz.ExistsError, match="taken by a filter"),
    ):
        agent.upgrade()
    with pytest.raises(mz.BpfError, match="EPERM"):
        rival.delete(next(rival.keys()))
    run("tc", "filter", "del", "dev", TUNNEL, "egress", "pref", "1")
    host.agent.reopen()
    host.agent.networks.update(NETWORKS)
    assert all(host.agent.state().attached.values())


# -- a writer that does not see the lock -------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["copy", "replace_programs"])
def test_what_is_written_meanwhile_without_the_lock_is_not_lost(
    made: tuple[World, Container, Container, Container], monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Before the hooks change the stamp tells, and afterwards the old tables are read once more."""
    host = made[0].hosts[0]
    rival = host.agent._datapath
    copies = 0

    def write() -> None:
        maps = rival._maps
        for table in (maps.networks, maps.peers):
            table.delete(next(table.keys()))
        key, value = next(maps.networks.items())
        maps.networks.update(key, value[:-1] + bytes([value[-1] ^ 1]))
        maps.stamp()

    if moment == "copy":
        real_read = migration._Move._read

        def read(self: migration._Move) -> object:
            nonlocal copies
            found = real_read(self)
            copies += 1
            if copies == 1:
                write()
            return found

        monkeypatch.setattr(migration._Move, "_read", read)
    else:
        real = migration.replace_programs

        def replace(*args: object) -> None:
            real(*args)  # type: ignore[arg-type]
            write()

        monkeypatch.setattr(migration, "replace_programs", replace)
    upgrade(host)
    tables = {name: dict(getattr(rival._maps, name).items()) for name in ("networks", "peers")}
    host.agent.reopen()
    assert {name: contents(host.agent)[name] for name in tables} == tables
    if moment == "copy":
        assert copies == 3, "copied again, and looked at in the end"


def test_a_write_to_the_old_tables_is_refused_with_the_reason(
    made: tuple[World, Container, Container, Container], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A writer that looked at the hooks before the upgrade, and writes after it."""
    host = made[0].hosts[0]

    seen, mine = lock.DIRECTORY, tmp_path / "run"

    def late(self: DataPath) -> bool:
        slow.setattr(lock, "DIRECTORY", seen)
        upgrade(host)
        slow.setattr(lock, "DIRECTORY", mine)
        return False

    with monkeypatch.context() as slow:
        slow.setattr(lock, "DIRECTORY", mine)
        slow.setattr(DataPath, "_lacks_something", late)
        with pytest.raises(mz.StaleHandleError, match="replaced"):
            host.agent.networks[BLUE, "10.7.0.0/16"] = mz.Network(gateway="10.7.0.1")
    host.agent.reopen()
    assert (BLUE, "10.7.0.0/16") not in host.agent.networks
