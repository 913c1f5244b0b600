# SPDX-License-Identifier: Apache-2.0
"""Blocks of a capture file in the format pcapng (draft-ietf-opsawg-pcapng), as bytes in this machine's order."""

from __future__ import annotations

import struct

_SECTION, _INTERFACE, _PACKET = 0x0A0D0D0A, 1, 6
_BYTE_ORDER = 0x1A2B3C4D
_WHOLE_FILE = (1 << 64) - 1  # length of a section that is not known
_ETHERNET = 1
_END, _COMMENT, _NAME, _APPLICATION, _RESOLUTION = 0, 1, 2, 4, 9
_NANOSECONDS = b"\x09"


def section(application: str) -> bytes:
    """The block that a file begins with; ``application`` is who writes it."""
    body = struct.pack("=IHHQ", _BYTE_ORDER, 1, 0, _WHOLE_FILE)
    return _block(_SECTION, body + _options((_APPLICATION, application.encode())))


def interface(name: str, *, most: int) -> bytes:
    """The block of a place where Ethernet frames were seen, ``most`` bytes of each; frames name its number."""
    body = struct.pack("=HHI", _ETHERNET, 0, most)
    return _block(_INTERFACE, body + _options((_NAME, name.encode()), (_RESOLUTION, _NANOSECONDS)))


def packet(number: int, nanoseconds: int, data: bytes, *, length: int, comment: str) -> bytes:
    """The block of a frame.

    Args:
        number: Number of its interface, from 0.
        nanoseconds: Moment at which it was seen, since 1970 in UTC.
        data: First bytes of the frame.
        length: Length of the frame in bytes.
        comment: What is said of it.
    """
    moment = divmod(nanoseconds, 1 << 32)
    body = struct.pack("=IIIII", number, *moment, len(data), max(length, len(data)))
    return _block(_PACKET, body + _padded(data) + _options((_COMMENT, comment.encode())))


def _block(kind: int, body: bytes) -> bytes:
    size = 12 + len(body)
    return struct.pack("=II", kind, size) + body + struct.pack("=I", size)


def _options(*options: tuple[int, bytes]) -> bytes:
    packed = (struct.pack("=HH", code, len(value)) + _padded(value) for code, value in options)
    return b"".join(packed) + struct.pack("=HH", _END, 0)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
