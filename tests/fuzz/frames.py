# SPDX-License-Identifier: Apache-2.0
"""A grammar of Ethernet frames: most get deep into the programs, the others fail at one thing each."""

from __future__ import annotations

import random

from tests.frames import u16
from tests.fuzz.frames_arp_nd import NeighbourFrames
from tests.fuzz.frames_ip import TYPE_IPV4, TYPE_IPV6, IpFrames
from tests.fuzz.pools import PICK, mostly
from tests.fuzz.speakers import Speaker
from tests.model.state import Mac

SHORTEST = 14
LONGEST = 3000
"""A test run takes no more than a page, less the room around the frame."""
PADDED = 60

_TAGS = [bytes.fromhex(tag) for tag in ("81000007", "88a80007", "91000007", "8100000088a80001")]
_OTHERS = (
    "0000 002e 05dc 0600 0801 0805 0842 6558 8035 86dc 86de 8847 8863 8864 888e 88cc 88e5 89e7 8101 ffff"
)
_ETHERTYPES = [bytes.fromhex(other) for other in _OTHERS.split()]


class Grammar:
    """Makes frames."""

    def __init__(self, rng: random.Random, macs: list[Mac], mtu: int) -> None:
        self._bits = rng.getrandbits
        self._mtu = mtu
        self._ip = IpFrames(rng)
        self._neighbours = NeighbourFrames(rng, self._ip, macs)
        self._trailers = mostly(
            b"", bytes(1), bytes(4), rng.randbytes(4), rng.randbytes(18), bytes(46), rng.randbytes(7)
        )

    def frame(self, of: Speaker) -> bytes:
        """A frame of a speaker."""
        bits = self._bits
        shape = of.shapes[bits(PICK)]
        if shape == "4":
            made = self._ip.ipv4(of)
        elif shape == "6":
            made = self._ip.ipv6(of)
        elif shape == "a":
            made = self._neighbours.arp(of)
        elif shape == "n":
            made = self._neighbours.nd(of)
        else:
            made = self._unusual(of, shape)
        made += self._trailers[bits(PICK)]
        odd = bits(5)
        if odd == 0 and len(made) < PADDED:
            return made + bytes(PADDED - len(made) + (bits(2) == 0))
        if odd == 1 and bits(1):
            return self._stretched(made)
        return made

    def _unusual(self, of: Speaker, shape: str) -> bytes:
        """With a VLAN tag, or nothing that anybody reads."""
        bits = self._bits
        made = self._ip.ipv4(of) if bits(1) else self._ip.ipv6(of)
        if shape == "v":
            return made[:12] + _TAGS[bits(2)] + made[12:]
        return made[:12] + _ETHERTYPES[bits(PICK) % len(_ETHERTYPES)] + made[14:]

    def _stretched(self, made: bytes) -> bytes:
        """To the longest that the tunnel takes, or some bytes beside; as a trailer, or with all that it says."""
        bits = self._bits
        wanted = self._mtu + 14 + bits(2) - 1
        if not len(made) < wanted <= LONGEST:
            return made
        made += bytes(wanted - len(made))
        return self._whole(made) if bits(2) else made

    def _whole(self, made: bytes) -> bytes:
        """Its length field says that all of it is the packet. IPv4 mostly forbids that others fragment it."""
        if made[12:14] == TYPE_IPV4:
            forbids = 0x40 if self._bits(2) else 0
            return made[:16] + u16(len(made) - 14) + made[18:20] + bytes([made[20] | forbids]) + made[21:]
        return made[:18] + u16(len(made) - 54) + made[20:] if made[12:14] == TYPE_IPV6 else made
