# SPDX-License-Identifier: Apache-2.0
"""While an endpoint floods, its neighbours' connections go on and lose nothing."""

from __future__ import annotations

import pytest

from tests.netns.hostile.endpoint import neighbours, shapes, sources
from tests.netns.hostile.endpoint.net import Neighbourhood
from tests.netns.hostile.endpoint.trial import shots_of, verdicts
from tests.support.flood import Flood, frame_count, shares
from tests.support.flow import Probe, Stream
from tests.support.icmp import echo

KINDS = {
    "another tenant's MAC": sources.KINDS["another tenant's MAC"],
    "storms": shapes.KINDS["storms"],
    "ARP in others' names": neighbours.KINDS["ARP in others' names"],
}


@pytest.mark.parametrize("name", KINDS)
def test_neighbours_lose_nothing_during_a_flood(hood: Neighbourhood, name: str) -> None:
    """A datagram each millisecond between hosts, a TCP stream next door, pings of both families."""
    shots, count = shots_of(KINDS[name], hood, hood.sender.endpoint), frame_count()
    before, pings = hood.first.agent.stats(), 0
    with (
        Probe(hood.other.namespace, hood.other_far.namespace, hood.other_far.ip) as probe,
        Stream(hood.far.namespace, hood.near.namespace, hood.near.ip) as stream,
        hood.sender.namespace.packet_socket("eth0") as raw,
        Flood(raw.fileno(), [shot.frame for shot in shots], count) as flood,
    ):
        while not flood.over or not pings:
            assert echo(hood.near.namespace, hood.far.ip)
            assert echo(hood.other.namespace, hood.other_far.ipv6)
            pings += 2
        flooded = flood.result()
        stream.goes_on()
        delivery = probe.result()
    print(f"{count} frames at {flooded.rate} a second; meanwhile {pings} pings and {delivery}")
    assert (delivery.lost, delivery.refused) == (0, 0)
    expected = shares([shot.verdict for shot in shots], count)
    dropped = verdicts(hood.first.agent.stats().since(before).agent)
    assert {verdict: dropped.get(verdict) for verdict in expected} == expected
