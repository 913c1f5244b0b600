# SPDX-License-Identifier: Apache-2.0
"""Frames of packet sockets that are too short or too long: what the kernel refuses itself, and what is left."""

from __future__ import annotations

import pytest

from mizarnet import Verdict
from tests.frames import VIRTUAL, datagram
from tests.netns.hostile.endpoint.lengths import SUPER_FRAMES, long_frames
from tests.netns.hostile.endpoint.net import Neighbourhood
from tests.netns.hostile.endpoint.shapes import TAGS, tagged
from tests.netns.hostile.endpoint.trial import (
    Facts,
    Kind,
    PacketSocket,
    Shot,
    assert_all_refused,
    shots_of,
    undisturbed,
)
from tests.support.flood import frame_count

ETHERNET = 14


@pytest.fixture
def sender(hood: Neighbourhood) -> PacketSocket:
    return PacketSocket(hood.sender.endpoint, hood.sender.namespace)


def shorter_than_a_header(facts: Facts) -> list[Shot]:
    frame = datagram(facts.mac, facts.ip, facts.hood.near.ip, destination_mac=VIRTUAL)
    return [Shot(Verdict.TRUNCATED, frame[:length]) for length in range(1, ETHERNET)]


@pytest.mark.parametrize(
    ("kind", "error"),
    [(shorter_than_a_header, "EINVAL"), (long_frames, "EMSGSIZE")],
    ids=["too short", "too long"],
)
def test_the_kernel_itself_refuses(hood: Neighbourhood, sender: PacketSocket, kind: Kind, error: str) -> None:
    shots, count = shots_of(kind, hood, sender.endpoint), frame_count(routed=True)
    with undisturbed(hood):
        flooded = sender.flood(shots, count)
    assert flooded.refused == {error: count}


def test_a_tag_makes_room_for_four_bytes_and_is_refused(hood: Neighbourhood, sender: PacketSocket) -> None:
    """The only frames longer than others that the kernel lets out."""
    payload = bytes(hood.first.tunnel.mtu - 28)
    frame = datagram(hood.sender.mac, hood.sender.ip, hood.near.ip, destination_mac=VIRTUAL, payload=payload)
    shots = [Shot(Verdict.VLAN_TAGGED, tagged(frame, (TAGS[0], number))) for number in range(300)]
    assert_all_refused(hood, sender, shots)


@pytest.mark.parametrize("name", SUPER_FRAMES)
def test_super_frames(hood: Neighbourhood, name: str) -> None:
    sender = PacketSocket(hood.sender.endpoint, hood.sender.namespace, offload=True)
    shots = shots_of(SUPER_FRAMES[name], hood, sender.endpoint)
    assert_all_refused(hood, sender, shots, count=frame_count(routed=True))
