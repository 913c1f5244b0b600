# SPDX-License-Identifier: Apache-2.0
"""While a tunnel is up there is a guard: not one packet of a foreign VNI comes through, whatever verb is at work."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import mizarnet as mz
from mizarnet._datapath.hooks import Place
from tests.netns.ownership.conftest import Scene
from tests.netns.ownership.test_taken_off import guards, offered, take
from tests.support.depth import depth
from tests.world import TUNNEL, UNDERLAY

ROUNDS = depth(4, 150)


class Owner:
    """Makes and unmakes everything on the first host, each time with new handles."""

    def __init__(self, scene: Scene, hook: str) -> None:
        self._netns = scene.host.namespace.name
        self._hook = hook
        self._web = scene.web

    def tunnel(self) -> mz.Tunnel:
        return mz.Tunnel.create(TUNNEL, encap="vxlan", underlay=UNDERLAY, netns=self._netns)

    def make(self) -> mz.TransitAgent:
        with self.tunnel() as tunnel:
            agent = mz.TransitAgent.attach(tunnel, hook=self._hook)  # type: ignore[arg-type]
        web = self._web.endpoint
        mz.Endpoint.create(
            agent, name="web", vni=7, ip="10.0.0.1/24", netns=self._web.namespace.name, mac=web.mac
        )
        return agent


def detach(owner: Owner, agent: mz.TransitAgent) -> None:
    agent.detach(force=True)


def delete(owner: Owner, agent: mz.TransitAgent) -> None:
    agent.tunnel.delete(force=True)


def delete_and_attach_at_once(owner: Owner, agent: mz.TransitAgent) -> None:
    delete(owner, agent)
    with owner.tunnel() as tunnel:
        mz.TransitAgent.attach(tunnel).close()
        tunnel.delete()


ENDS: list[Callable[[Owner, mz.TransitAgent], None]] = [detach, delete, delete_and_attach_at_once]


@pytest.mark.parametrize("hook", [pytest.param("auto", marks=pytest.mark.vm), "clsact"])
def test_not_one_foreign_packet_while_agents_come_and_go(scene: Scene, hook: str) -> None:
    owner = Owner(scene, hook)
    scene.agent.detach(force=True)
    with scene.stream() as packets:
        for number in range(ROUNDS):
            with owner.make() as agent:
                packets.await_honest()
                ENDS[number % len(ENDS)](owner, agent)
            packets.assert_guarded()


def test_not_one_foreign_packet_while_places_empty_and_fill(scene: Scene) -> None:
    """One guard is taken off after the other, and put back in between."""
    places = [place for place in offered() if guards([place])]
    if len(places) == 1:
        return  # before 6.6 there is one guard
    with scene.stream() as packets:
        for number in range(4 * ROUNDS):
            _take_and_put_back(scene, places[number % 2])
        packets.await_honest()


def _take_and_put_back(scene: Scene, place: Place) -> None:
    take(scene.host, [place])
    scene.agent.endpoints[7, "10.0.0.2"] = mz.Remote("192.0.2.2")
    assert all(scene.agent.state().attached.values())
