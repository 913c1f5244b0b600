# SPDX-License-Identifier: Apache-2.0
"""One world for the tests of a file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import mizarnet as mz

from .observer import build
from .world import World


@pytest.fixture(scope="module")
def observer(tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    """The compiled observer, where the kernel can load it."""
    return build(tmp_path_factory.mktemp("observer")) if mz.probe().route_identity else None


@pytest.fixture(scope="module")
def world(observer: Path | None) -> Iterator[World]:
    """Two hosts with the endpoints a, b and c, and the observers."""
    with mz.Lab(name=f"identity-{os.getpid()}") as lab:
        made = World(lab, observer)
        yield made
        made.close()


@pytest.fixture(scope="module")
def ipv6_world(observer: Path | None) -> Iterator[World]:
    """The same with IPv6."""
    with mz.Lab(name=f"identity6-{os.getpid()}") as lab:
        made = World(lab, observer, ipv6=True)
        yield made
        made.close()
