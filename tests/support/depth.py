# SPDX-License-Identifier: Apache-2.0
"""How deep a test goes: far enough for every change, or, with ``MIZARNET_TEST_FULL=1``, as far as makes sense."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

FULL = os.environ.get("MIZARNET_TEST_FULL") == "1"
SEED = int(os.environ.get("MIZARNET_TEST_SEED", time.time() // 86400))
"""The day's, unless the environment says another."""


def depth(usual: int, full: int) -> int:
    """How much of something: rounds, seconds."""
    return full if FULL else usual


def some(everything: Sequence[T], one_in: int) -> list[T]:
    """A part of ``everything`` that the seed chooses, in its order; all of it at full depth."""
    if FULL:
        return [*everything]
    chosen = random.Random(SEED).sample(range(len(everything)), -(-len(everything) // one_in))
    return [everything[place] for place in sorted(chosen)]
