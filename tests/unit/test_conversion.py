# SPDX-License-Identifier: Apache-2.0
"""Structures of an older schema become this package's, member by member."""

from __future__ import annotations

import struct

import pytest

import mizarnet as mz
from mizarnet._datapath.conversion import Conversion
from mizarnet._kernel.bpf import Member, StructLayout
from mizarnet._model.layouts import COUNTER, SLOT, SWITCHING


def of(name: str, *members: tuple[str, str, int]) -> dict[str, StructLayout]:
    """A structure of an older object: its members by name, C type and bytes."""
    placed: list[Member] = []
    offset = 0
    for each, kind, size in members:
        placed.append(Member(each, offset, size, kind))
        offset += size
    return {name: StructLayout(name, offset, tuple(placed))}


def test_members_go_by_their_names() -> None:
    """Moved, widened, new and dropped ones."""
    before = of("mzn_switching", ("generation", "__u16", 2), ("gone", "__u16", 2), ("ifindex", "__u32", 4))
    way = Conversion.of("struct mzn_switching", before, before=8, after=SWITCHING.size)
    assert not way.whole
    assert SWITCHING.unpack(way(struct.pack("=HHI", 7, 99, 5))) == (5, 0, 7)


def test_the_same_layout_is_told_from_another_one_of_the_same_size() -> None:
    pair = ("packets", "__u64", 8), ("bytes", "__u64", 8)
    for members, whole in ((pair, True), (pair[::-1], False)):
        layouts = of("mzn_counter", *members)
        assert Conversion.of("struct mzn_counter", layouts, before=16, after=COUNTER.size).whole == whole


def test_padding_is_no_member() -> None:
    """What it holds is not carried over, and another name of it makes no other layout."""
    layouts = of("mzn_mac", ("bytes", "__u8[6]", 6), ("pad1", "__u16", 2))
    way = Conversion.of("struct mzn_mac", layouts, before=8, after=8)
    assert way.whole
    assert way(b"abcdefgh") == b"abcdef\0\0"


def test_a_member_that_becomes_shorter_must_have_had_the_room_free() -> None:
    layouts = of("mzn_slot", ("instance", "__u64", 8), ("record", "__u8[20]", 20))
    way = Conversion.of("struct mzn_slot", layouts, before=28, after=SLOT.size)
    assert way(bytes(8) + b"r" * 16 + bytes(4)) == bytes(8) + b"r" * 16
    with pytest.raises(mz.LayoutError, match="too long"):
        way(bytes(8) + b"r" * 17 + bytes(3))


def test_a_number_is_made_wider() -> None:
    assert Conversion.of("__u32", {}, before=4, after=8)(b"\1\2\3\4") == b"\1\2\3\4\0\0\0\0"


def test_a_structure_that_this_package_does_not_have_is_refused() -> None:
    layouts = of("mzn_flow", ("state", "__u32", 4))
    with pytest.raises(mz.LayoutError, match="struct mzn_flow of 4 bytes became 8"):
        Conversion.of("struct mzn_flow", layouts, before=4, after=8)
