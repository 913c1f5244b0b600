# SPDX-License-Identifier: Apache-2.0
"""What every public object can say of itself: as a dictionary for JSON, and as a table in a notebook."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, TypeVar, cast

import attrs

from mizarnet._model.html import table
from mizarnet._model.public import public
from mizarnet._plain import plain

_T = TypeVar("_T")


@public
class Described:
    """Base of handles and values. Both forms are made of attributes: nothing is read from the kernel."""

    __slots__ = ()
    _DESCRIBED: ClassVar[tuple[str, ...]] = ()

    def to_dict(self) -> dict[str, Any]:
        """The attributes in a form that JSON can hold: addresses as text, enumerations as their values."""
        return {name: plain(getattr(self, name)) for name in self._described()}

    @classmethod
    def _described(cls) -> tuple[str, ...]:
        """Names of the attributes; those of an attrs class unless it says otherwise."""
        return cls._DESCRIBED or tuple(
            field.name for field in attrs.fields(cast("type[attrs.AttrsInstance]", cls))
        )

    def _caption(self) -> str:
        return type(self).__name__

    def _repr_html_(self) -> str:
        rows = ((name, getattr(self, name)) for name in self._described())
        return table(self._caption(), ("attribute", "value"), rows)


class Listing(list[_T]):
    """A list that shows itself in a notebook as a table, with a row for each item."""

    def __init__(self, items: Iterable[_T], *, caption: str, columns: tuple[str, ...]) -> None:
        super().__init__(items)
        self._caption = caption
        self._columns = columns

    def _repr_html_(self) -> str:
        rows = [[getattr(item, name) for name in self._columns] for item in self]
        return table(f"{self._caption}: {len(self):,}", self._columns, rows)
