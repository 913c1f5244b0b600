# SPDX-License-Identifier: Apache-2.0
"""The content of an agent's maps, to prove that a failure changed nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import mizarnet as mz

WRITTEN = ("endpoints", "senders", "networks", "peers", "records", "items", "addresses")


def contents(agent: mz.TransitAgent) -> dict[str, dict[bytes, bytes]]:
    """Every entry of every map that user space writes."""
    return {name: dict(getattr(agent._datapath.maps, name).items()) for name in WRITTEN}


@contextmanager
def unchanged(agent: mz.TransitAgent) -> Iterator[None]:
    """Whatever happens in the block, the maps are afterwards as they were before."""
    before = contents(agent)
    yield
    assert contents(agent) == before
