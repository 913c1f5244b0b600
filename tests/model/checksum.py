# SPDX-License-Identifier: Apache-2.0
"""The Internet checksum (RFC 1071), and how it changes with the bytes under it (RFC 1624).

All of it is 16-bit one's complement, where a sum is zero only if everything in it is zero.
"""

from __future__ import annotations

import struct

from tests.model.state import Ip


def internet_checksum(data: bytes) -> int:
    return ~_folded(sum(_words(data))) & 0xFFFF


def icmpv6_checksum(source: Ip, destination: Ip, message: bytes) -> int:
    """Over the pseudo-header, too: `message` has zero where the checksum will be."""
    return internet_checksum(source + destination + struct.pack("!IxxxB", len(message), 58) + message)


def changed(checksum: int, old: bytes, new: bytes) -> int:
    """RFC 1624, equation 3: HC' = ~(~HC + ~m + m'), for each word m that becomes m'."""
    total = ~checksum & 0xFFFF
    for was, becomes in zip(_words(old), _words(new), strict=True):
        total += (~was & 0xFFFF) + becomes
    return ~_folded(total) & 0xFFFF


def _words(data: bytes) -> tuple[int, ...]:
    return struct.unpack(f"!{len(data) // 2}H", data)


def _folded(total: int) -> int:
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total
