# SPDX-License-Identifier: Apache-2.0
"""The part of gen_abi.py that reads the structures of abi.h and writes mizarnet/_model/layouts.py."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterable, Mapping
from typing import NamedTuple

STRUCT = re.compile(r"struct mzn_(\w+) \{\n(.*?)\n\};", re.DOTALL)
FIELD = re.compile(r"\t(?:struct mzn_)?(\w+) (\w+)((?:\[\w+\])*);")
COMMENT = re.compile(r" */\*.*?\*/", re.DOTALL)
CODES = {"__u16": "H", "__u32": "I", "__s32": "i", "__u64": "Q"}
SIZES = {"__u8": 1, "char": 1, "__u16": 2, "__u32": 4, "__s32": 4, "__u64": 8}
WIDTH = 110
HEAD = '''# SPDX-License-Identifier: Apache-2.0
# Generated from csrc/include/mizarnet/abi.h by tools/gen_abi.py; do not edit.
"""The structures that BPF programs and Python share: the layout of each, and its members by name.

An array of numbers is bytes, since it holds an address, a text or a secret. A structure that has one member beside its
padding is that member.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple, TypeAlias

from mizarnet._model.layout import Layout, new
from mizarnet._model.enumerations import Limit

Packed: TypeAlias = bytes
'''


class Field(NamedTuple):
    """A member of a structure: its type, its name, and the lengths in its brackets."""

    type: str
    name: str
    dimensions: list[str]

    @property
    def is_padding(self) -> bool:
        return self.name == "pad"

    @property
    def is_number(self) -> bool:
        """Whether it is a number, or an array of numbers."""
        return self.type in SIZES

    @property
    def code(self) -> str:
        """Its type in a layout, as Python source: a format of :mod:`struct`, or another layout."""
        if not self.is_number:
            return ", ".join([self.type.upper(), *(f"Limit.{_limit(each)}" for each in self.dimensions)])
        if not self.dimensions and not self.is_padding:
            return f'"{CODES[self.type]}"'
        letter = "x" if self.is_padding else "s"
        size = SIZES[self.type] * math.prod(int(each) for each in self.dimensions if each.isdigit())
        limits = [f"Limit.{_limit(each)}" for each in self.dimensions if not each.isdigit()]
        if not limits:
            return f'"{size}{letter}"'
        return f'f"{{{" * ".join([str(size)] * (size > 1) + limits)}}}{letter}"'


class Struct(NamedTuple):
    """A structure. The structures that it contains come before it in the header."""

    name: str
    fields: list[Field]

    @property
    def class_name(self) -> str:
        return "".join(word.capitalize() for word in self.name.split("_"))

    @property
    def members(self) -> list[Field]:
        return [field for field in self.fields if not field.is_padding]

    @property
    def is_one(self) -> bool:
        """Whether its only member is a number, which then stands for the structure."""
        return len(self.members) == 1 and self.members[0].is_number


class Flat(NamedTuple):
    """How a value is built from the members at every depth, and how it is taken apart, as Python source."""

    names: list[str]
    value: str
    members: list[str]


class Header:
    """The structures of the header, by name."""

    def __init__(self, text: str, limits: Mapping[str, int]) -> None:
        self._limits = limits
        self.structs: dict[str, Struct] = {}
        for name, body in STRUCT.findall(text):
            self.structs[name] = Struct(name, list(self._fields(name, body)))

    def _fields(self, owner: str, body: str) -> Iterable[Field]:
        for line in COMMENT.sub("", body).splitlines():
            found = FIELD.fullmatch(line)
            if found is None or found[1] not in {*SIZES, *self.structs}:
                raise SystemExit(
                    f"mzn_{owner}: one member on a line, of a type that is known: {line.strip()}"
                )
            yield Field(found[1], found[2], re.findall(r"\w+", found[3]))

    def annotation(self, field: Field) -> str:
        if field.is_number:
            return "bytes" if field.dimensions else "int"
        struct = self.structs[field.type]
        kind = "bytes" if struct.is_one else struct.class_name
        return f"tuple[{kind}, ...]" if field.dimensions else kind

    def flat(self, struct: Struct, owner: str, prefix: str = "") -> Flat:
        """Flatten a structure: `owner` is the value, and the names of its members begin with `prefix`."""
        parts = [self._flat_field(field, owner, prefix) for field in struct.members]
        names = [name for part in parts for name in part.names]
        members = [member for part in parts for member in part.members]
        if len(parts) == len(names):
            members = [f"*{owner}"]
        value = ", ".join(part.value for part in parts)
        return Flat(names, f"new({struct.class_name}, ({value}))", members)

    def _flat_field(self, field: Field, owner: str, prefix: str) -> Flat:
        name, value = prefix + field.name, f"{owner}.{field.name}"
        if field.is_number or self.structs[field.type].is_one:
            return Flat([name], name, [value])
        struct = self.structs[field.type]
        if not field.dimensions:
            return self.flat(struct, value, f"{name}_")
        (times,) = field.dimensions
        parts = [
            self.flat(struct, f"{value}[{n}]", f"{name}{n}_") for n in range(self._limits[_limit(times)])
        ]
        names = [name for part in parts for name in part.names]
        members = [member for part in parts for member in part.members]
        return Flat(names, f"({', '.join(part.value for part in parts)})", members)


def _limit(name: str) -> str:
    return name.removeprefix("MZN_LIMIT_")


def _layout(struct: Struct) -> str:
    parts = [f'"mzn_{struct.name}"', *(f'("{field.name}", {field.code})' for field in struct.fields)]
    line = f"{struct.name.upper()}: Final = Layout({', '.join(parts)})"
    if len(line) <= WIDTH:
        return line
    return "\n".join([f"{struct.name.upper()}: Final = Layout(", *(f"    {part}," for part in parts), ")"])


def _class(header: Header, struct: Struct) -> str:
    flat, layout = header.flat(struct, "self"), struct.name.upper()
    lines = [
        f"class {struct.class_name}(NamedTuple):",
        f'    """The members of ``mzn_{struct.name}``."""',
        "",
    ]
    lines += [f"    {field.name}: {header.annotation(field)}" for field in struct.members]
    lines += ["", "    @classmethod", f"    def unpack(cls, data: Packed) -> {struct.class_name}:"]
    lines.append('        """Of the bytes in a map."""')
    if flat.members == ["*self"]:
        lines.append(f"        return new(cls, {layout}.unpack(data))")
    else:
        lines += _wrapped("", ", ".join(flat.names), f" = {layout}.unpack(data)", bare=True)
        lines += _wrapped("return new", flat.value.removeprefix("new")[1:-1])
    lines += ["", "    def pack(self) -> Packed:", '        """The bytes in a map."""']
    lines += _wrapped(f"return {layout}.pack", ", ".join(flat.members))
    return "\n".join(lines)


def _wrapped(before: str, inside: str, after: str = "", *, bare: bool = False) -> list[str]:
    """A statement with parentheses; if it fits on one line and is `bare`, without them."""
    indent = 8 * " "
    line = f"{indent}{before}{inside if bare else f'({inside})'}{after}"
    if len(line) <= WIDTH:
        return [line]
    body = textwrap.wrap(inside, WIDTH, initial_indent=12 * " ", subsequent_indent=12 * " ")
    return [f"{indent}{before}(", *body, f"{indent}){after}"]


def render(text: str, limits: Mapping[str, int]) -> str:
    """The module, from the header's text and the numbers of its limits."""
    header = Header(text, limits)
    parts = [HEAD]
    for struct in header.structs.values():
        parts += [_layout(struct), "", ""]
        if not struct.is_one:
            parts += [_class(header, struct), "", ""]
    names = ", ".join(name.upper() for name in header.structs)
    parts.append("LAYOUTS: Final[Mapping[str, Layout]] = {")
    parts.append("    layout.name: layout")
    parts.append("    for layout in (")
    parts += textwrap.wrap(f"{names},", WIDTH, initial_indent=8 * " ", subsequent_indent=8 * " ")
    return "\n".join([*parts, "    )", "}", '"""By the name of the structure."""', ""])
