# SPDX-License-Identifier: Apache-2.0
"""IP packets: every field mostly good, each sometimes not, and lengths that lie."""

from __future__ import annotations

import random
import struct

from tests import frames
from tests.frames import u16
from tests.frames.internet import IPV6_HEADER
from tests.fuzz.payloads import SUMS, chains, payloads
from tests.fuzz.pools import PICK, mostly, pool
from tests.fuzz.speakers import Speaker

TYPE_IPV4, TYPE_IPV6 = u16(frames.TYPE_IPV4), u16(frames.TYPE_IPV6)
BYTES = [bytes([value]) for value in range(256)]

_START = struct.Struct("!BBHHH").pack
_REST = struct.Struct("!BBH4s4s").pack
_IPV6 = IPV6_HEADER.pack

_NEVER = -0x20000
"""Makes the length zero."""
_LIES = mostly(0, 1, -1, 4, -4, 8, -8, -16, -20, 40, 0xFFFF, _NEVER, _NEVER)
_IPV6_LIES = mostly(0, 1, -1, 4, -4, 8, -8, -16, -32, 40, 0xFFFF, _NEVER, _NEVER, _NEVER)
_TOS = mostly(0, 1, 2, 3, 0xB8, 0xFF)
_FIRST = mostly(0x45, *[0x46] * 6, *range(0x47, 0x50), 0x55, 0x65, 0x05, 0x44, 0x40, 0x41)
_FIRST_WORD = mostly(0x60000000, 0x60000001, 0x6FFFFFFF, 0x40000000, 0x70000000, 0, 0x6B800000)
_HOPS = [64] * 36 + [255] * 8 + [2] * 6 + [1] * 10 + [0] * 4
_DONT, _MORE = 0x4000, 0x2000
_FRAGMENTS = mostly(
    0, *[_DONT] * 16, _MORE, _MORE, _MORE, 1, 185, 0x1FFF, _MORE | 185, _DONT | _MORE, 0x8000, 0xC000
)


class IpFrames:
    """Makes IP packets in Ethernet frames."""

    def __init__(self, rng: random.Random) -> None:
        self._bits = rng.getrandbits
        self._payloads = payloads(rng)
        self._chains = chains(rng)
        self._sums = pool(rng, (64, SUMS))
        self._options = [rng.randbytes(max(0, 4 * units - 20)) for units in range(16)]

    def ipv4(self, of: Speaker) -> bytes:
        """A packet of any upper protocol."""
        bits = self._bits
        protocol, payload = self._payloads[4][bits(PICK)]
        start = (
            self._odd_ipv4(len(payload)) if bits(2) == 0 else _START(0x45, 0, 20 + len(payload), bits(16), 0)
        )
        first, options = start[0], b""
        if first > 0x45 and first & 0xF0 == 0x40:
            options = self._options[first & 15]
        rest = _REST(
            _HOPS[bits(PICK)], protocol, self._sums[bits(PICK)] if bits(1) else bits(16),
            of.sources[4][bits(PICK)], of.targets[4][bits(PICK)],
        )  # fmt: skip
        return of.to_macs[bits(PICK)] + of.macs[bits(PICK)] + TYPE_IPV4 + start + rest + options + payload

    def _odd_ipv4(self, payload: int) -> bytes:
        """The first eight bytes, with options, a fragment, or something wrong."""
        bits = self._bits
        first = _FIRST[bits(PICK)]
        total = max(0, max(5, first & 15) * 4 + payload + _LIES[bits(PICK)])
        return _START(first, _TOS[bits(PICK)], total & 0xFFFF, bits(16), _FRAGMENTS[bits(PICK)])

    def ipv6(self, of: Speaker) -> bytes:
        """A packet of any upper protocol, with or without extension headers."""
        bits = self._bits
        protocol, payload = self._payloads[16][bits(PICK)]
        if bits(2) == 0:
            first, before, behind = self._chains[bits(PICK)]
            payload = before + BYTES[protocol] + behind + payload
            if bits(4) == 0:
                payload = payload[: bits(5)]
            protocol = first
        return self.packet(of, protocol, payload, of.targets[16][bits(PICK)], _HOPS[bits(PICK)])

    def packet(self, of: Speaker, protocol: int, payload: bytes, to: bytes, hops: int) -> bytes:
        """An IPv6 packet with a payload."""
        bits = self._bits
        first, length = 0x60000000, len(payload)
        if bits(2) == 0:
            first, length = _FIRST_WORD[bits(PICK)], max(0, length + _IPV6_LIES[bits(PICK)]) & 0xFFFF
        header = _IPV6(first, length, protocol, hops, of.sources[16][bits(PICK)], to)
        return of.to_macs[bits(PICK)] + of.macs[bits(PICK)] + TYPE_IPV6 + header + payload

    def hidden(self, protocol: int, message: bytes) -> tuple[int, bytes]:
        """A message behind extension headers."""
        first, before, behind = self._chains[self._bits(PICK)]
        return first, before + BYTES[protocol] + behind + message
