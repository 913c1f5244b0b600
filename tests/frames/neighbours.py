# SPDX-License-Identifier: Apache-2.0
"""Bodies of neighbour discovery, for `icmpv6`."""

from __future__ import annotations

from tests.frames.internet import ip

ROUTER_ADVERTISEMENT, SOLICITATION, ADVERTISEMENT, REDIRECT = 134, 135, 136, 137
SOURCE_MAC, TARGET_MAC = 1, 2


def link_option(kind: int, mac: bytes) -> bytes:
    """The option that says at which MAC its sender, or its target, is."""
    return bytes([kind, 1]) + mac


def neighbour(target: str, option: bytes = b"", *, flags: int = 0) -> bytes:
    """Who has the target? Or, of another type: the target is there."""
    return flags.to_bytes(4, "big") + ip(target) + option
