# SPDX-License-Identifier: Apache-2.0
"""Choosing fast: from lists of 64, six random bits are an index."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

SIZE = 64
PICK = 6
"""``pool[bits(PICK)]`` is one of them."""


def pool(rng: random.Random, *shares: tuple[int, Sequence[T]]) -> list[T]:
    """A list of 64: so many from each sequence. What an empty one lacks, the first gives."""
    chosen: list[T] = []
    for count, things in shares:
        if things:
            chosen += rng.choices(things, k=count)
    missing = SIZE - len(chosen)
    if missing < 0:
        raise ValueError("the shares are more than the pool")
    return chosen + rng.choices(shares[0][1], k=missing)


def mostly(usual: T, *rare: T) -> list[T]:
    """A list of 64: each of the rare things once, and the usual one."""
    return [usual] * (SIZE - len(rare)) + list(rare)
