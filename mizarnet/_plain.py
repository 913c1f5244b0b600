# SPDX-License-Identifier: Apache-2.0
"""The forms of a value that leave Python: for JSON, and for people."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from typing import Any, cast


def plain(value: object) -> Any:
    """``value`` made of dictionaries, lists, text, numbers, booleans and None alone.

    An enumeration becomes its value, or its name in lower case where that is a number; an address becomes text, bytes
    in hexadecimal; an object with ``to_dict`` that; a pair that is a key becomes ``"<vni>/<address>"``.
    """
    if isinstance(value, enum.Enum):
        return value.value if isinstance(value.value, str) else value.name.lower()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, bytes):
        return value.hex()
    own = getattr(value, "to_dict", None)
    if own is not None:
        return own()
    if isinstance(value, Mapping):
        return {_key(key): plain(each) for key, each in cast("Mapping[object, object]", value).items()}
    if isinstance(value, (tuple, list)):
        return [plain(each) for each in cast("Iterable[object]", value)]
    if isinstance(value, (set, frozenset)):
        return sorted(map(plain, cast("Iterable[object]", value)))
    return str(value)


def _key(key: object) -> str:
    return "/".join(map(str, cast("tuple[object, ...]", key))) if isinstance(key, tuple) else str(plain(key))


def text(value: object) -> str:
    """A value as people read it: an address or enumeration by its name, several in a line, ``-`` for none."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    form = plain(value)
    if form in (None, [], {}):
        return "-"
    if isinstance(form, dict):
        pairs = cast("Mapping[str, object]", form).items()
        return ", ".join(f"{name} {text(each)}" for name, each in pairs if each not in (None, []))
    return ", ".join(map(text, cast("list[object]", form))) if isinstance(form, list) else str(form)
