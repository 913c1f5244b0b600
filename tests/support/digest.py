# SPDX-License-Identifier: Apache-2.0
"""All that the maps of an agent hold, as a digest of each: what changes nothing leaves all of them."""

from __future__ import annotations

from hashlib import sha256

import mizarnet as mz
from mizarnet._kernel.bpf import Map, MapType
from mizarnet._model.codec import FIRST
from mizarnet.agent import datapath_of


def of_map(table: Map) -> str:
    """Digest of all entries of a map; of a map per CPU, those of all CPUs."""
    found = sha256()
    for key, value in _entries(table):
        found.update(key + value)
    return found.hexdigest()


def _entries(table: Map) -> list[tuple[bytes, bytes]]:
    if table.type is MapType.DEVMAP:  # the kernel reads no such map as a whole
        return [(FIRST, table.lookup(FIRST) or b"")]
    return sorted(table.items())


def of_agent(agent: mz.TransitAgent) -> dict[str, str]:
    """Digests of all maps of an agent, by name."""
    return {name: of_map(each) for name, each in datapath_of(agent).maps.by_name().items()}
