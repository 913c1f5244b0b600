# SPDX-License-Identifier: Apache-2.0
"""Two hosts for every test of this tier that asks for them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.world import Container, EncapName, Host, Tenants, World


@pytest.fixture
def world() -> Iterator[World]:
    """Two new hosts with VXLAN, for a test that changes them."""
    with World("vxlan") as made:
        yield made


@pytest.fixture
def host() -> Iterator[Host]:
    """One new host with VXLAN, for a test that changes it."""
    with World("vxlan", hosts=1) as made:
        yield made.hosts[0]


@pytest.fixture(scope="module")
def shared_world(encap: EncapName) -> Iterator[World]:
    """Two hosts that the tests of a module share, once for each encapsulation of this kernel."""
    with World(encap) as made:
        yield made


@pytest.fixture(scope="module")
def net(shared_world: World) -> Tenants:
    """Three tenants on them."""
    return Tenants.on(shared_world)


@pytest.fixture
def web(world: World) -> Container:
    """A container on the first of two new hosts; its endpoint is called ``web``."""
    return world.container(world.hosts[0], 7, "10.0.0.1/24", name="web")


@pytest.fixture(params=[4, 6], ids=["ipv4", "ipv6"])
def version(request: pytest.FixtureRequest) -> int:
    """A family: mostly that which the endpoints speak."""
    found: int = request.param
    return found
