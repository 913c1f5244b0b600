# SPDX-License-Identifier: Apache-2.0
"""One scene for the tests of a file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

import mizarnet as mz
from tests.world import World

from .observer import build
from .scene import Scene


@pytest.fixture(scope="module")
def observer(tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    """The compiled observer, where the kernel can load it."""
    return build(tmp_path_factory.mktemp("observer")) if mz.probe().route_identity else None


@pytest.fixture(scope="module")
def scene(observer: Path | None) -> Iterator[Scene]:
    """Two hosts with the endpoints a, b and c, and the observers; encapsulation as a lab chooses it."""
    encap = "geneve" if mz.probe().geneve else "vxlan"
    with World(encap) as world, closing(Scene(world, observer)) as made:
        yield made


@pytest.fixture(scope="module")
def ipv6_scene(observer: Path | None) -> Iterator[Scene]:
    """The same with IPv6."""
    encap = "geneve" if mz.probe().geneve else "vxlan"
    with World(encap) as world, closing(Scene(world, observer, ipv6=True)) as made:
        yield made
