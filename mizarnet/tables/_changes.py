# SPDX-License-Identifier: Apache-2.0
"""What a call changed in a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import attrs

from mizarnet._model.described import Described
from mizarnet._model.public import public
from mizarnet._model.specs import EndpointKey

K = TypeVar("K")


@public
@attrs.frozen
class Changes(Described, Generic[K]):
    """Result of the methods ``sync`` and ``apply`` of ``agent.endpoints``, ``agent.networks`` and ``agent.peers``.

    Attributes:
        added: Number of entries that were added.
        changed: Number of entries that were replaced by another value, or taken over from another feed.
        removed: Number of entries that were removed.
        local: Keys that were left alone, since endpoints of this host have them; of ``agent.endpoints.apply`` only.
        refused: Keys that were left alone, since their entries belong to other feeds, with the name of each feed;
            empty: by hand. Of ``apply`` only.
    """

    added: int
    changed: int
    removed: int
    local: tuple[EndpointKey, ...] = ()
    refused: Mapping[K, str] = attrs.field(factory=dict[Any, str])
