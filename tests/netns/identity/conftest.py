# SPDX-License-Identifier: Apache-2.0
"""One scene for the tests of a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import mizarnet as mz

from .observer import build
from .scene import Scene, new_scene


@pytest.fixture(scope="module")
def observer(tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    """The compiled observer, where the kernel can load it."""
    return build(tmp_path_factory.mktemp("observer")) if mz.probe().route_identity else None


@pytest.fixture(scope="module")
def scene(observer: Path | None) -> Iterator[Scene]:
    """Two hosts with the endpoints a, b and c, and the observers."""
    with new_scene(observer) as made:
        yield made
