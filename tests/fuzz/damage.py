# SPDX-License-Identifier: Apache-2.0
"""What is done to a good frame: bits and bytes changed, put in, taken out, cut off; two made one."""

from __future__ import annotations

import random

from tests.fuzz.frames import LONGEST, SHORTEST
from tests.fuzz.pools import PICK

_INTERESTING = bytes.fromhex(
    "000102040506080b101114202a2b2c3132333a3b3c3f404145466080818688a8ac7f83848485888990c0dde0e1eff0f1f7f8fdfeffff"
)
_VALUES = (_INTERESTING * 2)[:64]


class Damage:
    """Breaks frames."""

    def __init__(self, rng: random.Random) -> None:
        self._bits = rng.getrandbits

    def mutated(self, frame: bytes) -> bytes:
        """One to three changes, most of them in headers."""
        bits = self._bits
        made = bytearray(frame)
        for _ in range((1, 1, 2, 3)[bits(2)]):
            self._change(made)
        return bytes(made[:LONGEST]) if len(made) >= SHORTEST else frame

    def _change(self, made: bytearray) -> None:
        bits = self._bits
        length = len(made)
        at = bits(PICK) if bits(2) else bits(12)
        if at >= length:
            at = bits(12) % length
        kind = bits(4)
        if kind < 6:
            made[at] ^= 1 << bits(3)
        elif kind < 11:
            made[at] = _VALUES[bits(PICK)] if bits(2) else bits(8)
        elif kind == 11:
            made[at:at] = bits(32).to_bytes(4, "big")[: 1 + bits(2)]
        elif kind == 12:
            del made[at : at + 1 + bits(3)]
        else:
            del made[SHORTEST + bits(7) :]

    def spliced(self, one: bytes, other: bytes) -> bytes:
        """The head of one and the tail of another, mostly at the same place."""
        bits = self._bits
        at = SHORTEST + bits(PICK)
        return (one[:at] + other[at if bits(1) else SHORTEST + bits(PICK) :])[:LONGEST]
