# SPDX-License-Identifier: Apache-2.0
"""Traffic through a transit switch: on both hooks of XDP, over both families, and by the guard where XDP cannot."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from ipaddress import ip_address
from typing import Literal

import attrs
import pytest

import mizarnet as mz
from mizarnet import Stats, Verdict
from mizarnet._kernel.bpf import Program
from mizarnet._kernel.netlink import write_sysctl
from tests.frames import (
    PORTS,
    TYPE_IPV4,
    TYPE_IPV6,
    UDP,
    datagram,
    frame,
    packet,
    summed,
    tagged,
    tunnel,
    u16,
    udp,
)
from tests.support.counting import counted, refused, wait_for
from tests.support.icmp import assert_silence, echo
from tests.support.namespace import Namespace
from tests.support.native_xdp import let_pass, native_underlay
from tests.support.traffic import Capture, send_frame
from tests.world import (
    SWITCH_VERDICTS,
    UNDERLAY,
    Container,
    EncapName,
    Host,
    Subnet,
    World,
    common_tests,
    mac_of,
)

NET = Subnet(7, 1)
Mode = Literal["generic", "native"]


@attrs.frozen
class Stage:
    """Three hosts: two that know only their own endpoints and the switch, and the switch, which knows all."""

    world: World
    a: Container
    b: Container
    local: Container

    @property
    def switch(self) -> Host:
        """The host that is to be the transit switch; ``local`` is on it."""
        return self.world.hosts[2]


@pytest.fixture(scope="module", params=[4, 6], ids=["over-ipv4", "over-ipv6"])
def stage(encap: EncapName, request: pytest.FixtureRequest) -> Iterator[Stage]:
    with World(encap, hosts=3, ipv6=request.param == 6) as world:
        first, second, switch = world.hosts
        world.network(NET, switches=[switch])
        a, b, local = (world.member(host, NET, n) for n, host in enumerate((first, second, switch), 10))
        world.inform(switch)
        yield Stage(world, a, b, local)


@pytest.fixture(scope="module")
def passing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    with let_pass(tmp_path_factory.mktemp("xdp")) as program:
        yield program


@pytest.fixture(params=["generic", "native"])
def mode(request: pytest.FixtureRequest, stage: Stage, passing: Program) -> Iterator[Mode]:
    """Each hook, with an underlay on which it can transmit."""
    with ExitStack() as stack:
        if request.param == "native":
            stack.enter_context(native_underlay(stage.world, stage.switch, passing))
        yield request.param


@pytest.fixture
def switch(mode: Mode, stage: Stage) -> Iterator[mz.TransitSwitch]:
    made = mz.TransitSwitch.attach(stage.switch.agent, mode=mode)
    assert (made.created, made.mode.value) == (True, mode)
    yield made
    made.detach()


@pytest.fixture
def generic(stage: Stage) -> Iterator[mz.TransitSwitch]:
    made = mz.TransitSwitch.attach(stage.switch.agent, mode="generic")
    yield made
    made.detach()


def packets(stats: Stats) -> dict[Verdict, int]:
    """What the switch decided."""
    return {verdict: counter.packets for verdict, counter in stats.switch.items() if counter.packets}


OVERHEAD = {4: 50, 6: 70}


def addresses(frame: bytes) -> tuple[str, str] | None:
    """Source and destination of a frame with UDP in it."""
    if frame[12:14] == u16(TYPE_IPV4) and frame[23] == socket.IPPROTO_UDP:
        return str(ip_address(frame[26:30])), str(ip_address(frame[30:34]))
    if frame[12:14] == u16(TYPE_IPV6) and frame[20] == socket.IPPROTO_UDP:
        return str(ip_address(frame[22:38])), str(ip_address(frame[38:54]))
    return None


def hops(frame: bytes) -> int:
    """TTL or hop limit of a frame."""
    return frame[22] if frame[12:14] == u16(TYPE_IPV4) else frame[21]


def forget_neighbours(host: Host) -> None:
    host.namespace.run("ip", "neigh", "flush", "dev", UNDERLAY)


@pytest.mark.vm
@pytest.mark.parametrize("version", [4, 6])
def test_t40_common_tests_with_nothing_but_passes_and_bounces(
    stage: Stage, switch: mz.TransitSwitch, version: int
) -> None:
    assert echo(stage.a.namespace, stage.b.address(version))  # the neighbours are known from here on
    since = counted(stage.switch.agent, lambda: common_tests(stage.a, stage.b, version))
    decided = packets(since)
    assert decided.keys() <= SWITCH_VERDICTS
    assert decided[Verdict.BOUNCED] > 80
    # What the guard bounced is what the program left to it, by name.
    left = sum(n for verdict, n in decided.items() if verdict not in (Verdict.BOUNCED, Verdict.PASSED))
    assert since.guard[Verdict.BOUNCED].packets == left < 5


def test_endpoints_on_the_switch_host(stage: Stage, switch: mz.TransitSwitch) -> None:
    for version in (4, 6):
        since = counted(stage.switch.agent, partial(common_tests, stage.a, stage.local, version))
        assert Verdict.BOUNCED not in packets(since)
        assert since.guard[Verdict.ACCEPTED].packets > 50
        assert since.agent[Verdict.ENCAPSULATED].packets > 50


def test_a_bounced_packet_on_the_wire(stage: Stage, switch: mz.TransitSwitch) -> None:
    assert echo(stage.a.namespace, stage.b.address(4))
    with Capture(stage.b.host.namespace, UNDERLAY) as wire:
        assert echo(stage.a.namespace, stage.b.address(4))
        # The answer, on its way to the switch, comes last.
        frames = wire.until(lambda frame: addresses(frame) == (stage.b.host.address, stage.switch.address))
    bounced = [frame for frame in frames if addresses(frame) == (stage.switch.address, stage.b.host.address)]
    assert len(bounced) == 1
    inner = bounced[0][OVERHEAD[ip_address(stage.switch.address).version] :]
    assert (hops(bounced[0]), hops(inner)) == (8, 64)


@pytest.mark.vm
def test_first_packet_is_not_lost(stage: Stage, switch: mz.TransitSwitch) -> None:
    """Though the switch does not know where its host is; from the next one on the program bounces."""

    def exchange() -> None:
        assert echo(stage.a.namespace, stage.b.address(4))

    exchange()
    for _ in range(3):
        forget_neighbours(stage.switch)
        since = counted(stage.switch.agent, exchange)
        assert since.switch[Verdict.PASSED_NO_NEIGHBOUR].packets == since.guard[Verdict.BOUNCED].packets >= 1
        assert since.agent[Verdict.BOUNCE_ADMITTED] == since.guard[Verdict.BOUNCED]
    assert counted(stage.switch.agent, exchange).switch[Verdict.BOUNCED].packets == 2


@pytest.mark.vm
def test_forwarding_switched_off_by_hand(stage: Stage, generic: mz.TransitSwitch) -> None:
    version = ip_address(stage.switch.address).version
    write_sysctl(stage.switch.agent._datapath.host, f"ipv{version}/conf/{UNDERLAY}/forwarding", "0")
    assert not generic.state().forwarding
    since = counted(stage.switch.agent, lambda: common_tests(stage.a, stage.b, 4))
    assert since.switch[Verdict.BOUNCED].packets == 0
    # On the way to the guard the kernel may join segments of one stream (GRO).
    assert since.switch[Verdict.PASSED_FORWARDING_OFF].packets >= since.guard[Verdict.BOUNCED].packets > 50
    assert not refused(since.guard)


def test_without_a_switch_the_guard_bounces_alone(stage: Stage) -> None:
    since = counted(stage.switch.agent, lambda: common_tests(stage.a, stage.b, 6))
    assert packets(since) == {}
    assert since.guard[Verdict.BOUNCED].packets > 50


# -- what the program cannot see ---------------------------------------------------------------------------


def tunnel_packet(stage: Stage, payload: bytes, *, has_checksum: bool) -> bytes:
    """From the host of ``a`` to the switch, for port 9 of ``b``."""
    inner = datagram(
        stage.a.mac, stage.a.address(4), stage.b.address(4), destination_mac=stage.b.mac, payload=payload
    )
    encap = stage.switch.tunnel.encap.value
    source, local = stage.a.host.address, stage.switch.address
    body = udp(50_000, PORTS[encap], tunnel(encap, NET.vni, inner))
    if has_checksum:
        body = summed(source, local, UDP, body)
    to, sender = (mac_of(host.namespace, UNDERLAY) for host in (stage.switch, stage.a.host))
    return frame(to, sender, packet(source, local, body))


def received(namespace: Namespace, own: str, send: Callable[[], None]) -> bytes:
    """The datagram that arrives after ``send``."""
    with namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((own, 9))
        send()
        return server.recv(2048)


def test_outer_checksum_is_left_to_the_guard_on_the_generic_hook(
    stage: Stage, switch: mz.TransitSwitch, mode: Mode
) -> None:
    assert echo(stage.a.namespace, stage.b.address(4))
    frame, agent = tunnel_packet(stage, b"with a checksum", has_checksum=True), stage.switch.agent
    before = agent.stats()
    sending = stage.a.host.namespace
    data = received(stage.b.namespace, stage.b.address(4), lambda: send_frame(sending, UNDERLAY, frame))
    assert data == b"with a checksum"
    since = agent.stats().since(before)
    way = (since.switch[Verdict.PASSED_CHECKSUM].packets, since.guard[Verdict.BOUNCED].packets)
    assert way == ((1, 1) if mode == "generic" else (0, 0))
    assert since.switch[Verdict.BOUNCED].packets == (0 if mode == "generic" else 1)


def test_a_tagged_frame_stays_in_its_vlan(stage: Stage, generic: mz.TransitSwitch) -> None:
    """The kernel has taken the tag out of the bytes before the generic hook, and puts it back behind it."""
    assert echo(stage.a.namespace, stage.b.address(4))
    inside, outside = (tunnel_packet(stage, text, has_checksum=False) for text in (b"tagged", b"plain"))
    frames = (tagged(inside, (0x8100, 7)), outside)

    def send() -> None:
        for each in frames:
            send_frame(stage.a.host.namespace, UNDERLAY, each)

    before = stage.switch.agent.stats()
    assert received(stage.b.namespace, stage.b.address(4), send) == b"plain"
    assert stage.switch.agent.stats().since(before).switch[Verdict.BOUNCED].packets == 2


# -- the switch is the sender's own host -------------------------------------------------------------------


def test_switch_on_the_senders_own_host(stage: Stage, switch: mz.TransitSwitch) -> None:
    """Packets to the own address never meet the device: the agent itself finds what the switch would have found."""
    for version in (4, 6):
        since = counted(stage.switch.agent, partial(echo, stage.local.namespace, stage.b.address(version)))
        assert since.agent[Verdict.ENCAPSULATED].packets == 1
        assert Verdict.BOUNCED not in packets(since)


def test_what_the_switch_does_not_know_does_not_exist(stage: Stage, switch: mz.TransitSwitch) -> None:
    nobody, agent = NET.address(99, 4), stage.switch.agent
    since = counted(agent, lambda: assert_silence(stage.local.namespace, nobody))
    assert since.agent[Verdict.ENCAPSULATED].packets == 0
    before = agent.stats()
    assert_silence(stage.a.namespace, nobody)
    wait_for(agent, Verdict.NO_DESTINATION, before, program="guard")
    assert agent.stats().since(before).switch[Verdict.BOUNCED].packets == 0
