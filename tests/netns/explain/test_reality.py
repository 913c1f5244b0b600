# SPDX-License-Identifier: Apache-2.0
"""The same frame explained and sent by a socket of its endpoint: what was explained is what the programs count."""

from __future__ import annotations

import errno
import itertools
import random
import socket
from collections.abc import Iterator
from ipaddress import ip_address

import attrs
import pytest

import mizarnet as mz
from mizarnet import Verdict
from mizarnet._datapath.dry_run import Context
from mizarnet._datapath.walk.programs import Sender
from mizarnet._model.codec import Record
from mizarnet._model.enumerations import Program
from mizarnet._model.layouts import Config as Constants
from mizarnet._model.specs import VIRTUAL_MAC
from mizarnet.agent import datapath_of
from tests.fuzz.frames import Grammar
from tests.fuzz.speakers import Directory, sender
from tests.model.state import Config, Local, Network, Remote, SenderRecord, State
from tests.support.depth import SEED, depth
from tests.support.wait import wait_until
from tests.world import Container, World, calm

LONGEST = 1464
"""Bytes that a socket may send by the endpoint's device."""
# What a frame with its endpoint's own origin can meet at the agent: docs/explain.md has the rest.
MET = {
    Verdict.ENCAPSULATED,
    Verdict.DELIVERED_LOCALLY,
    Verdict.NEIGHBOUR_ANSWERED,
    Verdict.GATEWAY_ANSWERED,
    Verdict.TRUNCATED,
    Verdict.VLAN_TAGGED,
    Verdict.UNKNOWN_ETHERTYPE,
    Verdict.BAD_IPV4,
    Verdict.BAD_IPV6,
    Verdict.BAD_ARP,
    Verdict.UNKNOWN_SENDER,
    Verdict.FOREIGN_SOURCE,
    Verdict.ARP_SPOOFED,
    Verdict.OWN_ADDRESS_ASKED,
    Verdict.NEIGHBOUR_UNKNOWN,
    Verdict.MULTICAST,
    Verdict.NO_DESTINATION,
    Verdict.HAIRPIN,
    Verdict.HOP_LIMIT,
    Verdict.NO_SWITCH,
    Verdict.BAD_ND,
    Verdict.ND_SPOOFED,
    Verdict.EXTENSION_HEADERS,
    Verdict.NO_NEXT_HOP,
}


@attrs.frozen
class Scene:
    """A container whose frames are sent, and hosts that some of them go to.

    Attributes:
        world: Three hosts.
        web: The sender.
        record: Its record.
    """

    world: World
    web: Container
    record: Record

    @property
    def agents(self) -> list[mz.TransitAgent]:
        """Agents of the hosts."""
        return [host.agent for host in self.world.hosts]

    def verdict(self, frame: bytes) -> Verdict:
        """What the agent says of a frame, by the quickest way."""
        facts = Sender(self.record, self.web.mac, self.record.ifindex).facts
        return datapath_of(self.agents[0]).rehearse(Program.AGENT, frame, Context(), facts).verdict

    def state(self) -> State:
        """What the first host's tables have, for the grammar of frames."""
        packed = datapath_of(self.agents[0]).maps.config.lookup(bytes(4)) or b""
        own = tuple((each.ip.packed, each.network.prefixlen) for each in self.record.spec.ip)
        known = SenderRecord(
            vni=7,
            number=self.record.slot,
            netns_cookie=1,
            ifindex=1,
            addresses=own,
            gateways=tuple(each.packed for each in self.record.spec.gateway or ()),
        )
        return State(
            config=Config(
                encap="vxlan",
                local=ip_address("192.0.2.1").packed,
                tunnel_mac=Constants.unpack(packed).tunnel_mac,
                virtual_mac=VIRTUAL_MAC.packed,
            ),
            senders={self.web.mac: known},
            peers=frozenset(),
            endpoints={
                (key.vni, key.ip.packed): _place(place) for key, place in self.agents[0].endpoints.items()
            },
            networks={
                (key.vni, (key.prefix.network_address.packed, key.prefix.prefixlen)): Network(
                    gateway=net.gateway and net.gateway.packed,
                    switches=tuple(each.packed for each in net.switches),
                    via=net.via and net.via.packed,
                )
                for key, net in self.agents[0].networks.items()
            },
        )


def _place(place: mz.Local | mz.Remote) -> Local | Remote:
    if isinstance(place, mz.Remote):
        return Remote(place.host.packed)
    return Local(place.slot, place.mac.packed)


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    """Hosts of which none is told everything."""
    with World("vxlan", hosts=3) as world:
        first, second, third = world.hosts
        ips = ("10.0.0.1/24", "fd00::1/64")
        web = world.container(first, 7, ips, name="web", gateway=("10.0.0.254", "fd00::fe"))
        # Nobody answers from there, so that what is counted was sent by the test.
        for host, number in ((first, 4), (second, 2)):
            space = world.namespace(f"c{number}")
            calm(space)
            own = (f"10.0.0.{number}/24", f"fd00::{number}/64")
            world.tell(world.add(host, space, vni=7, ip=own, name=f"c{number}"))
            space.run("ip", "link", "set", "eth0", "down")
        first.agent.endpoints[7, "10.0.0.7"] = mz.Remote("192.0.2.2")
        first.agent.endpoints[7, "fd00::7"] = mz.Remote("192.0.2.3")
        third.agent.endpoints[7, "fd00::7"] = mz.Remote("192.0.2.1")
        first.agent.endpoints[8, "10.0.0.8"] = mz.Remote("192.0.2.2")
        first.agent.networks.update(
            {
                (7, "10.1.0.0/16"): mz.Network(switches=["192.0.2.3"]),
                (7, "fd00:1::/32"): mz.Network(switches=["192.0.2.2"], gateway="fd00:1::1"),
                (7, "10.2.0.0/16"): mz.Network(gateway="10.2.0.1"),
                (7, "10.3.0.0/16"): mz.Network(via="10.0.0.33"),
            }
        )
        for each in world.hosts:  # what is loaded once is no leak of a test
            each.agent.explain("10.0.0.1", "10.0.0.2", vni=7, outer="192.0.2.9")
        records = datapath_of(first.agent).maps.records.items()
        record = next(found for _, data in records if (found := Record.unpack(data)).spec.name == "web")
        yield Scene(world, web, record)


def _random_frames(scene: Scene) -> Iterator[bytes]:
    """Frames of the sender that a socket can send, without end; what they may have where is chosen anew at times."""
    rng, state = random.Random(SEED), scene.state()
    ((mac, known),) = state.senders.items()
    while True:
        of = Directory(state, rng)
        grammar = Grammar(rng, [*of.macs, *of.other_macs], state.config.mtu)
        speaker = sender(of, mac, known, of.other_macs)
        made = (grammar.frame(speaker) for _ in range(200))
        yield from (frame for frame in made if len(frame) <= LONGEST)


def _frames(scene: Scene, number: int) -> list[bytes]:
    """So many random frames: for each verdict one at least."""
    others: list[bytes] = []
    by_verdict: dict[Verdict, bytes] = {}
    for frame in itertools.islice(_random_frames(scene), 100_000):
        found = scene.verdict(frame)
        if found not in by_verdict:
            by_verdict[found] = frame
        elif len(others) < number - len(MET):
            others.append(frame)
        elif by_verdict.keys() >= MET:
            return [*by_verdict.values(), *others]
    raise AssertionError(f"no frame meets {MET - by_verdict.keys()}")


def _explained(found: mz.Explanation, scene: Scene) -> list[tuple[int, str, Verdict]]:
    """Host, program and verdict of each program that the frame met, but for the answer."""
    names = {space.name: number for number, space in enumerate(scene.world.spaces[:3])}
    return sorted(
        (names[step.at], step.looked_at, step.verdict)
        for step in found.steps
        if step.looked_at in ("agent", "guard") and step.verdict is not None
    )


def _counted(before: list[mz.Stats], after: list[mz.Stats]) -> list[tuple[int, str, Verdict]]:
    found: list[tuple[int, str, Verdict]] = []
    for number, (was, now) in enumerate(zip(before, after, strict=True)):
        for program in ("agent", "guard"):
            counters = getattr(now.since(was), program)
            found += [
                (number, program, verdict)
                for verdict, counter in counters.items()
                for _ in range(counter.packets)
                # The second half of what the steps have as one: the bounced frame let out, the answer let in.
                if verdict is not Verdict.BOUNCE_ADMITTED
            ]
    return sorted(found)


def _disagreement(scene: Scene, by: socket.socket, frame: bytes) -> str:
    """What is wrong about one frame, in words; empty: nothing."""
    wanted = _explained(mz.explain_path(scene.agents, "web", frame=frame), scene)
    if wanted[0][2] in (Verdict.NEIGHBOUR_ANSWERED, Verdict.GATEWAY_ANSWERED):
        wanted = sorted([*wanted, (0, "guard", Verdict.ACCEPTED_LOCALLY)])
    before = [agent.stats() for agent in scene.agents]
    counted: list[tuple[int, str, Verdict]] = []

    def is_counted() -> bool:
        counted[:] = _counted(before, [agent.stats() for agent in scene.agents])
        return counted == wanted

    try:
        by.send(frame)
    except OSError as refused:  # what is dropped is told to the socket
        assert refused.errno == errno.ENOBUFS, frame.hex()
    try:
        wait_until(is_counted, timeout=0.3)
    except AssertionError:
        return f"{frame.hex()}: {wanted} explained, {counted} counted"
    return ""


def test_what_is_explained_is_what_is_counted(scene: Scene) -> None:
    frames = _frames(scene, depth(100, 1000))
    assert len(frames) >= depth(100, 1000)
    with scene.web.packet_socket() as by:
        found = [_disagreement(scene, by, frame) for frame in frames]
    assert [*filter(None, found)] == []
