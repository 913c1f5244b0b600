# SPDX-License-Identifier: Apache-2.0
"""The one way in which objects show themselves in a notebook: a caption and a small table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import cast

from mizarnet._plain import plain

_SHOWN = 20


def table(caption: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """An HTML table of at most twenty rows, everything escaped; says how many more there are."""
    rows = list(rows)
    lines = [_row("td", row) for row in rows[:_SHOWN]]
    if len(rows) > _SHOWN:
        lines.append(f'<tr><td colspan="{len(header)}">… and {len(rows) - _SHOWN} more</td></tr>')
    return f"<table><caption>{escape(caption)}</caption>{_row('th', header)}{''.join(lines)}</table>"


def _row(tag: str, cells: Sequence[object]) -> str:
    return "<tr>" + "".join(f"<{tag}>{escape(text(cell))}</{tag}>" for cell in cells) + "</tr>"


def text(value: object) -> str:
    """A value as people read it: an address or enumeration by its name, several in a line, ``-`` for none."""
    if value is None or value == ():
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if type(value) is int:
        return f"{value:,}"
    form = plain(value)
    if isinstance(form, dict):
        pairs = cast("Mapping[str, object]", form).items()
        return ", ".join(f"{name} {text(each)}" for name, each in pairs if each not in (None, []))
    return ", ".join(map(text, cast("list[object]", form))) if isinstance(form, list) else str(form)
