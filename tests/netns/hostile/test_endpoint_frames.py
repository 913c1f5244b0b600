# SPDX-License-Identifier: Apache-2.0
"""An endpoint with packet sockets sends what it may not, a million frames of each kind: nobody notices any of it."""

from __future__ import annotations

import pytest

from tests.netns.hostile.endpoint import neighbours, shapes, sources
from tests.netns.hostile.endpoint.net import VIRTUAL, Neighbourhood, know
from tests.netns.hostile.endpoint.trial import Kind, PacketSocket, assert_all_refused, shots_of

KINDS: dict[str, Kind] = {**sources.KINDS, **neighbours.KINDS, **shapes.KINDS}
IN_EMULATION = ("another tenant's MAC", "ND in others' names", "storms")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.vm] * (name in IN_EMULATION)) for name in KINDS]
)
def test_frames_that_may_not_leave(hood: Neighbourhood, name: str) -> None:
    sender = PacketSocket(hood.sender.endpoint, hood.sender.namespace)
    assert_all_refused(hood, sender, shots_of(KINDS[name], hood, sender.endpoint))


@pytest.mark.parametrize("name", ["a MAC that nobody has", "another tenant's MAC", "another's IPv4 address"])
def test_frames_that_bypass_the_queueing_disciplines(hood: Neighbourhood, name: str) -> None:
    sender = PacketSocket(hood.sender.endpoint, hood.sender.namespace, bypass=True)
    assert_all_refused(hood, sender, shots_of(KINDS[name], hood, sender.endpoint))


def test_a_victim_that_believed_a_lie_would_be_noticed(hood: Neighbourhood) -> None:
    """What the victims know can be changed, by those who reach them, and is compared with what they knew."""
    near, far, before = hood.near.namespace, hood.far.ip, hood.knowledge()
    know(near, far, "eth0", hood.sender.mac.hex(":"), "stale")
    assert hood.knowledge() != before
    know(near, far, "eth0", VIRTUAL.hex(":"), "stale")
    assert hood.knowledge() == before
