# SPDX-License-Identifier: Apache-2.0
"""Two hosts with a container each, for tests of who owns what stands on the hooks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager

import attrs
import pytest

import mizarnet as mz
from tests.support.stream import Stream, stream
from tests.world import Container, Host, World


@attrs.frozen
class Scene:
    """``web`` on the first host, ``db`` on the second."""

    world: World
    web: Container
    db: Container

    @property
    def host(self) -> Host:
        """The host whose hooks a test changes."""
        return self.web.host

    @property
    def agent(self) -> mz.TransitAgent:
        """Its agent."""
        return self.host.agent

    def stream(self) -> AbstractContextManager[Stream]:
        """Honest and foreign packets to ``web``."""
        return stream(self.web, self.world.spaces[1], self.world.encap)

    @classmethod
    def in_(cls, world: World) -> Scene:
        """Make the containers."""
        first, second = world.hosts
        web = world.container(first, 7, "10.0.0.1/24", name="web")
        return cls(world, web, world.container(second, 7, "10.0.0.2/24", name="db"))


@pytest.fixture
def scene() -> Iterator[Scene]:
    """New hosts for one test."""
    with World("vxlan") as world:
        yield Scene.in_(world)


@pytest.fixture(scope="module")
def shared_scene() -> Iterator[Scene]:
    """Hosts that the tests of a module leave as they found them."""
    with World("vxlan") as world:
        yield Scene.in_(world)
