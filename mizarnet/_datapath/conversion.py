# SPDX-License-Identifier: Apache-2.0
"""Structures of an older schema as this package has them: members go by their names.

What only the new structure has becomes zero, which every schema takes for "as before" or "none". What only the old one
has is dropped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

import attrs

from mizarnet._kernel.bpf import StructLayout
from mizarnet._model.layout import Leaf
from mizarnet._model.layouts import LAYOUTS
from mizarnet.errors import LayoutError

_STRUCT = "struct "


def leaves(layouts: Mapping[str, StructLayout], name: str) -> Iterator[Leaf]:
    """Members at every depth of a structure, as the compiler laid it out.

    Args:
        layouts: All structures of the object.
        name: Name of the structure.
    """
    return _leaves(layouts, layouts[name], "", 0)


def _leaves(
    layouts: Mapping[str, StructLayout], layout: StructLayout, prefix: str, base: int
) -> Iterator[Leaf]:
    for member in layout.members:
        path, offset = prefix + member.name, base + member.offset
        match = re.fullmatch(r"struct (\w+)(?:\[(\d+)\])?", member.type)
        if match is None:
            yield Leaf(path, offset, member.size)
            continue
        inner, count = layouts[match[1]], match[2]
        for index in range(int(count or 1)):
            dotted = f"{path}[{index}]." if count else f"{path}."
            yield from _leaves(layouts, inner, dotted, offset + index * inner.size)


@attrs.frozen
class _Move:
    """Bytes that stand at one place in the old structure and at another in the new one."""

    old: int
    new: int
    size: int


@attrs.frozen
class Conversion:
    """The way from one structure to another.

    Attributes:
        size: Bytes of the new structure.
        moves: Bytes that are kept.
        cut: Places in the old structure that must be zero, as the new one has no room for them.
        whole: Whether the structure is the same in both.
    """

    size: int
    moves: tuple[_Move, ...]
    cut: tuple[range, ...]
    whole: bool

    @classmethod
    def of(cls, kind: str, layouts: Mapping[str, StructLayout], *, before: int, after: int) -> Conversion:
        """The way from a C type of the old object to the same type of this package.

        Args:
            kind: The type, such as ``"struct mzn_endpoint"``; one without members is only made wider.
            layouts: Structures of the old object.
            before: Bytes of the old type.
            after: Bytes that the new one must have.

        Raises:
            LayoutError: This package has no such type.
        """
        name = kind.removeprefix(_STRUCT)
        ours = LAYOUTS.get(name) if kind.startswith(_STRUCT) else None
        if ours is not None and name in layouts:
            old, new = [*_named(leaves(layouts, name))], [*_named(ours.leaves())]
            size = ours.size
        else:
            old, new = [Leaf("", 0, before)], [Leaf("", 0, after)]
            size = after if not kind.startswith(_STRUCT) else -1
        if size != after:
            difference = f"{kind} of {before} bytes"
            raise LayoutError(
                f"this package does not know how {difference} became {after} bytes",
                struct=name,
                differences=[difference],
                hint="go by a version of mizarnet in between, or delete the tunnel with force=True",
            )
        there = {leaf.path: leaf for leaf in old}
        pairs = [(there[leaf.path], leaf) for leaf in new if leaf.path in there]
        return cls(
            size=after,
            moves=tuple(
                _joined(_Move(one.offset, other.offset, min(one.size, other.size)) for one, other in pairs)
            ),
            cut=tuple(
                range(one.offset + other.size, one.offset + one.size)
                for one, other in pairs
                if one.size > other.size
            ),
            whole=(before, old) == (after, new),
        )

    def __call__(self, data: bytes) -> bytes:
        """The new bytes of an old value; raises ``LayoutError`` if they would lose something."""
        if any(data[at] for places in self.cut for at in places):
            raise LayoutError(
                f"an entry of {len(data)} bytes is too long for this package's {self.size}",
                struct="maps",
                differences=[data.hex()],
            )
        made = bytearray(self.size)
        for move in self.moves:
            made[move.new : move.new + move.size] = data[move.old : move.old + move.size]
        return bytes(made)


def _named(found: Iterable[Leaf]) -> Iterator[Leaf]:
    """The members that mean something; padding is named so."""
    return (leaf for leaf in found if not leaf.path.rpartition(".")[2].startswith("pad"))


def _joined(moves: Iterable[_Move]) -> Iterator[_Move]:
    """The same moves, with neighbours in one, since there may be very many entries."""
    last: _Move | None = None
    for move in moves:
        if last and (last.old + last.size, last.new + last.size) == (move.old, move.new):
            last = _Move(last.old, last.new, last.size + move.size)
            continue
        if last:
            yield last
        last = move
    if last:
        yield last
