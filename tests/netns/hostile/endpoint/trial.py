# SPDX-License-Identifier: Apache-2.0
"""Very many frames of one kind: each ends at the agent under its reason, and nobody notices anything."""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

import attrs

import mizarnet as mz
from mizarnet import Verdict
from tests.netns.hostile.endpoint.net import Neighbourhood, settle
from tests.support.flood import Flooded, flood, frame_count, shares
from tests.support.namespace import Namespace
from tests.support.vmm import PLAIN, VirtioHeader

VARIANTS = 300
"""Different frames of a kind, or a few more."""
SOL_PACKET, PACKET_VNET_HDR, PACKET_QDISC_BYPASS = 263, 15, 20  # <linux/if_packet.h>
PACKET_VNET_BYTES = 10
SO_MARK = 36  # <asm-generic/socket.h>
SEED = 7348

# These are decided before the agent looks for the sender.
_BEFORE_THE_SENDER = {
    Verdict.TRUNCATED,
    Verdict.VLAN_TAGGED,
    Verdict.UNKNOWN_ETHERTYPE,
    Verdict.BAD_IPV4,
    Verdict.BAD_IPV6,
    Verdict.EXTENSION_HEADERS,
    Verdict.UNKNOWN_SENDER,
    Verdict.TUNNEL_OWN,
}


@attrs.frozen
class Shot:
    """A frame, what the agent must make of it, and what is left to do for it where a sender can say so."""

    verdict: Verdict
    frame: bytes
    header: VirtioHeader = PLAIN


class Sender(Protocol):
    """Who writes the frames, and the endpoint whose they are."""

    @property
    def endpoint(self) -> mz.Endpoint:
        """Whose namespace or tap it is."""
        ...

    @property
    def told(self) -> bool:
        """Whether the kernel tells it that a frame was dropped."""
        ...

    def flood(self, shots: Sequence[Shot], count: int) -> Flooded:
        """Send ``count`` frames, in turn."""
        ...


@attrs.frozen
class PacketSocket:
    """A process in the endpoint's namespace that may open packet sockets.

    Attributes:
        endpoint: Whose namespace it is.
        namespace: The namespace.
        bypass: Past the queueing disciplines of the endpoint's device.
        mark: Of each frame.
        offload: With headers that leave segments to be cut.
        told: The kernel tells it of drops.
    """

    endpoint: mz.Endpoint
    namespace: Namespace
    bypass: bool = False
    mark: int = 0
    offload: bool = False
    told: bool = True

    def flood(self, shots: Sequence[Shot], count: int) -> Flooded:
        """By one socket."""
        with self.namespace.packet_socket("eth0") as raw:
            raw.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, int(self.bypass))
            raw.setsockopt(SOL_PACKET, PACKET_VNET_HDR, int(self.offload))
            raw.setsockopt(socket.SOL_SOCKET, SO_MARK, struct.pack("=I", self.mark))
            header = PACKET_VNET_BYTES if self.offload else 0
            return flood(raw.fileno(), [shot.header.pack()[:header] + shot.frame for shot in shots], count)


@attrs.frozen
class Tap:
    """A VM that writes into its descriptor."""

    endpoint: mz.Endpoint
    fd: int
    told: bool = False

    def flood(self, shots: Sequence[Shot], count: int) -> Flooded:
        """Each frame with its virtio header."""
        return flood(self.fd, [shot.header.pack() + shot.frame for shot in shots], count)


@attrs.frozen
class Facts:
    """What a hostile endpoint may know: itself, and everything about everybody else. Nothing is secret here."""

    hood: Neighbourhood
    endpoint: mz.Endpoint
    random: random.Random

    @property
    def mac(self) -> bytes:
        """Its own."""
        return self.endpoint.mac.packed

    @property
    def ip(self) -> str:
        """Its own IPv4 address."""
        return str(self.endpoint.ip)

    @property
    def ipv6(self) -> str:
        """Its own IPv6 address."""
        return str(self.endpoint.spec.first[-1].ip)

    def any_mac(self) -> bytes:
        """One that no endpoint has."""
        return b"\x06" + self.random.randbytes(5)


Kind = Callable[[Facts], Sequence[Shot]]


def shots_of(kind: Kind, hood: Neighbourhood, endpoint: mz.Endpoint) -> Sequence[Shot]:
    """The frames of a kind, the same in each run."""
    return kind(facts_of(hood, endpoint))


def facts_of(hood: Neighbourhood, endpoint: mz.Endpoint) -> Facts:
    """What that endpoint knows, with the same random numbers in each run."""
    return Facts(hood, endpoint, random.Random(SEED))


def verdicts(program: Mapping[Verdict, mz.Counter]) -> dict[Verdict, int]:
    """What a program counted."""
    return {verdict: counter.packets for verdict, counter in program.items() if counter.packets}


@contextmanager
def undisturbed(hood: Neighbourhood) -> Iterator[None]:
    """Nobody receives, sends or learns anything meanwhile, and the programs behind the agent see nothing."""
    hood.forget()
    knowledge, traffic, before = hood.knowledge(), hood.traffic(), hood.world.stats()
    yield
    first, second = (now.since(then) for now, then in zip(hood.world.stats(), before, strict=True))
    behind = [verdicts(program) for program in (first.guard, second.agent, second.guard)]
    assert behind == [{}, {}, {}], f"the programs behind the agent counted {behind}"
    hood.assert_silence()
    now = hood.traffic()
    assert now == traffic, f"the victims' traffic was {traffic} and is {now}"
    known = hood.knowledge()
    assert known == knowledge, f"the victims knew {knowledge} and know {known}"
    hood.assert_awake()


def assert_refused(
    hood: Neighbourhood,
    endpoint: mz.Endpoint,
    expected: Mapping[Verdict, int],
    send: Callable[[], object],
    *,
    own: int,
) -> None:
    """The agent drops exactly that for what ``send`` sends, ``own`` of it for the endpoint; no frame is anywhere."""
    before, own_before = hood.first.agent.stats(), endpoint.stats()
    with undisturbed(hood):
        send()
        counted = verdicts(hood.first.agent.stats().since(before).agent)
        assert counted == expected, f"{counted} and not {expected}"
        now = endpoint.stats()
        assert (now.sent, now.received) == (own_before.sent, own_before.received), (
            f"{own_before} became {now}"
        )
        dropped = now.dropped.packets - own_before.dropped.packets
        assert dropped == own, f"{dropped} frames were counted as the sender's own, and not {own}"


def assert_all_refused(
    hood: Neighbourhood, sender: Sender, shots: Sequence[Shot], *, count: int | None = None
) -> None:
    """Exactly as many drops as frames, each under its reason, and no frame anywhere."""
    count = count or frame_count()
    expected = shares([shot.verdict for shot in shots], count)

    def send() -> None:
        flooded = sender.flood(shots, count)
        told = {"ENOBUFS": count} if sender.told else {}
        assert flooded.refused == told, f"the sender was told {flooded.refused}"
        print(f"{count} frames, {len(set(shots))} different, at {flooded.rate} a second: {expected}")

    assert_refused(hood, sender.endpoint, expected, send, own=_own(sender, shots, count))


def assert_delivered(hood: Neighbourhood, whose: str, send: Callable[[], object], count: int) -> None:
    """``count`` frames of the sender's arrive at that neighbour, as far as the host's queues have room, and only there.

    Nothing is opened on the way: each frame is decided once by the agent, and once by the guard of the receiver.
    """
    hood.forget()
    near, before, traffic = whose == "near", hood.world.stats(), hood.traffic()
    send()
    settle(hood.world)  # what waits in a queue may come a little later
    sent = Verdict.DELIVERED_LOCALLY if near else Verdict.ENCAPSULATED
    first, second = (now.since(then) for now, then in zip(hood.world.stats(), before, strict=True))
    assert verdicts(first.agent) == {sent: count}, f"the agent counted {verdicts(first.agent)}"
    assert verdicts(second.agent) == {}, f"the other agent counted {verdicts(second.agent)}"
    guard = first.guard if near else second.guard
    accepted = guard[Verdict.ACCEPTED_LOCALLY if near else Verdict.ACCEPTED].packets
    assert accepted > count // 2, f"only {accepted} of {count} frames came to the guard"
    assert sum(verdicts(first.guard).values()) + sum(verdicts(second.guard).values()) == accepted
    hood.assert_seen(**{whose: accepted})
    name = getattr(hood, whose).namespace.name
    changed = {victim for victim, frames in hood.traffic().items() if frames != traffic[victim]}
    assert changed == {name}, f"the agents counted frames of {changed}"


def _own(sender: Sender, shots: Sequence[Shot], count: int) -> int:
    """How many of the drops are counted for the sender: those of frames that are understood and bear its MAC."""
    mac = sender.endpoint.mac.packed
    whose = [shot.frame[6:12] == mac and not _before_the_sender(shot) for shot in shots]
    return shares(whose, count).get(True, 0)


def _before_the_sender(shot: Shot) -> bool:
    """Whether that is decided before the agent looks for the sender; what is in an ARP message is read later."""
    return shot.verdict in _BEFORE_THE_SENDER and shot.frame[12:14] != b"\x08\x06"
