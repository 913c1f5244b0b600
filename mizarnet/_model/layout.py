# SPDX-License-Identifier: Apache-2.0
"""The layout of a C structure as Python packs it, to be compared with the compiler's view in BTF."""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar, cast

import attrs

from mizarnet.errors import LayoutError

T = TypeVar("T")
A = TypeVar("A", bound=attrs.AttrsInstance)


class _New(Protocol):
    def __call__(self, kind: type[T], values: tuple[Any, ...], /) -> T: ...


new: _New = cast("Any", tuple).__new__
"""A maker of named tuples from values that are right, in half the time that their class takes."""


def checked(kind: type[T], /, **values: Any) -> T:
    """An instance of an attrs class from values that passed its checks before, in a tenth of the time these take.

    Args:
        kind: The class.
        values: A value for each of its attributes.
    """
    made = object.__new__(kind)
    for name, value in values.items():
        object.__setattr__(made, name, value)
    return made


def varied(made: A, /, **values: Any) -> A:
    """An instance of an attrs class like another one, but for some values that passed its checks before."""
    kept = {field.name: getattr(made, field.name) for field in attrs.fields(type(made))}
    return checked(type(made), **{**kept, **values})


def u32(number: int) -> bytes:
    """``__u32``: the key of an array, or a value that is a number, in this machine's byte order."""
    return number.to_bytes(4, sys.byteorder)


def u64(number: int) -> bytes:
    """``__u64``, in this machine's byte order."""
    return number.to_bytes(8, sys.byteorder)


def read_number(data: bytes) -> int:
    """The reverse of `u32` and `u64`, whatever the width; 0 if there are no bytes."""
    return int.from_bytes(data, sys.byteorder)


def cut(packed: bytes, size: int) -> Iterator[bytes]:
    """The pieces of one size that bytes consist of: far quicker than slices where they are many."""
    return chain.from_iterable(struct.Struct(f"{size}s").iter_unpack(packed))


Field: TypeAlias = "tuple[str, str] | tuple[str, Layout] | tuple[str, Layout, int]"


class Leaf(NamedTuple):
    """A member that has no members: where it stands, and how wide it is, in bytes."""

    path: str
    offset: int
    size: int


class Layout:
    """A C structure: its members in order, each a :mod:`struct` code, a layout, or a layout repeated.

    Packing takes the members' values flattened in order; padding (``x``) takes none.
    """

    def __init__(self, name: str, *fields: Field) -> None:
        self.name: str = name
        self._fields = fields
        self.format: str = "".join(self._codes())
        self._struct = struct.Struct("=" + self.format)
        self.size: int = self._struct.size
        self.pack: Callable[..., bytes] = self._struct.pack
        self.unpack: Callable[[bytes], tuple[Any, ...]] = self._struct.unpack
        self.iter_unpack: Callable[[bytes], Iterator[tuple[Any, ...]]] = self._struct.iter_unpack

    def _codes(self) -> Iterator[str]:
        for field in self._fields:
            kind = field[1]
            yield kind if isinstance(kind, str) else kind.format * (field[2] if len(field) == 3 else 1)

    def leaves(self) -> Iterator[Leaf]:
        """The members at every depth, padding left out."""
        return (leaf for leaf, _ in self._walk("", 0))

    def _walk(self, prefix: str, base: int) -> Iterator[tuple[Leaf, str]]:
        for field in self._fields:
            kind, path = field[1], prefix + field[0]
            if isinstance(kind, str):
                size = struct.calcsize("=" + kind)
                if not kind.endswith("x"):
                    yield Leaf(path, base, size), kind
                base += size
                continue
            count = field[2] if len(field) == 3 else 0
            for index in range(count or 1):
                yield from kind._walk(f"{path}[{index}]." if count else f"{path}.", base)
                base += kind.size

    def offset(self, path: str) -> int:
        """Bytes before the member ``path``."""
        return next(leaf.offset for leaf in self.leaves() if leaf.path == path)

    def reader(self, path: str) -> Callable[[bytes], Any]:
        """A reader of the member ``path`` of a packed structure, and nothing else of it."""
        offset, code = next((leaf.offset, code) for leaf, code in self._walk("", 0) if leaf.path == path)
        unpack_from = struct.Struct("=" + code).unpack_from
        return lambda data: unpack_from(data, offset)[0]

    def check(self, compiled: Sequence[Leaf], size: int) -> None:
        """Compares with the compiler's view of the same structure.

        Raises:
            LayoutError: They differ; names each member that does.
        """
        ours = {leaf.path: leaf for leaf in self.leaves()}
        theirs = {leaf.path: leaf for leaf in compiled if not leaf.path.rpartition(".")[2].startswith("pad")}
        differences = [
            f"{path}: Python has {_place(ours.get(path))}, the object {_place(theirs.get(path))}"
            for path in [*ours, *(path for path in theirs if path not in ours)]
            if ours.get(path) != theirs.get(path)
        ]
        if size != self.size:
            differences.append(f"size: Python has {self.size}, the object {size}")
        _raise_if(differences, self.name)


def check_numbers(name: str, ours: Mapping[str, Any], compiled: Mapping[str, int] | None) -> None:
    """Compares the members of an enumeration, by name and number; raises ``LayoutError`` if they differ."""
    theirs = compiled or {}
    differences = [
        f"{key}: Python has {ours.get(key)}, the object {theirs.get(key)}"
        for key in [*ours, *(key for key in theirs if key not in ours)]
        if ours.get(key) != theirs.get(key)
    ]
    _raise_if(differences, name)


def _place(leaf: Leaf | None) -> str:
    return f"{leaf.size} bytes at {leaf.offset}" if leaf else "nothing"


def _raise_if(differences: Sequence[str], name: str) -> None:
    if differences:
        raise LayoutError(
            f"{name} differs between this package and its BPF object: {'; '.join(differences)}",
            struct=name,
            differences=differences,
            hint="rebuild and reinstall mizarnet",
        )
