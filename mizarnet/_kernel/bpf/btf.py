# SPDX-License-Identifier: Apache-2.0
"""Read BTF: layouts of structures, enumerations, and where global variables lie.

The format is described in the kernel's ``Documentation/bpf/btf.rst``. Read here, not through libbpf, because
one pass over the raw section is shorter than the calls would be.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from types import MappingProxyType

import attrs

_INT, _PTR, _ARRAY, _STRUCT, _UNION, _ENUM = 1, 2, 3, 4, 5, 6
_FWD, _TYPEDEF, _VOLATILE, _CONST, _RESTRICT = 7, 8, 9, 10, 11
_FUNC_PROTO, _VAR, _DATASEC, _DECL_TAG, _TYPE_TAG, _ENUM64 = 13, 14, 15, 17, 18, 19

_MODIFIERS = (_VOLATILE, _CONST, _RESTRICT, _TYPE_TAG)
_TAIL_SIZE = {_INT: 4, _ARRAY: 12, _VAR: 4, _DECL_TAG: 4}
_ITEM_SIZE = {_STRUCT: 12, _UNION: 12, _ENUM: 8, _FUNC_PROTO: 8, _DATASEC: 12, _ENUM64: 12}


@attrs.frozen
class Member:
    """A member of a C structure.

    Attributes:
        name: Name of the member; those of an anonymous inner structure or union are listed in its place.
        offset: Bytes from the start of the outermost structure.
        size: Size in bytes.
        type: The C type as written, such as ``"__u32"``, ``"__u8[16]"`` or ``"struct mzn_address"``.
    """

    name: str
    offset: int
    size: int
    type: str


@attrs.frozen
class StructLayout:
    """A C structure or union as the compiler laid it out; sizes and offsets in bytes."""

    name: str
    size: int
    members: tuple[Member, ...]


@attrs.frozen
class Variable:
    """A global variable: its section (``".rodata"``, ``".bss"`` …), offset in it and size, in bytes."""

    section: str
    offset: int
    size: int


@attrs.frozen
class _Type:
    kind: int
    name: str
    word: int  # size in bytes, or the id of another type
    tail: tuple[tuple[int, ...], ...]
    flagged: bool  # member offsets carry a bit-field size; enumerators are signed


class Btf:
    """The types of one BTF section."""

    def __init__(self, raw: bytes) -> None:
        """Parse ``raw``, in this machine's byte order."""
        _, _, _, header, types, types_size, strings, _ = struct.unpack_from("=HBBIIIII", raw)
        self._strings = raw[header + strings :]
        void = _Type(kind=0, name="void", word=0, tail=(), flagged=False)
        self._types = [void, *self._parse(raw[header + types :][:types_size])]

    def layouts(self) -> Mapping[str, StructLayout]:
        """Every named structure and union, by name."""
        named = [item for item in self._types if item.kind in (_STRUCT, _UNION) and item.name]
        return MappingProxyType(
            {item.name: StructLayout(item.name, item.word, tuple(self._members(item))) for item in named}
        )

    def enums(self) -> Mapping[str, Mapping[str, int]]:
        """Every enumeration by name, as enumerator to value; those without a name are joined under ``""``."""
        found: dict[str, dict[str, int]] = {}
        for item in self._types:
            if item.kind in (_ENUM, _ENUM64):
                found.setdefault(item.name, {}).update(self._enumerators(item))
        return MappingProxyType({name: MappingProxyType(values) for name, values in found.items()})

    def variables(self) -> Mapping[str, Variable]:
        """Every global variable that lies in a data section, by name."""
        return MappingProxyType(
            {
                self._types[type_id].name: Variable(section.name, offset, size)
                for section in self._types
                if section.kind == _DATASEC
                for type_id, offset, size in section.tail
            }
        )

    def type_name(self, type_id: int) -> str:
        """The C type of that id as written, such as ``"__u32"`` or ``"struct mzn_address"``."""
        item = self._types[type_id]
        if item.kind == _ARRAY:
            return self._array_name(item)
        if item.kind == _PTR:
            return f"{self.type_name(item.word)} *"
        if item.kind in _MODIFIERS:
            return self.type_name(item.word)
        prefix = {_STRUCT: "struct ", _UNION: "union ", _ENUM: "enum ", _ENUM64: "enum ", _FWD: "struct "}
        return f"{prefix.get(item.kind, '')}{item.name}".strip()

    def _parse(self, raw: bytes) -> Iterator[_Type]:
        at = 0
        while at < len(raw):
            name, info, word = struct.unpack_from("=III", raw, at)
            kind, count = info >> 24 & 0x1F, info & 0xFFFF
            item = _ITEM_SIZE.get(kind, 0)
            end = at + 12 + _TAIL_SIZE.get(kind, 0) + item * count
            step = item or _TAIL_SIZE.get(kind, 0)
            tail = tuple(struct.iter_unpack(f"={step // 4}I", raw[at + 12 : end])) if step else ()
            yield _Type(kind=kind, name=self._string(name), word=word, tail=tail, flagged=bool(info >> 31))
            at = end

    def _string(self, offset: int) -> str:
        return self._strings[offset : self._strings.index(b"\0", offset)].decode()

    def _members(self, owner: _Type, base: int = 0) -> Iterator[Member]:
        for name_offset, type_id, bits in owner.tail:
            name = self._string(name_offset)
            offset = base + ((bits & 0xFFFFFF) if owner.flagged else bits) // 8
            inner = self._types[type_id]
            if not name and inner.kind in (_STRUCT, _UNION):
                yield from self._members(inner, offset)
            else:
                yield Member(name, offset, self._size(type_id), self.type_name(type_id))

    def _enumerators(self, owner: _Type) -> dict[str, int]:
        # Compilers before clang 15 leave the sign flag of 32-bit enumerations unset, whatever the values.
        signed = owner.flagged or owner.kind == _ENUM
        return {self._string(name): _value(words, signed=signed) for name, *words in owner.tail}

    def _size(self, type_id: int) -> int:
        item = self._types[type_id]
        if item.kind == _PTR:
            return 8
        if item.kind == _ARRAY:
            element, _, count = item.tail[0]
            return self._size(element) * count
        return self._size(item.word) if item.kind in (*_MODIFIERS, _TYPEDEF, _VAR) else item.word

    def _array_name(self, item: _Type) -> str:
        """``element[outer][inner]``: an array of arrays names its own length first, as C does."""
        element, _, count = item.tail[0]
        base, bracket, inner = self.type_name(element).partition("[")
        return f"{base}[{count}]{bracket}{inner}"


def _value(words: list[int], *, signed: bool) -> int:
    """The value of an enumerator, from one (ENUM) or two (ENUM64) words."""
    value = sum(word << 32 * index for index, word in enumerate(words))
    bits = 32 * len(words)
    return value - (1 << bits) if signed and value >> bits - 1 else value
