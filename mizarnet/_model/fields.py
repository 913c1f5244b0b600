# SPDX-License-Identifier: Apache-2.0
"""Reading values of the public interface from what TOML and JSON are made of, with the path of every error."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, TypeVar, cast

import attrs

from mizarnet.errors import InvalidTypeError, InvalidValueError, MizarnetError

_T = TypeVar("_T")


@attrs.define
class Errors:
    """Errors of one specification, by the path of the field that each is about."""

    found: dict[str, str] = attrs.field(factory=dict[str, str])

    def add(self, path: str, text: str) -> None:
        """Note an error; of several at one path the first is kept."""
        self.found.setdefault(path, text)

    def at(self, path: str, error: MizarnetError) -> None:
        """Note what a check of a value said."""
        self.add(path, str(error))


def read_table(
    cls: type[_T],
    table: object,
    path: Callable[[str], str],
    errors: Errors,
    *,
    parts: Mapping[str, Callable[[Any, str, Errors], Any]] | None = None,
    keys: Sequence[str] = (),
    hidden: Sequence[str] = (),
) -> tuple[_T | None, dict[str, Any]]:
    """An object of an attrs class, from a table of its fields.

    Args:
        cls: The class; its converters judge the values.
        table: What was read.
        path: Path of a field; of an empty name, that of the table.
        errors: Takes what is wrong.
        parts: Readers of fields that are tables themselves.
        keys: Names of fields that are not the class's, and are returned apart.
        hidden: Names of fields of the class that a table does not have.

    Returns:
        The object, None if anything is wrong with it, and the fields that are not the class's.
    """
    before = len(errors.found)
    if not isinstance(table, Mapping):
        errors.add(path(""), f"must be a table, not {_kind(table)}")
        return None, {}
    given = cast("Mapping[str, Any]", table)
    fields = {field.name: field for field in attrs.fields(cast("type[attrs.AttrsInstance]", cls))}
    known = [*keys, *(name for name in fields if name not in hidden)]
    for name in given:
        if name not in known:
            errors.add(path(name), unknown(name, known))
    for name in [*keys, *(name for name, field in fields.items() if field.default is attrs.NOTHING)]:
        if name not in given:
            errors.add(path(name), "is missing")
    values = {
        name: _value(fields[name], value, path(name), errors, (parts or {}).get(name))
        for name, value in given.items()
        if name in fields and name not in hidden
    }
    if len(errors.found) > before:
        return None, {}
    try:
        made = cls(**values)
    except (InvalidValueError, InvalidTypeError) as error:
        errors.at(path(error.argument if error.argument in values else ""), error)
        return None, {}
    return made, {name: given[name] for name in keys}


def unknown(name: str, known: Sequence[str]) -> str:
    """What to say of a field that there is not."""
    alike = get_close_matches(str(name), known, n=1)
    return "is no field; " + (f"did you mean {alike[0]}?" if alike else f"there are {', '.join(known)}")


def _value(
    field: attrs.Attribute[Any],
    value: object,
    path: str,
    errors: Errors,
    part: Callable[[Any, str, Errors], Any] | None,
) -> Any:
    if part is not None:
        return part(value, path, errors)
    convert = cast("Callable[[Any], Any] | None", cast("Any", field).converter)
    if convert is None:
        return value
    return judged(convert, value, path, errors)


def judged(convert: Callable[[Any], Any], value: object, path: str, errors: Errors) -> Any:
    """What a converter makes of a value; an error of one item of a list is told at the item."""
    try:
        return convert(value)
    except (InvalidValueError, InvalidTypeError) as error:
        if not isinstance(value, list):
            errors.at(path, error)
            return None
        before = len(errors.found)
        for number, item in enumerate(cast("Sequence[Any]", value)):
            try:
                convert([item])
            except (InvalidValueError, InvalidTypeError) as of_item:
                errors.at(f"{path}[{number}]", of_item)
        if len(errors.found) == before:  # it is about several of them together
            errors.at(path, error)
        return None


def read_list(
    value: object, path: str, errors: Errors, read: Callable[[object, str], _T | None]
) -> tuple[_T, ...]:
    """The items of a list, those that are right."""
    if not isinstance(value, (list, tuple)):
        errors.add(path, f"must be a list, not {_kind(value)}")
        return ()
    found = (read(item, f"{path}[{number}]") for number, item in enumerate(cast("list[object]", value)))
    return tuple(each for each in found if each is not None)


def _kind(value: object) -> str:
    names: dict[type[object], str] = {
        dict: "a table",
        list: "a list",
        str: "text",
        bool: "true or false",
        int: "a number",
    }
    return names.get(type(value), type(value).__name__)
