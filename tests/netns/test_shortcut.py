# SPDX-License-Identifier: Apache-2.0
"""The shortcut on the way in: what takes it, what does not, and switching it on and off on a living agent."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

import mizarnet as mz
from mizarnet import FindingKind, Verdict
from mizarnet._datapath import shortcuts
from mizarnet._kernel.bpf import Direction, Program, TcxHook, has_tcx
from mizarnet._kernel.netlink import delete_link
from tests.frames import datagram
from tests.support.depth import depth
from tests.support.flow import Probe
from tests.support.namespace import SOCKET_SECONDS
from tests.support.services import exchange_datagrams, exchange_file
from tests.support.traffic import assert_ping
from tests.world import (
    TUNNEL,
    UNDERLAY,
    Container,
    EncapName,
    Host,
    Subnet,
    World,
    common_tests,
    device,
    mac_of,
    total,
)

pytestmark = pytest.mark.skipif(not has_tcx(), reason="this kernel has no tcx: see test_without_tcx")

NET = Subnet(7, 1)
UDP_SEGMENT = 103  # <linux/udp.h>
DATAGRAM, BATCH, BATCHES = 1200, 20, 50
CHANGES = depth(usual=100, full=1000)


def joined(world: World) -> tuple[Container, Container]:
    """An endpoint on each of two hosts, who know of each other."""
    world.network(NET)
    pair = world.member(world.hosts[0], NET, 2), world.member(world.hosts[1], NET, 3)
    world.inform(*world.hosts)
    return pair


@pytest.fixture(scope="module", params=[4, 6], ids=["over-ipv4", "over-ipv6"])
def shared(request: pytest.FixtureRequest, encap: EncapName) -> Iterator[World]:
    """Two hosts with the shortcut, which tests of this module leave as they find them."""
    with World(encap, ipv6=request.param == 6, shortcut="auto") as made:
        joined(made)
        yield made


def pair_of(world: World) -> tuple[Container, Container]:
    one, other = world.containers
    return one, other


def taken(world: World) -> int:
    return total(world.hosts, "shortcut", Verdict.ACCEPTED)


def by_the_kernel(world: World) -> int:
    return total(world.hosts, "guard", Verdict.ACCEPTED)


def program_on(host: Host, name: str = UNDERLAY) -> list[int]:
    """Ids of our shortcuts on a device."""
    link = device(host.namespace, name)
    return [each.standing.program_id for each in shortcuts.find(host.tunnel._host, links=[link])]


def kinds(findings: list[mz.Finding]) -> set[FindingKind]:
    return {each.kind for each in findings}


# -- traffic -----------------------------------------------------------------------------------------------


@pytest.mark.vm
def test_everything_arrives_whole_by_the_shortcut(shared: World, version: int) -> None:
    before, kernel = taken(shared), by_the_kernel(shared)
    common_tests(*pair_of(shared), version)
    assert taken(shared) > before
    assert by_the_kernel(shared) == kernel


@pytest.mark.parametrize(
    "name", ["tx-checksum-ip-generic", "tcp-segmentation-offload", "generic-receive-offload"]
)
def test_with_an_offload_of_the_nics_off(encap: EncapName, version: int, name: str) -> None:
    with World(encap, shortcut="auto") as world:
        one, other = joined(world)
        for host in world.hosts:
            host.namespace.run("ethtool", "-K", UNDERLAY, name, "off")
        common_tests(one, other, version)
        assert taken(world)


def test_jumbo_frames(encap: EncapName, version: int) -> None:
    with World(encap, mtu=9000, shortcut="auto") as world:
        one, other = joined(world)
        exchange_file(one.namespace, other.address(version))
        exchange_datagrams(one.namespace, other.address(version), size=8000)
        assert taken(world)


@pytest.mark.vm
def test_merged_datagrams_go_the_kernels_way_and_arrive(shared: World, version: int) -> None:
    one, other = pair_of(shared)
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    kernel = by_the_kernel(shared)
    arrived = 0
    with (
        other.namespace.socket(family, socket.SOCK_DGRAM) as server,
        one.namespace.socket(family, socket.SOCK_DGRAM) as client,
    ):
        server.bind((other.address(version), 9300))
        server.settimeout(SOCKET_SECONDS)
        client.setsockopt(socket.SOL_UDP, UDP_SEGMENT, DATAGRAM)
        for _ in range(BATCHES):
            client.sendto(bytes(DATAGRAM * BATCH), (other.address(version), 9300))
            arrived += sum(len(server.recv(4096)) for _ in range(BATCH))
    assert arrived == BATCHES * BATCH * DATAGRAM
    assert by_the_kernel(shared) > kernel


# -- switched on and off -----------------------------------------------------------------------------------


@pytest.mark.vm
def test_it_is_off_by_default_and_switched_by_update(world: World) -> None:
    one, other = joined(world)
    host = world.hosts[1]
    assert host.agent.state().shortcut == mz.ShortcutState(mz.Shortcut.OFF, False, "")
    assert_ping(one.namespace, other.ip)
    assert (taken(world), program_on(host)) == (0, [])
    assert host.agent.update(shortcut="auto") == ("shortcut",)
    assert host.agent.update(shortcut=mz.Shortcut.AUTO) == ()
    assert host.agent.update() == ()
    assert host.agent.state().shortcut == mz.ShortcutState(mz.Shortcut.AUTO, True, "")
    assert_ping(one.namespace, other.ip)
    assert taken(world) > 0
    assert kinds(host.agent.check()) == {FindingKind.SHORTCUT_PAST}
    assert host.agent.health().ok
    assert host.agent.update(shortcut="off") == ("shortcut",)
    assert (program_on(host), host.agent.check()) == ([], [])
    assert_ping(one.namespace, other.ip)


@pytest.mark.parametrize(("made", "asked"), [("off", "auto"), ("auto", "off"), (None, "auto")])
def test_attach_compares_it_as_every_argument(encap: EncapName, made: str | None, asked: str) -> None:
    with World(encap, hosts=1, shortcut=made) as world:
        (host,) = world.hosts
        with pytest.raises(mz.ExistsError, match="shortcut"):
            mz.TransitAgent.attach(host.tunnel, shortcut=asked)  # type: ignore[arg-type]
        for same in (None, made):
            mz.TransitAgent.attach(host.tunnel, shortcut=same).close()  # type: ignore[arg-type]
        assert host.agent.state().shortcut.wanted.value == (made or "off")


@pytest.mark.parametrize("value", ["on", True, None, 1])
def test_another_value_is_refused_before_anything_is_done(world: World, value: object) -> None:
    agent = world.hosts[0].agent
    with pytest.raises((mz.InvalidValueError, mz.InvalidTypeError), match="shortcut"):
        agent.update(shortcut=value)  # type: ignore[arg-type]
    assert agent.state().shortcut.wanted is mz.Shortcut.OFF


def test_no_datagram_is_lost_while_it_is_switched(world: World) -> None:
    one, other = joined(world)
    agent = world.hosts[1].agent
    with Probe(one.namespace, other.namespace, other.ip) as probe:
        for _ in range(CHANGES // 2):
            agent.update(shortcut="auto")
            agent.update(shortcut="off")
        found = probe.result()
    assert (found.lost, found.sent > 0) == (0, True)
    assert taken(world) > 0


# -- its end -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["detach", "delete"])
def test_it_ends_with_the_agent(encap: EncapName, how: str) -> None:
    with World(encap, hosts=1, shortcut="auto") as world:
        (host,) = world.hosts
        assert program_on(host)
        host.agent.detach() if how == "detach" else host.tunnel.delete()
        assert program_on(host) == []


def test_what_outlives_its_tunnel_passes_everything_and_is_collected(encap: EncapName) -> None:
    with World(encap, shortcut="auto") as world:
        joined(world)
        host, far = world.hosts
        (program_id,) = program_on(host)
        delete_link(host.tunnel._host, device(host.namespace, TUNNEL).ifindex)
        assert program_on(host) == [program_id]
        assert_ping(far.namespace, host.address)
        with mz.Host.open(netns=host.namespace.name) as machine:
            assert FindingKind.SHORTCUT_LEFT in kinds(machine.check())
            assert machine.gc()
            assert FindingKind.SHORTCUT_LEFT not in kinds(machine.check())
        assert program_on(host) == []


@pytest.mark.parametrize("by", ["repair", "update", "attach"])
def test_one_that_was_taken_off_is_told_and_put_back(encap: EncapName, by: str) -> None:
    with World(encap, hosts=1, shortcut="auto") as world:
        (host,) = world.hosts
        (program_id,) = program_on(host)
        hook = TcxHook(device(host.namespace, UNDERLAY).ifindex, Direction.INGRESS)
        program = Program.open_id(program_id)
        assert program is not None
        with program:
            host.tunnel._host.run(hook.detach, program)
        state = host.agent.state().shortcut
        assert not state.on
        assert "update" in state.reason
        assert kinds(host.agent.check()) == {FindingKind.SHORTCUT_GONE}
        if by == "update":
            assert host.agent.update(shortcut="auto") == ()
        elif by == "attach":
            mz.TransitAgent.attach(host.tunnel).close()
        else:
            with mz.Host.open(netns=host.namespace.name) as machine:
                machine.repair()
        assert host.agent.state().shortcut.on


def _from_afar(agent: mz.TransitAgent, destination: str, *, source: str = "10.9.9.9") -> mz.Explanation:
    return agent.explain(source, destination, vni=7, outer="192.0.2.9")


def _takes_it(found: mz.Explanation) -> bool:
    return ", by the shortcut" in str(found)


def test_explanations_say_by_it_of_what_it_takes_alone(world: World) -> None:
    """What the guard refuses or bounces meets the host's INPUT rules before it does so."""
    one, other = joined(world)
    here = world.hosts[1].agent
    here.update(shortcut="auto")
    taken = _from_afar(here, other.ip, source=one.ip)
    assert (taken.ok, _takes_it(taken)) == (True, True)
    refused = _from_afar(here, other.ip, source=other.ip)
    assert (refused.verdict, _takes_it(refused)) == (Verdict.SOURCE_IS_LOCAL, False)
    assert not _takes_it(_from_afar(here, one.ip))
    own = mac_of(world.spaces[1], TUNNEL)
    frame = datagram(own, one.ip, other.ip, destination_mac=other.mac)
    looped = here.explain(None, frame=frame, outer="192.0.2.9", vni=7)
    assert (looped.ok, looped.steps[-1].looked_at, _takes_it(looped)) == (False, "tunnel", False)
    here.update(shortcut="off")
    assert not _takes_it(_from_afar(here, other.ip, source=one.ip))


def test_without_an_ipsec_policy_alone(encap: EncapName) -> None:
    """A policy that packets must come encrypted would be gone past: so it is off, and one that stands is told."""
    policy = ("ip", "xfrm", "policy")
    rule = (
        "src",
        "192.0.2.0/24",
        "dst",
        "192.0.2.0/24",
        "dir",
        "in",
        "tmpl",
        "proto",
        "esp",
        "mode",
        "transport",
    )
    with World(encap, hosts=1, shortcut="auto") as world:
        (host,) = world.hosts
        world.network(NET)
        member = world.member(host, NET, 2)
        host.namespace.run(*policy, "add", *rule)
        assert kinds(host.agent.check()) == {FindingKind.SHORTCUT_UNWANTED}
        state = host.agent.state().shortcut
        assert (state.on, "IPsec" in state.reason) == (True, True)
        assert _takes_it(_from_afar(host.agent, member.ip))
        with mz.Host.open(netns=host.namespace.name) as machine:
            machine.repair()
        state = host.agent.state().shortcut
        assert (state.on, "IPsec" in state.reason) == (False, True)
        assert not _takes_it(_from_afar(host.agent, member.ip))
        host.namespace.run(*policy, "flush")
        host.agent.update(shortcut="auto")
        assert host.agent.state().shortcut.on


def test_programs_of_others_come_behind_it(world: World) -> None:
    host = world.hosts[0]
    host.agent.update(shortcut="auto")
    ids = host.tunnel._host.run(TcxHook(device(host.namespace, UNDERLAY).ifindex, Direction.INGRESS).query)
    assert [ids.program_ids[0]] == program_on(host)
