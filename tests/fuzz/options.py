# SPDX-License-Identifier: Apache-2.0
"""Geneve options: good ones, critical ones, and such whose lengths do not add up."""

from __future__ import annotations

import random

MOST = 252
"""Bytes that a Geneve header has room for."""
_CRITICAL = 0x80
_UNITS = (0, 0, 1, 1, 2, 4, 15, 31)


def option_fields(rng: random.Random) -> list[bytes]:
    """16 of them, none empty, each a multiple of four bytes long."""
    return [_field(rng) for _ in range(16)]


def _field(rng: random.Random) -> bytes:
    made = b"".join(_option(rng) for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 8, 63))))[:MOST]
    if rng.random() < 0.1:  # as long as can be
        made += bytes(MOST - len(made))
    if rng.random() < 0.1:  # cut off
        made = made[: 4 * rng.randint(1, len(made) // 4)]
    return made


def _option(rng: random.Random) -> bytes:
    units = rng.choice(_UNITS)
    kind = rng.getrandbits(7) | (_CRITICAL if rng.random() < 0.05 else 0)
    said = units if rng.random() < 0.93 else rng.getrandbits(5)
    return rng.randbytes(2) + bytes([kind, rng.choice((0, 0, 0xE0, 0x20)) | said]) + rng.randbytes(4 * units)
