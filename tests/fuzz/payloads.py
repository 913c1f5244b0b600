# SPDX-License-Identifier: Apache-2.0
"""What stands behind an IP header: extension headers in any order, and messages of upper protocols."""

from __future__ import annotations

import random
import struct
from typing import TypeAlias

from tests.frames import DESTINATION_OPTIONS, FRAGMENT, HOP_BY_HOP, ICMP, ICMPV6, ROUTING, TCP, UDP
from tests.frames.upper import ICMP_HEADER, TCP_HEADER, UDP_HEADER

Payload: TypeAlias = tuple[int, bytes]
"""Number of the protocol, and the bytes."""
Chain: TypeAlias = tuple[int, bytes, bytes]
"""Number of the first header; the bytes before and behind the number of what follows the last."""

AUTHENTICATION = 51
EXTENSIONS = (HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION_OPTIONS)
GRE, NOTHING, SCTP = 47, 59, 132
SUMS = (0, 0xFFFF, 0xFEFF, 0xFEFE, 0xFF00, 0x00FF, 0x0100, 0xF7FF, 0xF7FE, 0xF800, 0x07FF, 0x0800, 1, 0xFFFE)
"""Checksums that become zero or all ones when a hop is taken or an echo answered."""
_SHORT = (0, 1, 3, 4, 6, 7, 7, 7)
SIZES = (0, 0, 1, 4, 7, 8, 8, 12, 12, 16, 16, 32, 40, 56, 56, 200)

_UDP, _TCP, _ICMP = UDP_HEADER.pack, TCP_HEADER.pack, ICMP_HEADER.pack


def sum_of(rng: random.Random) -> int:
    """A checksum; most are wrong, which nobody here looks at."""
    return rng.choice(SUMS) if rng.random() < 0.4 else rng.getrandbits(16)


def _data(rng: random.Random) -> bytes:
    return rng.randbytes(rng.choice(SIZES))


def udp(rng: random.Random) -> Payload:
    data = rng.choice((_data, _data, _data, nested))(rng)
    port = rng.choice((53, 67, 547, 4789, 6081, rng.getrandbits(16)))
    return UDP, _UDP(rng.getrandbits(16), port, 8 + len(data), sum_of(rng)) + data


def nested(rng: random.Random) -> bytes:
    """A tunnel in the tunnel."""
    inner = rng.randbytes(12) + rng.choice((b"\x08\x00\x45", b"\x86\xdd\x60")) + rng.randbytes(40)
    return rng.choice((b"\x08\0\0\0", b"\0\0\x65\x58")) + rng.randbytes(3) + b"\0" + inner


def tcp(rng: random.Random) -> Payload:
    bits = rng.getrandbits
    flags = rng.choice((2, 0x10, 0x11, 0x18, 4))
    return TCP, _TCP(bits(16), bits(16), bits(32), bits(32), 0x50, flags, bits(16), sum_of(rng), 0) + _data(
        rng
    )


def echo(rng: random.Random) -> Payload:
    return icmp(rng, (8,))


def echo_ipv6(rng: random.Random) -> Payload:
    return icmpv6(rng, (128,))


def icmp(
    rng: random.Random, types: tuple[int, ...] = (0, 3, 4, 5, 8, 9, 10, 11, 12, 13, 14, 15, 17, 42, 128)
) -> Payload:
    code = rng.choice((0, 0, 0, 1, 4))
    message = _ICMP(rng.choice(types), code, sum_of(rng), rng.getrandbits(32)) + _data(rng)
    return ICMP, _maybe_short(rng, message)


def icmpv6(
    rng: random.Random, types: tuple[int, ...] = (0, 1, 2, 3, 4, 8, 127, 128, 129, 130, 132, 133, 138, 143)
) -> Payload:
    code = rng.choice((0, 0, 0, 1, 4))
    message = _ICMP(rng.choice(types), code, sum_of(rng), rng.getrandbits(32)) + _data(rng)
    return ICMPV6, _maybe_short(rng, message)


def _maybe_short(rng: random.Random, message: bytes) -> bytes:
    return message[: rng.choice(_SHORT)] if rng.random() < 0.15 else message


def other(rng: random.Random) -> Payload:
    """Protocols that nobody looks into, and numbers that mean something elsewhere."""
    protocol = rng.choice(
        (SCTP, GRE, NOTHING, ICMP, ICMPV6, 2, 4, 41, 50, 254, 255, *EXTENSIONS, rng.getrandbits(8))
    )
    return protocol, rng.randbytes(4) + _data(rng)


def large(rng: random.Random) -> Payload:
    data = rng.randbytes(rng.choice((508, 1244, 1400, 1422, 1472, 2000, 2700)))
    return UDP, _UDP(rng.getrandbits(16), 9, 8 + len(data), sum_of(rng)) + data


MIX_IPV4 = (
    (udp,) * 20 + (tcp,) * 12 + (echo,) * 14 + (icmp,) * 8 + (other,) * 6 + (icmpv6,) * 2 + (large,) * 2
)
MIX_IPV6 = (
    (udp,) * 20 + (tcp,) * 12 + (echo_ipv6,) * 14 + (icmpv6,) * 8 + (other,) * 6 + (icmp,) * 2 + (large,) * 2
)


def payloads(rng: random.Random) -> dict[int, list[Payload]]:
    """By length of address, 64 of each."""
    return {4: [make(rng) for make in MIX_IPV4], 16: [make(rng) for make in MIX_IPV6]}


# -- extension headers

_COUNTS = (1, 1, 1, 1, 1, 2, 2, 2, 3, 4, 5, 6, 6, 7, 7, 8)
_LENGTHS = (0, 0, 0, 0, 0, 0, 1, 2, 4, 7, 14, 15, 16)
_FRAGMENTS = (0, 0, 0, 1, 1, 8, 9, 0x0100, 0xFFF8, 0xFFF9, 6, 7)
"""Offset (upper 13 bits), two reserved bits, whether more follow."""


def _extension(rng: random.Random, kind: int) -> bytes:
    """All but its first byte, which says what follows."""
    if kind == FRAGMENT:
        return rng.choice(b"\0\0\0\x07\xff").to_bytes(1, "big") + struct.pack(
            "!HI", rng.choice(_FRAGMENTS), rng.getrandbits(32)
        )
    length = rng.choice(_LENGTHS) if rng.random() < 0.95 else rng.choice((31, 32, 255))
    size = 4 * (length + 2) if kind == AUTHENTICATION else 8 * (length + 1)
    if rng.random() < 0.08:  # the length lies
        size = rng.choice((4, 8, 12, 16))
    return bytes([length]) + rng.randbytes(min(size, 264) - 2)


def chain(rng: random.Random) -> Chain:
    """Of one to eight headers."""
    count = rng.choice(_COUNTS)
    kinds = [rng.choice(EXTENSIONS) for _ in range(count)]
    if rng.random() < 0.6:  # mostly without what would end the walk
        kinds = [kind if kind != FRAGMENT else DESTINATION_OPTIONS for kind in kinds]
    bodies = [_extension(rng, kind) for kind in kinds]
    before = b"".join(bytes([kind]) + body for body, kind in zip(bodies, kinds[1:], strict=False))
    return kinds[0], before, bodies[-1]


def chains(rng: random.Random) -> list[Chain]:
    """64 of them."""
    return [chain(rng) for _ in range(64)]
