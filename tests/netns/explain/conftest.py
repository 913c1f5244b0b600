# SPDX-License-Identifier: Apache-2.0
"""Three hosts with containers, whose packets are explained and sent."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import pytest

import mizarnet as mz
from tests.support.icmp import family_of
from tests.support.namespace import Namespace
from tests.world import Container, World

PORT = 9
BOTH = ("fd00::1/64", "fd00::2/64")
GATEWAY = "10.0.0.254"


def is_heard(there: Namespace, ip: str, send: Callable[[], object], *, timeout: float = 0.3) -> bool:
    """Whether a datagram comes to a namespace once it is sent, to ``PORT`` of an address of either version."""
    family = family_of(ip)
    with there.socket(family, socket.SOCK_DGRAM) as listener:
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(("", PORT))
        listener.settimeout(timeout)
        send()
        try:
            listener.recv(1 << 16)
        except TimeoutError:
            return False
    return True


def say(source: Namespace, to: str, *, size: int = 0) -> None:
    """Send a datagram with so many bytes."""
    with source.socket(family_of(to), socket.SOCK_DGRAM) as speaker:
        speaker.sendto(bytes(size), (to, PORT))


@attrs.frozen
class Scene:
    """``web`` on the first of three hosts, ``db`` on the second; all hosts know both.

    Attributes:
        world: The hosts.
        web: Sender of most packets.
        db: Their receiver.
    """

    world: World
    web: Container
    db: Container

    @classmethod
    def in_(cls, world: World) -> Scene:
        """Make the containers."""
        first, second, _ = world.hosts
        web = world.container(first, 7, ("10.0.0.1/24", BOTH[0]), name="web", gateway=(GATEWAY, "fd00::fe"))
        return cls(world, web, world.container(second, 7, ("10.0.0.2/24", BOTH[1]), name="db"))

    @property
    def agents(self) -> list[mz.TransitAgent]:
        """Agents of the hosts."""
        return [host.agent for host in self.world.hosts]

    def name(self, number: int) -> str:
        """Name of a host in explanations: h1, h2 or h3."""
        return self.world.spaces[number - 1].name

    def explain(self, to: str | mz.Endpoint | None = "10.0.0.2", **question: Any) -> mz.Explanation:
        """What becomes of a packet of ``web``, on all hosts."""
        return mz.explain_path(self.agents, "web", to, **question)

    def hears(self, *, timeout: float = 0.3) -> bool:
        """Whether a datagram of ``web`` comes to ``db``."""
        to = self.db.ip
        return is_heard(self.db.namespace, to, lambda: say(self.web.namespace, to), timeout=timeout)


@pytest.fixture
def scene() -> Iterator[Scene]:
    """New hosts, for a test that breaks them."""
    with World("vxlan", hosts=3) as world:
        yield Scene.in_(world)


@pytest.fixture(scope="module")
def healthy() -> Iterator[Scene]:
    """Hosts that the tests of a module share."""
    with World("vxlan", hosts=3) as world:
        made = Scene.in_(world)
        for agent in made.agents:  # what is loaded once is no leak of a test
            agent.explain("10.0.0.1", "10.0.0.2", vni=7, outer="192.0.2.9")
        yield made
