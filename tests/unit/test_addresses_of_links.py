# SPDX-License-Identifier: Apache-2.0
"""What the bits of a link's address say, beside what Python's addresses say."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network

from hypothesis import example, given
from hypothesis import strategies as st

from mizarnet._kernel.netlink.addresses import Address

# Near each other, so that some overlap.
NEAR = {4: (0x0A000000, 32), 6: (0xFD00 << 112, 128)}


@st.composite
def places(draw: st.DrawFn) -> tuple[int, bytes, int]:
    """An address and the length of its prefix."""
    version = draw(st.sampled_from((4, 6)))
    base, bits = NEAR[version]
    ip = base + draw(st.integers(0, 511)) + (draw(st.integers(0, 3)) << bits - 10)
    return version, ip.to_bytes(bits // 8, "big"), draw(st.integers(0, 12) | st.integers(bits - 12, bits))


def network_of(packed: bytes, length: int) -> IPv4Network | IPv6Network:
    return ip_network((packed, length), strict=False)


@given(places(), places())
@example((4, bytes(4), 0), (4, b"\xff" * 4, 32))
@example((4, b"\x0a\0\0\x01", 24), (4, b"\x0a\0\1\x01", 24))
@example((4, b"\x0a\0\0\x01", 32), (6, b"\x0a\0\0\x01" + bytes(12), 32))
def test_an_address_overlaps_as_its_network_does(one: tuple[int, bytes, int], other: tuple[int, bytes, int]):
    version, packed, length = one
    network = network_of(*other[1:])
    expected = version == other[0] and network_of(packed, length).overlaps(network)
    assert Address(packed, length, 1, 0, 0).overlaps(network) == expected
