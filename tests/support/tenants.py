# SPDX-License-Identifier: Apache-2.0
"""Three tenants on two hosts, two of them with the same addresses."""

from __future__ import annotations

import attrs

from tests.support.topology import Container, Host, World

BLUE, GREEN, RED = 7, 8, 9


@attrs.frozen
class Net:
    """Two tenants with the same addresses: 1 and 2 on the first host, 3 on the second; a third tenant alone."""

    world: World
    blue1: Container
    blue2: Container
    blue3: Container
    green1: Container
    green3: Container
    red1: Container

    @property
    def first(self) -> Host:
        return self.world.hosts[0]

    @property
    def second(self) -> Host:
        return self.world.hosts[1]

    @classmethod
    def on(cls, world: World) -> Net:
        """Make their containers."""
        first, second = world.hosts
        return cls(
            world=world,
            blue1=world.container(first, BLUE, "10.0.0.1/24"),
            blue2=world.container(first, BLUE, "10.0.0.2/24"),
            blue3=world.container(second, BLUE, "10.0.0.3/24"),
            green1=world.container(first, GREEN, "10.0.0.1/24"),
            green3=world.container(second, GREEN, "10.0.0.3/24"),
            red1=world.container(first, RED, "10.0.0.9/24"),
        )
