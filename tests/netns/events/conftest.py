# SPDX-License-Identifier: Apache-2.0
"""Containers that say nothing unasked, on hosts that the tests of a module share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.world import BLUE, GREEN, Container, World, quiet


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World("vxlan") as made:
        yield made


@pytest.fixture(scope="module")
def one(world: World) -> Container:
    return silent(world, 0, BLUE, "10.0.0.1/24", "one")


@pytest.fixture(scope="module")
def other(world: World) -> Container:
    """On the first one's host, of another tenant."""
    return silent(world, 0, GREEN, "10.0.0.2/24", "other")


@pytest.fixture(scope="module")
def near(world: World) -> Container:
    """On the first one's host, in its VNI."""
    return silent(world, 0, BLUE, "10.0.0.7/24", "near")


@pytest.fixture(scope="module")
def far(world: World) -> Container:
    """On the other host, in the first one's VNI."""
    return silent(world, 1, BLUE, "10.0.0.3/24", "far")


def silent(world: World, host: int, vni: int, ip: str, name: str) -> Container:
    made = world.container(world.hosts[host], vni, ip, name=name)
    quiet(made.namespace)
    return made
