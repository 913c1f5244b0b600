# SPDX-License-Identifier: Apache-2.0
"""``mz.Host``: on an empty host, with handles of its own, and where nothing or everything is ended."""

from __future__ import annotations

from types import SimpleNamespace

import attrs
import pytest

import mizarnet as mz
from mizarnet import FindingKind as K
from mizarnet._datapath import lock
from mizarnet._datapath.checks import confirm, losses, underlay
from mizarnet._datapath.hooks import PLACES
from mizarnet._datapath.maps import Maps
from mizarnet._kernel.bpf import Direction, Program
from mizarnet._kernel.netlink import Session, create_bridge, read_sysctl, set_link
from mizarnet._model import codec
from mizarnet._model.codec import FIRST
from mizarnet._model.enumerations import State
from tests.netns.check.conftest import Scene, of_host
from tests.netns.check.tamperings import offered, take
from tests.netns.test_foreign_hooks import stranger
from tests.support.leaks import descriptors
from tests.support.namespace import Namespace
from tests.support.standing import at_the_head
from tests.support.traffic import ping
from tests.support.wait import wait_until
from tests.world import TUNNEL, UNDERLAY, World, device, links


def kinds(findings: list[mz.Finding]) -> set[K]:
    return {each.kind for each in findings}


# -- opened ------------------------------------------------------------------------------------------------


@pytest.mark.vm
def test_an_empty_host_is_whole(bare: Namespace) -> None:
    with mz.Host.open(netns=bare.name) as host:
        assert (host.tunnels(), host.agents(), host.check()) == ([], [], [])
        assert host.repair()
        assert host.gc()
        assert host.health().ok
        host.clear()
        assert repr(host) == f"<Host {bare.name}>"
        assert host.to_dict() == {"netns": bare.name}
    with pytest.raises(mz.ClosedError):
        host.check()
    host.close()


def test_a_host_without_a_namespace_is_named() -> None:
    with pytest.raises(mz.NetnsNotFoundError):
        mz.Host.open(netns="there-is-none")


def test_handles_belong_to_the_host_and_stay_the_same(scene: Scene) -> None:
    (tunnel,), (agent,) = scene.seen.tunnels(), scene.seen.agents()
    assert (tunnel.name, tunnel.netns) == (TUNNEL, scene.space.name)
    assert [each.name for each in mz.Endpoint.list(agent)] == ["app", "vm", "web"]
    before = descriptors()
    for _ in range(5):
        assert scene.seen.tunnels() == [tunnel]
        assert scene.seen.agents() == [agent]
    assert descriptors() == before
    agent.close()
    (again,) = scene.seen.agents()
    assert again is not agent
    assert again.stats()
    scene.seen.close()
    with pytest.raises(mz.ClosedError):
        again.stats()
    with pytest.raises(mz.ClosedError):
        tunnel.state()


def test_handles_stay_while_names_change(scene: Scene) -> None:
    (tunnel,), (agent,) = scene.seen.tunnels(), scene.seen.agents()
    for before, after in ((UNDERLAY, "uplink"), (TUNNEL, "overlay")):
        scene.ip("link", "set", before, "down")
        scene.ip("link", "set", before, "name", after)
        scene.ip("link", "set", after, "up")
    assert scene.seen.tunnels() == [tunnel]
    assert scene.seen.agents() == [agent]
    assert agent.stats()
    scene.ip("link", "set", "overlay", "down")
    scene.ip("link", "set", "overlay", "name", TUNNEL)
    scene.ip("link", "set", TUNNEL, "up")


def test_handles_follow_a_tunnel_that_was_made_again(world: World) -> None:
    first = world.hosts[0]
    with mz.Host.open(netns=first.namespace.name) as host:
        (tunnel,) = host.tunnels()
        (agent,) = host.agents()
        first.agent.detach()
        assert host.agents() == []
        mz.TransitAgent.attach(first.tunnel).close()
        assert host.agents() == [agent]
        mz.Tunnel.delete(TUNNEL, netns=first.namespace.name)
        assert host.tunnels() == []
        mz.Tunnel.create(TUNNEL, encap="vxlan", underlay=UNDERLAY, netns=first.namespace.name).close()
        (other,) = host.tunnels()
        assert other is not tunnel
        assert host.agents() == []


# -- what is told but by the table of tamperings -----------------------------------------------------------


@pytest.mark.parametrize(("side", "ours"), [(Direction.INGRESS, "guard"), (Direction.EGRESS, "agent")])
def test_a_program_ahead_is_told(scene: Scene, side: Direction, ours: str) -> None:
    tunnel = scene.host.tunnel
    with stranger() as program, at_the_head(tunnel._host, tunnel.ifindex, program, side):
        (found,) = scene.check()
        assert (found.kind, found.severity) == (K.PROGRAM_AHEAD, mz.Severity.CRITICAL)
        assert f"runs on {side.value} before the {ours}" in found.message
        assert not found.repairable
        assert not scene.seen.health().ok
    assert scene.check() == []


def test_a_tunnel_that_was_moved_is_told_where_it_is(scene: Scene) -> None:
    there = scene.world.namespace("elsewhere")
    scene.ip("link", "set", TUNNEL, "netns", there.name)
    with mz.Host.open(netns=there.name) as other:
        found = other.check()
        assert K.MOVED in kinds(found)
        assert not other.health().ok
        assert K.MOVED in kinds(list(other.repair(found).left))
        assert other.gc()
    assert kinds(scene.check()) == set()
    # With its namespace it would end in the kernel's own time, and with it the VM's device, which keeps a namespace.
    there.run("ip", "link", "delete", TUNNEL)


def test_a_bridge_that_takes_the_tunnel_is_told_and_released(world: World) -> None:
    first = world.hosts[0]
    with Session.open(first.namespace.name) as session:
        created = create_bridge(session, "br0")
        set_link(session, first.tunnel.ifindex, master=created.ifindex)
    with mz.Host.open(netns=first.namespace.name) as seen:
        (found,) = of_host(seen.check())
        assert (found.kind, found.found) == (K.MASTER_SET, "br0")
        assert seen.repair([found])
        assert of_host(seen.check()) == []
    assert mz.Endpoint.create(first.agent, vni=7, ip="10.0.0.1/24", ifname="e0").created


def test_an_underlay_or_tunnel_with_another_name_is_no_finding(scene: Scene) -> None:
    scene.ip("link", "set", UNDERLAY, "down")
    scene.ip("link", "set", UNDERLAY, "name", "uplink")
    scene.ip("link", "set", "uplink", "up")
    scene.ip("link", "set", TUNNEL, "alias", "of somebody else")
    assert scene.check() == []
    scene.assert_works()


@pytest.mark.vm
def test_a_next_hop_that_does_not_answer_is_told_with_its_counters(scene: Scene) -> None:
    scene.agent.endpoints[7, "10.0.0.9"] = mz.Remote("192.0.2.77")
    scene.agent.peers.add("192.0.2.77")
    assert not ping(scene.web.namespace, "10.0.0.9", timeout=0.2)
    wait_until(lambda: kinds(scene.check()) >= {K.NEIGHBOUR_FAILED}, "the kernel gives up")
    found = next(each for each in scene.check() if each.kind is K.NEIGHBOUR_FAILED)
    assert str(found.object) == "host 192.0.2.77"
    assert "ip neighbour show 192.0.2.77" in found.message


def test_a_full_table_of_neighbours_is_told(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(underlay, "NEARLY", 0.0)
    found = [each for each in scene.seen.check() if each.kind is K.NEIGHBOURS_FULL]
    assert {str(each.object) for each in found} == {
        f"kernel net.ipv{version}.neigh.default.gc_thresh3" for version in (4, 6)
    }
    assert all("sysctl -w" in each.message for each in found)
    assert K.NEIGHBOURS_FULL in kinds(list(scene.seen.health().reasons))


@pytest.mark.vm
def test_losses_behind_the_verdict_are_told_as_rates(scene: Scene) -> None:
    assert scene.seen.health().ok
    before = scene.agent.stats()
    assert before.lost == {}
    scene.ip("route", "add", "unreachable", "192.0.2.2/32")
    assert not ping(scene.web.namespace, scene.db.ip, timeout=0.2)
    (found,) = [each for each in scene.check() if each.kind is K.NO_ROUTE]
    assert found.evidence[f"{TUNNEL}.tx_carrier_errors"] > 0
    assert "tx_carrier_errors +" in found.message
    assert not ping(scene.web.namespace, scene.db.ip, timeout=0.2)
    health = scene.seen.health()
    assert f"{TUNNEL}.tx_carrier_errors" in health.counters
    assert (
        scene.agent.stats().lost["tx_carrier_errors"]
        == scene.host.tunnel.state().lost["tx_carrier_errors"]
        == 2
    )
    assert scene.agent.stats().since(before).lost == scene.agent.stats().lost
    assert ["lost", "tx_carrier_errors"] in [
        line.split()[:2] for line in str(scene.agent.stats()).splitlines()
    ]
    lost = [each for each in health.reasons if each.kind is K.LOSS]
    assert any("no route to the other host" in each.message for each in lost)
    assert all(name in losses.LOSSES for name in ("tx_carrier_errors", "rx_otherhost_dropped"))


def test_a_table_that_is_nearly_full_is_told() -> None:
    with World("vxlan", max_endpoints=10) as world, mz.Host.open(netns=world.hosts[0].namespace.name) as seen:
        agent = world.hosts[0].agent
        agent.endpoints.update({(7, f"10.0.0.{n}"): mz.Remote("192.0.2.2") for n in range(1, 9)})
        assert seen.health().filled["tunnel0.endpoints"] == 0.8
        assert seen.health().ok
        agent.endpoints[7, "10.0.0.9"] = mz.Remote("192.0.2.2")
        (found,) = of_host(seen.health().reasons)
        assert (found.kind, str(found.object)) == (K.TABLE_NEARLY_FULL, "table endpoints of tunnel0")
        assert of_host(agent.health().reasons) == [found]


# -- what is not finished ----------------------------------------------------------------------------------


def age_record(scene: Scene, name: str, state: State) -> None:
    record = attrs.evolve(scene.record(name), state=state, changed=0)
    scene.maps.records.update(codec.record_key(name), record.pack())


@pytest.mark.parametrize(
    ("state", "kind"), [(State.MAKING, K.UNFINISHED), (State.DELETING, K.ENDING)], ids=["making", "deleting"]
)
def test_what_is_not_finished_is_left_alone_for_a_minute(
    scene: Scene, state: State, kind: K, request: pytest.FixtureRequest
) -> None:
    age_record(scene, "web", state)
    assert scene.check() == []
    assert scene.seen.gc()
    assert scene.web.endpoint.state().up
    request.getfixturevalue("no_minute")
    (found,) = scene.check()
    assert (found.kind, str(found.object), found.collectable) == (kind, "endpoint web", True)
    assert scene.seen.gc().done == (found,)
    assert scene.check() == []
    assert [each.name for each in mz.Endpoint.list(scene.agent, dead=True)] == ["app", "vm"]
    assert links(scene.web.namespace) == ["lo"]


@pytest.mark.parametrize("state", [State.MAKING, State.DELETING], ids=["making", "deleting"])
def test_an_agent_that_is_not_finished_is_left_alone_for_a_minute(
    scene: Scene, state: State, request: pytest.FixtureRequest
) -> None:
    mz.Endpoint.delete_many(scene.agent, ["web", "app", "vm"])
    meta = attrs.evolve(scene.maps.read_meta(), state=state)
    scene.maps.meta.update(FIRST, meta.pack())
    assert scene.check() == []
    assert scene.seen.gc()
    assert scene.host.tunnel.state().up
    request.getfixturevalue("no_minute")
    assert str(scene.check()[0].object) == "agent tunnel0"
    assert scene.seen.gc()
    assert scene.check() == []
    assert not scene.host.tunnel.state().up


def test_an_agent_with_endpoints_is_never_collected_as_unfinished(scene: Scene, no_minute: None) -> None:
    meta = attrs.evolve(scene.maps.read_meta(), state=State.MAKING)
    scene.maps.meta.update(FIRST, meta.pack())
    (found,) = scene.check()
    report = scene.seen.gc()
    assert report.left == (found,)
    assert "3 endpoints use tunnel0" in report.errors[found]
    scene.assert_works()
    assert scene.seen.repair()
    assert scene.check() == []


def test_a_finding_is_seen_twice(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    naps: list[float] = []

    def mend(seconds: float) -> None:
        naps.append(seconds)
        scene.web.namespace.run("ip", "link", "set", "eth0", "mtu", "1450")

    monkeypatch.setattr(confirm, "time", SimpleNamespace(sleep=mend))
    scene.web.namespace.run("ip", "link", "set", "eth0", "mtu", "900")
    assert scene.check() == []
    assert naps == [confirm.PAUSE]


COUNTED = {"verdicts", "traffic", "drops"}
"""Maps that the programs write: a container asks for routers on its own, whether anybody looks or not."""


def written_maps(maps: Maps) -> dict[str, list[tuple[bytes, bytes]]]:
    """Entries of the maps that only callers write, by name of the map; the lifelines' cannot be read."""
    unread = COUNTED | {"lifeline", "landing"}
    return {each.name: sorted(each.items()) for each in maps.all() if each.name not in unread}


@pytest.mark.vm
def test_a_check_changes_nothing_and_needs_no_lock(scene: Scene) -> None:
    before = written_maps(scene.maps)
    with scene.host.tunnel._host.locked():
        assert scene.check() == []
        assert scene.seen.health().ok
        for each in (scene.agent, scene.host.tunnel, scene.web.endpoint):
            assert of_host(each.check()) == []
    assert written_maps(scene.maps) == before


# -- of one object -----------------------------------------------------------------------------------------


def test_each_object_tells_its_own_findings(scene: Scene) -> None:
    switch = mz.TransitSwitch.attach(scene.agent)
    assert switch.check() == []
    scene.space.set(**{f"ipv4/conf/{UNDERLAY}/forwarding": 0})
    scene.ip("link", "set", TUNNEL, "arp", "on")
    scene.web.namespace.run("ip", "link", "set", "eth0", "mtu", "900")
    take(scene.host, [PLACES[0]])
    assert kinds(switch.check()) == {K.FORWARDING_OFF}
    assert kinds(of_host(scene.host.tunnel.check())) == {K.NOT_SILENT}
    assert kinds(scene.web.endpoint.check()) == {K.MTU_DIFFERS}
    assert kinds(scene.agent.check()) == {K.PROGRAM_MISSING, K.FORWARDING_OFF}
    assert kinds(of_host(scene.agent.health().reasons)) == {K.PROGRAM_MISSING, K.FORWARDING_OFF, K.NOT_SILENT}
    found = scene.web.endpoint.check()
    assert scene.seen.repair(found)  # as every writer does, it puts back the guard
    assert kinds(scene.check()) == {K.FORWARDING_OFF, K.NOT_SILENT}
    assert scene.seen.repair()
    assert scene.check() == []


def test_an_open_handle_tells_that_its_tunnel_is_gone(scene: Scene) -> None:
    with mz.Tunnel.open(TUNNEL, netns=scene.space.name) as tunnel:
        mz.Tunnel.delete(TUNNEL, netns=scene.space.name, force=True)
        assert kinds(tunnel.check()) == {K.TUNNEL_GONE}
        (gone,) = scene.agent.check()
        assert (gone.kind, gone.cure) == (K.AGENT_GONE, mz.Cure.NONE)
        assert not scene.agent.health().ok
        assert not scene.seen.repair([gone, *tunnel.check()]).errors


# -- repaired ----------------------------------------------------------------------------------------------


def test_a_repair_keeps_connections(scene: Scene) -> None:
    with scene.db.listener() as listener:
        near, far = scene.web.connect(listener)
        with near, far:
            scene.web.namespace.run("ip", "link", "set", "eth0", "mtu", "900")
            scene.ip("link", "set", TUNNEL, "mtu", "1300")
            take(scene.host, offered()[:1])
            assert scene.seen.repair()
            near.sendall(b"still here")
            assert far.recv(100) == b"still here"
    assert scene.web.endpoint.state().mtu == device(scene.space, TUNNEL).mtu == 1450


def test_a_repair_leaves_a_later_endpoint_of_the_name_alone(scene: Scene) -> None:
    scene.web.namespace.run("ip", "link", "set", "eth0", "mtu", "900")
    found = scene.check()
    spec = scene.web.endpoint.spec
    scene.web.endpoint.delete()
    again = mz.Endpoint.create(scene.agent, spec)
    scene.web.namespace.run("ip", "link", "set", "eth0", "mtu", "1000")
    assert scene.seen.repair(found).done == tuple(found)
    assert again.state().mtu == 1000


def test_what_fails_to_be_repaired_says_why_and_keeps_what_there_is(scene: Scene) -> None:
    scene.web.namespace.run("ip", "link", "delete", "eth0")
    scene.web.namespace.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "other")
    (found,) = scene.check()
    report = scene.seen.repair([found])
    assert not report
    assert report.left == (found,)
    assert "has a device eth0" in report.errors[found]
    assert "has a device eth0" in report.to_dict()["errors"][found.message]
    assert found.message in str(report)
    scene.web.namespace.run("ip", "link", "delete", "eth0")
    assert scene.seen.repair()
    scene.assert_works()


def test_an_older_finding_takes_no_tunnel_down_that_is_guarded_by_now(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(scene.host, offered())
    (found,) = [each for each in scene.check() if each.kind is K.AGENT_GONE]

    def two(*_: object) -> None:
        raise mz.ExistsError("programs of two agents are there", holder="both")

    with monkeypatch.context() as patched:
        patched.setattr("mizarnet._datapath.datapath.DataPath.find", two)
        scene.seen.repair([found])
    assert device(scene.host.namespace, TUNNEL).up
    scene.seen.repair([found])
    assert not device(scene.host.namespace, TUNNEL).up


def test_a_busy_lock_is_waited_for_once(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "TIMEOUT", 0.05)
    for number in (1, 2, 3):
        scene.ip("link", "add", f"x{number}", "link", TUNNEL, "type", "macvlan", "mode", "private")
    with scene.host.tunnel._host.locked():
        report = scene.seen.gc()
    assert len(report.left) == 3
    assert len(report.errors) == 1
    assert scene.seen.gc()


def test_findings_of_another_type_are_refused(scene: Scene) -> None:
    for wrong in ("all", [1], 7):
        with pytest.raises(mz.InvalidTypeError):
            scene.seen.repair(wrong)  # type: ignore[arg-type]


def test_findings_and_reports_can_be_shown(scene: Scene) -> None:
    take(scene.host, [PLACES[0]])
    found = scene.seen.check()
    (each,) = of_host(found)
    assert each.to_dict() == {
        "kind": "program missing",
        "object": {"kind": "agent", "name": TUNNEL},
        "wanted": str(PLACES[0]),
        "found": None,
        "message": each.message,
        "severity": "critical",
        "repairable": True,
        "collectable": False,
        "interrupts": False,
        "tunnel": TUNNEL,
        "evidence": {},
    }
    assert "<table" in found._repr_html_()  # type: ignore[attr-defined]
    health = scene.seen.health()
    assert (bool(health), health.to_dict()["ok"]) == (False, False)
    assert str(health).startswith("not ok\ncritical: agent tunnel0")
    report = scene.seen.repair(found)
    assert report.to_dict()["left"] == []
    assert "<table" in report._repr_html_()
    assert "<table" in health._repr_html_()


# -- cleared -----------------------------------------------------------------------------------------------


@pytest.mark.vm
def test_clear_refuses_live_endpoints_and_then_leaves_nothing(scene: Scene) -> None:
    mz.TransitSwitch.attach(scene.agent)
    with pytest.raises(mz.InUseError, match="3 live endpoints") as caught:
        scene.seen.clear()
    assert sorted(caught.value.users) == ["app", "vm", "web"]
    scene.assert_works()
    scene.seen.clear(force=True)
    assert scene.check() == []
    assert set(links(scene.space)) == {"lo", UNDERLAY}
    assert links(scene.web.namespace) == links(scene.app.namespace) == ["lo"]
    assert read_sysctl(scene.host.tunnel._host, f"ipv4/conf/{UNDERLAY}/forwarding") == "0"
    assert device(scene.space, UNDERLAY).xdp_ids == ()
    assert not [each for each in scene.space.run("ip", "netns", "list").split() if each == scene.vm.netns]
    scene.seen.clear()


def test_clear_ends_what_was_to_become_a_tunnel(bare: Namespace) -> None:
    bare.run("ip", "link", "add", "mizarnet-new", "type", "vxlan", "external", "dstport", "7777")
    with mz.Host.open(netns=bare.name) as seen:
        seen.clear()
        assert set(links(bare)) == {"lo", UNDERLAY}


def test_clear_ends_dead_endpoints_without_force(world: World) -> None:
    first = world.hosts[0]
    web = world.container(first, 7, "10.0.0.1/24", name="web")
    web.namespace.delete()
    wait_until(lambda: web.endpoint.state().life is mz.Life.DEAD, "the namespace ends")
    with mz.Host.open(netns=first.namespace.name) as seen:
        seen.clear()
        assert set(links(first.namespace)) == {"lo", UNDERLAY}


# -- what cannot be looked into ----------------------------------------------------------------------------


def test_an_agent_of_another_version_is_told_and_left(scene: Scene) -> None:
    meta = scene.maps.read_meta()
    other = attrs.evolve(meta, head=attrs.evolve(meta.head, schema=99))
    scene.maps.meta.update(FIRST, other.pack())
    (found,) = scene.check()
    assert (found.kind, found.severity) == (K.OTHER_VERSION, mz.Severity.NOTICE)
    assert scene.seen.health().ok
    assert scene.seen.agents() == []
    assert not scene.seen.repair([found])
    assert scene.seen.gc()
    with pytest.raises(mz.LayoutError):
        scene.seen.clear()
    scene.assert_works()
    scene.maps.meta.update(FIRST, meta.pack())
    assert scene.check() == []


def test_programs_of_two_agents_on_one_tunnel_are_told(scene: Scene) -> None:
    with (
        mz.Tunnel.create(
            "tunnel9", encap="vxlan", underlay=UNDERLAY, port=7999, netns=scene.space.name
        ) as tunnel,
        mz.TransitAgent.attach(tunnel) as agent,
    ):
        program = Program.open_id(agent.state().programs[str(offered()[0])])
        assert program is not None
        mine = scene.host.tunnel
        with program, at_the_head(mine._host, mine.ifindex, program, Direction.INGRESS):
            assert {each.kind for each in scene.check()} == {K.TWO_AGENTS}
            assert {each.kind for each in scene.agent.check()} == {K.TWO_AGENTS}
            assert not scene.seen.health().ok
            assert [each.tunnel.name for each in scene.seen.agents()] == ["tunnel9"]
            with pytest.raises(mz.ExistsError, match="two transit agents"):
                scene.seen.clear()
        assert scene.check() == []
        tunnel.delete(force=True)
