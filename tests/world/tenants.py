# SPDX-License-Identifier: Apache-2.0
"""Three tenants on two hosts, two of them with the same addresses."""

from __future__ import annotations

import attrs

from tests.world.container import Container, Host
from tests.world.world import World

BLUE, GREEN, RED = 7, 8, 9


@attrs.frozen
class Tenants:
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
    def on(cls, world: World) -> Tenants:
        """Make their containers."""
        first, second = world.hosts
        places = {
            "blue1": (first, BLUE, 1), "blue2": (first, BLUE, 2), "blue3": (second, BLUE, 3),
            "green1": (first, GREEN, 1), "green3": (second, GREEN, 3), "red1": (first, RED, 9),
        }  # fmt: skip
        return cls(
            world,
            **{
                name: world.container(host, vni, f"10.0.0.{number}/24")
                for name, (host, vni, number) in places.items()
            },
        )
