# SPDX-License-Identifier: Apache-2.0
"""The common base of the tables whose keys are prefixes."""

from __future__ import annotations

from typing import TypeVar

from mizarnet._kernel.jobs import whole
from mizarnet._model.public import public
from mizarnet.tables._owned import Owned

K = TypeVar("K")


@public
class Prefixes(Owned[K]):
    """An LPM trie of the agent.

    All of it is read under the host's lock: a change moves nodes, and a walk along them could miss an entry.
    """

    @whole
    def _entries(self) -> list[tuple[bytes, bytes]]:
        with self._datapath.reading() as maps:
            return list(self._map(maps).items())

    def __len__(self) -> int:
        """Number of entries."""
        return len(self._entries())
