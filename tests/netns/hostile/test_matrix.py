# SPDX-License-Identifier: Apache-2.0
"""Many VNIs with the same addresses on two hosts: everybody speaks to every address, in every way a frame can.

Frames come from packet sockets, which need no neighbour entries: the kernel has room for a thousand of them, in all
namespaces together.
"""

from __future__ import annotations

import itertools
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack

import attrs
import pytest

import mizarnet as mz
from mizarnet import Verdict
from tests.frames import BROADCAST, VIRTUAL, datagram, mac
from tests.support.traffic import assert_ping, send_raw
from tests.support.wait import wait_until
from tests.world import ADDRESSES, Container, EncapName, World

IPV4 = 0x0800
PORT = 9
ARRIVE = ("as the network has it", "to the MAC of another tenant")
TO_ALL = {
    "broadcast": BROADCAST,
    "multicast": mac("01:00:5e:00:00:01"),
    "IPv6 multicast": mac("33:33:00:00:00:01"),
}
GROUPS = ("224.0.0.1", "239.1.2.3", "255.255.255.255", "10.0.0.255")


@attrs.frozen
class Said:
    """What a datagram says of itself."""

    vni: int
    sender: int
    how: str
    to: str

    def payload(self) -> bytes:
        return f"{self.vni},{self.sender},{self.how},{self.to}".encode()

    @classmethod
    def of(cls, frame: bytes) -> Said:
        vni, sender, how, to = frame[42:].decode().split(",")
        return cls(int(vni), int(sender), how, to)


class Member:
    """One endpoint of the matrix; its socket hears every IPv4 frame that the device receives, whoever it is for."""

    def __init__(self, undo: ExitStack, container: Container, number: int) -> None:
        self.number, self.vni = number, container.endpoint.vni
        self.mac, self.ip = container.mac, container.ip
        space, name = container.namespace, container.endpoint.ifname
        self._raw = undo.enter_context(space.packet_socket(name, IPV4))
        self._raw.setblocking(False)
        # Without anybody at the port the container would answer.
        undo.enter_context(space.socket(socket.AF_INET, socket.SOCK_DGRAM)).bind(("", PORT))

    def say(self, how: str, to: str, mac: bytes) -> None:
        """Send one datagram."""
        said = Said(self.vni, self.number, how, to)
        frame = datagram(self.mac, self.ip, to, destination_mac=mac, payload=said.payload())
        send_raw(self._raw, frame)

    def heard(self) -> Iterator[Said]:
        """What has come since the last call."""
        while True:
            try:
                yield Said.of(self._raw.recv(2048))
            except BlockingIOError:
                return


@pytest.mark.parametrize("size", [pytest.param(4, marks=pytest.mark.vm), 16])
def test_everybody_hears_all_of_their_vni_and_nobody_else(encap: EncapName, size: int) -> None:
    with ExitStack() as undo:
        world = undo.enter_context(World(encap))
        members = matrix(undo, world, size)
        before = world.stats()
        for member in members:
            speak(member, members)
        heard = listen(members, count=2 * (size - 1))
        assert heard == {member: audible(member, members) for member in members}
        # Nothing else is on its way: what was heard is all that the guards let through.
        since = [now.since(then) for now, then in zip(world.stats(), before, strict=True)]
        assert passed(since, "agent") == verdicts(size)
        near, far = verdicts(size)[Verdict.DELIVERED_LOCALLY], verdicts(size)[Verdict.ENCAPSULATED]
        assert passed(since, "guard") == {Verdict.ACCEPTED_LOCALLY: near, Verdict.ACCEPTED: far}


def verdicts(size: int) -> dict[Verdict, int]:
    """What the two agents decide together."""
    half, everybody = size // 2, size * size
    return {
        Verdict.DELIVERED_LOCALLY: len(ARRIVE) * size * 2 * half * (half - 1),
        Verdict.ENCAPSULATED: len(ARRIVE) * size * 2 * half * half,
        Verdict.HAIRPIN: len(ARRIVE) * everybody,
        Verdict.MULTICAST: (len(TO_ALL) * size + len(TO_ALL) * len(GROUPS)) * everybody,
    }


def matrix(undo: ExitStack, world: World, size: int) -> list[Member]:
    """``size`` VNIs with as many endpoints each, half of each VNI on either host."""
    first, second = world.hosts
    assert_ping(first.namespace, ADDRESSES[1])  # the hosts know each other's MACs
    members: list[Member] = []
    for vni, number in itertools.product(range(1, size + 1), range(1, size + 1)):
        host = first if number <= size // 2 else second
        container = world.container(host, vni, f"10.0.0.{number}/24")
        members.append(Member(undo, container, number))
    return members


def speak(member: Member, members: list[Member]) -> None:
    """Everything that one endpoint has to say: to each address, by each kind of MAC, and to groups."""
    next_vni = member.vni % members[-1].vni + 1
    for other in members:
        if other.vni == next_vni:
            for how, mac in zip(ARRIVE, (VIRTUAL, other.mac), strict=True):
                member.say(how, other.ip, mac)
    addresses = {other.ip for other in members}
    for (how, mac), to in itertools.product(TO_ALL.items(), (*addresses, *GROUPS)):
        member.say(how, to, mac)


def audible(member: Member, members: list[Member]) -> Counter[Said]:
    """What an endpoint must hear: everybody else of its VNI, wherever they are."""
    others = (other for other in members if other.vni == member.vni and other is not member)
    return Counter(Said(member.vni, other.number, how, member.ip) for other in others for how in ARRIVE)


def listen(members: list[Member], *, count: int) -> dict[Member, Counter[Said]]:
    """What each endpoint has heard, once each has heard ``count`` datagrams or more."""
    heard: dict[Member, Counter[Said]] = {member: Counter() for member in members}

    def enough() -> bool:
        for member in members:
            heard[member].update(member.heard())
        return all(each.total() >= count for each in heard.values())

    wait_until(enough, lambda: f"not all arrived: {[each.total() for each in heard.values()]}")
    return heard


def passed(since: list[mz.Stats], program: str) -> dict[Verdict, int]:
    """What a program counted on both hosts together."""
    sums: Counter[Verdict] = Counter()
    for stats in since:
        sums.update({verdict: counter.packets for verdict, counter in getattr(stats, program).items()})
    return dict(+sums)
