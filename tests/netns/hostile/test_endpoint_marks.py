# SPDX-License-Identifier: Apache-2.0
"""Marks and priorities that an endpoint gives its packets end at the agent: none helps it, none leaves the host."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from mizarnet._kernel.bpf import Direction
from tests.netns.hostile.endpoint import sources, tunnels
from tests.netns.hostile.endpoint.marks import Eye, Passed, Secrets, build, secrets_of, watching
from tests.netns.hostile.endpoint.net import Neighbourhood
from tests.netns.hostile.endpoint.trial import (
    SO_MARK,
    PacketSocket,
    assert_all_refused,
    assert_delivered,
    shots_of,
)
from tests.support.flood import frame_count
from tests.world import UNDERLAY

PORT = 9
PRIORITIES = (1, 6, 7, 15, 0x10001, 0x10002, 0xFFFFFFFF)


@pytest.fixture(scope="module")
def secrets(hood: Neighbourhood) -> Secrets:
    return secrets_of(hood.first)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("marks"))


@pytest.fixture
def on_the_wire(hood: Neighbourhood, program: Path) -> Iterator[Eye]:
    """Sees what the sender's host puts on the wire."""
    with watching(program, hood.first.namespace.name, UNDERLAY, Direction.EGRESS) as eye:
        yield eye


@pytest.fixture
def at_the_neighbour(hood: Neighbourhood, program: Path) -> Iterator[Eye]:
    """Sees what comes to the neighbour on the same host."""
    with watching(program, hood.near.namespace.name, "eth0", Direction.INGRESS) as eye:
        yield eye


def ways_to_mark(secrets: Secrets) -> list[tuple[int, int]]:
    """Marks and priorities: each bit alone, the secret marks, both with priorities."""
    marks = [*(1 << bit for bit in range(32)), secrets.local, secrets.bounced, 0xFFFFFFFF]
    return [(mark, PRIORITIES[place % len(PRIORITIES)]) for place, mark in enumerate(marks)]


def test_the_secrets_are_secret(hood: Neighbourhood, secrets: Secrets) -> None:
    """Different ones on each host, that no one else would use by chance."""
    found = [secrets, secrets_of(hood.second)]
    marks = {mark for each in found for mark in (each.local, each.bounced)}
    assert len(marks) == 4
    assert all(mark >> 16 for mark in marks)
    assert len({each.token for each in found}) == 2
    assert all(any(each.token) for each in found)


@pytest.mark.vm
@pytest.mark.parametrize("whose", ["near", "far"])
def test_marks_and_priorities_end_at_the_agent(
    hood: Neighbourhood, secrets: Secrets, on_the_wire: Eye, at_the_neighbour: Eye, whose: str
) -> None:
    neighbour, ways = getattr(hood, whose), ways_to_mark(secrets)
    each = max(1, frame_count(routed=True) // len(ways))
    with (
        neighbour.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        hood.sender.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        receiver.bind((neighbour.ip, PORT))
        sender.connect((neighbour.ip, PORT))

        def send() -> None:
            for mark, priority in ways:
                sender.setsockopt(socket.SOL_SOCKET, SO_MARK, struct.pack("=I", mark))
                sender.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, struct.pack("=I", priority))
                for _ in range(each):
                    sender.send(b"marked")

        assert_delivered(hood, whose, send, each * len(ways))
    eye = at_the_neighbour if whose == "near" else on_the_wire
    assert eye.passed().frames > each * len(ways) // 2
    assert eye.passed() == Passed(eye.passed().frames, marked=0, with_priority=0)


@pytest.mark.vm
def test_the_eyes_would_see_marks(hood: Neighbourhood, on_the_wire: Eye) -> None:
    with hood.first.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
        own.setsockopt(socket.SOL_SOCKET, SO_MARK, 0x4000)
        own.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, 7)
        own.sendto(b"marked", (hood.second.address, PORT))
    assert on_the_wire.passed() == Passed(frames=1, marked=1, with_priority=1)


FORGED = {
    **{name: sources.KINDS[name] for name in ("a MAC that nobody has", "another tenant's MAC")},
    **{name: sources.KINDS[name] for name in ("another's IPv4 address", "the tunnel's MAC")},
    "tunnel packets for the hosts": tunnels.KINDS["tunnel packets for the hosts"],
}


@pytest.mark.parametrize("which", ["local", "bounced"])
@pytest.mark.parametrize("name", FORGED)
def test_a_secret_mark_opens_no_way(
    hood: Neighbourhood, secrets: Secrets, on_the_wire: Eye, name: str, which: str
) -> None:
    mark = getattr(secrets, which)
    sender = PacketSocket(hood.sender.endpoint, hood.sender.namespace, mark=mark)
    assert_all_refused(
        hood, sender, shots_of(FORGED[name], hood, sender.endpoint), count=frame_count(routed=True)
    )
    assert on_the_wire.passed().marked == 0
