# SPDX-License-Identifier: Apache-2.0
"""Programs are replaced under traffic, by those of another build, and nobody notices."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import attrs
import pytest

import mizarnet as mz
from mizarnet import Verdict
from mizarnet._datapath import hooks, loader, maps
from mizarnet._kernel.bpf import MapType, has_tcx
from mizarnet._model.codec import FIRST
from mizarnet._model.enumerations import Limit
from tests.frames import Outer, datagram
from tests.support.builds import OTHER_TTL, compile_second, installed
from tests.support.depth import depth
from tests.support.flow import Probe
from tests.support.process import finish, start_python
from tests.support.standing import program_ids
from tests.support.tables import contents
from tests.support.traffic import Capture, assert_ping, send_frame
from tests.world import BLUE, UNDERLAY, Container, Host, Subnet, World, common_tests

TIMES = {"auto": depth(6, 1000), "clsact": depth(6, 200), "switch": depth(6, 200)}
"""How often programs are replaced under load."""
TTL = 64


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The object of another build."""
    return compile_second(tmp_path_factory.mktemp("second"))


@pytest.fixture
def pair(world: World) -> tuple[Container, Container, Container]:
    """Two endpoints of the first host, and one of the second."""
    first, other = world.hosts
    return (
        world.container(first, BLUE, "10.0.0.1/24"),
        world.container(first, BLUE, "10.0.0.2/24"),
        world.container(other, BLUE, "10.0.0.3/24"),
    )


def outer_ttl(world: World, one: Container, other: Container) -> int:
    """The TTL that the first host's agent gives its packets now."""
    first = world.hosts[0]

    def is_request(frame: bytes) -> bool:
        outer = Outer.parse(frame)
        return outer is not None and outer.source == first.address

    with Capture(world.hosts[1].namespace, UNDERLAY) as wire:
        assert_ping(one.namespace, other.ip)
        sent = Outer.parse(wire.until(is_request)[-1])
    assert sent is not None
    return sent.ttl


def upgrade(host: Host) -> None:
    """Through a handle of its own, which says that it is needed."""
    with pytest.warns(mz.OutdatedWarning, match="another build") as told:
        agent = mz.TransitAgent.open(host.tunnel)
    assert [each.filename for each in told] == [__file__]
    with agent:
        assert agent.outdated
        agent.upgrade()
        assert not agent.outdated
        assert agent.build == loader.build_text(loader.installed_build())


@pytest.mark.vm
def test_the_other_builds_programs_take_over_and_nothing_else_changes(
    world: World, pair: tuple[Container, Container, Container], second: Path
) -> None:
    one, near, far = pair
    agent = world.hosts[0].agent
    frame = datagram(one.mac, one.ip, "10.0.0.99", destination_mac=one.mac)
    send_frame(one.namespace, one.endpoint.ifname, frame)
    before, memory, programs = contents(agent), agent.state().memory, agent.state().programs
    assert not agent.outdated
    assert outer_ttl(world, one, far) == TTL
    with installed(second), agent.events(endpoint=one.endpoint) as events:
        assert agent.outdated
        upgrade(world.hosts[0])
        assert outer_ttl(world, one, far) == OTHER_TTL
        assert_ping(one.namespace, near.ip)
        state = agent.state()
        assert all(state.attached.values())
        assert not set(state.programs.values()) & set(programs.values())
        assert (contents(agent), state.memory) == (before, memory)
        send_frame(one.namespace, one.endpoint.ifname, frame)
        assert one.endpoint.stats().reasons == {Verdict.NO_DESTINATION: mz.Counter(2, 2 * len(frame))}
        told = iter(lambda: events.read(timeout=1), None)
        assert Verdict.NO_DESTINATION in {each.verdict for each in told}, "a reader goes on"
    assert agent.outdated, "for the first package the second one's programs are"
    upgrade(world.hosts[0])
    assert outer_ttl(world, one, far) == TTL


@pytest.mark.skipif(not has_tcx(), reason="this kernel has no tcx, and so no shortcut")
def test_a_shortcut_is_replaced_as_well(world: World, second: Path) -> None:
    one, other = (world.container(host, BLUE, f"10.0.0.{n}/24") for n, host in enumerate(world.hosts, 1))
    agent = world.hosts[0].agent
    agent.update(shortcut="auto")
    before = program_ids(agent)["mzn_shortcut"]
    with installed(second):
        assert agent.outdated
        agent.upgrade()
        assert not agent.outdated
    assert agent.outdated
    assert program_ids(agent)["mzn_shortcut"] != before
    assert agent.state().shortcut.on
    with assert_more(agent):
        assert_ping(one.namespace, other.ip)
    agent.upgrade()
    assert not agent.outdated


@contextmanager
def assert_more(agent: mz.TransitAgent) -> Iterator[None]:
    """The shortcut takes something meanwhile."""
    taken = agent.stats().shortcut[Verdict.ACCEPTED].packets
    yield
    assert agent.stats().shortcut[Verdict.ACCEPTED].packets > taken


def test_nothing_is_replaced_by_itself(world: World, second: Path) -> None:
    """Attaching and opening by the other package work, and say so."""
    host = world.hosts[0]
    programs = host.agent.state().programs
    with installed(second):
        for adopt in (mz.TransitAgent.attach, mz.TransitAgent.open):
            with pytest.warns(mz.OutdatedWarning), adopt(host.tunnel) as agent:
                assert not agent.created
                agent.endpoints[BLUE, "10.0.0.9"] = mz.Remote("192.0.2.2")
                assert agent.state().programs == programs


def test_an_upgrade_that_is_not_needed_does_nothing(world: World) -> None:
    agent = world.hosts[0].agent
    programs = agent.state().programs
    agent.upgrade()
    assert agent.state().programs == programs
    assert agent._datapath.maps.read_meta().generation == 0


def test_another_schema_is_named_with_ours_and_nothing_is_touched(world: World) -> None:
    host = world.hosts[0]
    living, programs = host.agent._datapath.maps, host.agent.state().programs
    meta = living.read_meta()
    living.meta.update(FIRST, attrs.evolve(meta, head=attrs.evolve(meta.head, schema=9)).pack())
    for call in (mz.TransitAgent.attach, mz.TransitAgent.open, mz.Tunnel.delete):
        with pytest.raises(mz.LayoutError, match=rf"schema 9, this one has {Limit.SCHEMA}"):
            call(host.tunnel)
    living.meta.update(FIRST, meta.pack())
    assert host.agent.state().programs == programs


def test_a_package_with_one_more_map_says_so_and_replaces_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = world.hosts[0]
    programs, before = host.agent.state().programs, contents(host.agent)
    with monkeypatch.context() as newer:
        newer.setitem(maps._SHAPES, "flows", (MapType.HASH, 4, 4))
        for call in (mz.TransitAgent.attach, mz.TransitAgent.open, mz.Tunnel.delete):
            with pytest.raises(mz.LayoutError, match="there is no map 'flows'"):
                call(host.tunnel)
    assert (host.agent.state().programs, contents(host.agent)) == (programs, before)


# -- under load --------------------------------------------------------------------------------------------


@pytest.mark.vm
@pytest.mark.parametrize("hook", ["auto", "clsact"])
def test_no_datagram_is_lost_while_programs_are_replaced(second: Path, hook: str) -> None:
    with World("vxlan", hook=hook) as world, ExitStack() as flows:
        first, other = world.hosts
        one, near = (world.container(first, BLUE, f"10.0.0.{n}/24") for n in (1, 2))
        far = world.container(other, BLUE, "10.0.0.3/24")
        for to in (near, far):
            assert_ping(one.namespace, to.ip)
        before = first.agent.stats()
        probes = [flows.enter_context(Probe(one.namespace, to.namespace, to.ip)) for to in (near, far)]
        replace_often(first, second, TIMES[hook])
        found = [probe.result() for probe in probes]
        assert [each.lost for each in found] == [0, 0], found
        since = first.agent.stats().since(before).agent
        counted = {verdict: counter.packets for verdict, counter in since.items() if counter.packets}
        sent = counted.pop(Verdict.DELIVERED_LOCALLY), counted.pop(Verdict.ENCAPSULATED)
        assert sent == tuple(each.sent for each in found)
        assert set(counted) <= {Verdict.NEIGHBOUR_ANSWERED}


def replace_often(host: Host, second: Path, times: int) -> None:
    """There and back, again and again; both mixed pairs run in between."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mz.OutdatedWarning)
        for number in range(times):
            with ExitStack() as other:
                if number % 2 == 0:
                    other.enter_context(installed(second))
                host.agent.upgrade()
                assert not host.agent.outdated


@pytest.mark.vm
def test_no_datagram_is_lost_while_a_switch_is_replaced(second: Path) -> None:
    net = Subnet(BLUE, 1)
    with World("vxlan", hosts=3) as world:
        h1, h2, switch = world.hosts
        world.network(net, switches=[switch])
        one, other = world.member(h1, net, 2), world.member(h2, net, 3)
        world.inform(switch)
        world.switch(switch)
        common_tests(one, other, 4)
        ids = program_ids(switch.agent)
        with Probe(one.namespace, other.namespace, other.ip) as probe:
            replace_often(switch, second, TIMES["switch"])
            found = probe.result()
        assert found.lost == 0, found
        assert not set(ids.values()) & set(program_ids(switch.agent).values())
        assert switch.agent.stats().switch[Verdict.BOUNCED].packets >= found.sent
        common_tests(one, other, 4)


# -- halfway -----------------------------------------------------------------------------------------------

DYING = """
from mizarnet._datapath import hooks
from mizarnet._datapath import loader
from pathlib import Path
host, path, left = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
if path.name != "shipped":
    loader.object_path = lambda: path
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


def die(host: Host, path: Path, replaced: int) -> None:
    """Another process upgrades to the object at ``path``, and dies after some replacements."""
    process = start_python(DYING, host.namespace.name, str(path), str(replaced))
    status, output = finish(process)
    assert status == 9, output


@pytest.mark.parametrize("finisher", ["second", "first"])
@pytest.mark.parametrize("replaced", [0, 1, 2, 3])
def test_whoever_dies_halfway_leaves_a_mixture_that_works_and_can_be_finished(
    world: World, pair: tuple[Container, Container, Container], second: Path, replaced: int, finisher: str
) -> None:
    one, near, far = pair
    host = world.hosts[0]
    if replaced >= len(host.agent.state().attached):
        return  # a kernel with one layer
    die(host, second, replaced)
    try_everything(one, near, far)
    with installed(second):
        assert host.agent.outdated, "while any is old"
    assert host.agent.outdated == bool(replaced)
    with ExitStack() as package:
        if finisher == "second":
            package.enter_context(installed(second))
        host.agent.upgrade()
        assert not host.agent.outdated
        try_everything(one, near, far)
    assert (outer_ttl(world, one, far) == OTHER_TTL) == (finisher == "second")


def test_the_old_guard_works_with_the_new_agent(
    world: World, pair: tuple[Container, Container, Container], second: Path
) -> None:
    """The other mixed pair comes about on the way back."""
    host, layers = world.hosts[0], len(world.hosts[0].agent.state().attached) // 2
    with installed(second):
        host.agent.upgrade()
    die(host, Path("shipped"), layers)
    assert outer_ttl(world, pair[0], pair[2]) == OTHER_TTL
    assert host.agent.outdated
    try_everything(*pair)


def try_everything(one: Container, near: Container, far: Container) -> None:
    """Local and remote, both ways."""
    for source, to in ((one, near), (near, one), (one, far), (far, one)):
        assert_ping(source.namespace, to.ip)


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Makes the hooks refuse a replacement after some."""
    real, left = hooks.replace, [0]

    def replace(*args: object, **kwargs: object) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise mz.StaleHandleError("somebody else was here")
        real(*args, **kwargs)  # type: ignore[arg-type]

    def refuse(number: int) -> None:
        left[0] = number
        monkeypatch.setattr(hooks, "replace", replace)

    yield refuse


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_what_was_replaced_is_put_back_when_a_place_is_not_as_it_was(
    world: World, second: Path, refusing: Callable[[int], None], number: int
) -> None:
    agent = world.hosts[0].agent
    before = agent.state().programs
    if number > len(before):
        return  # a kernel with one layer
    refusing(number)
    with installed(second), pytest.raises(mz.StaleHandleError, match="somebody else"):
        agent.upgrade()
    assert agent.state().programs == before
