# SPDX-License-Identifier: Apache-2.0
"""The one way in which objects show themselves in a notebook: a caption and a small table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from mizarnet._plain import text

_SHOWN = 20


def table(caption: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """An HTML table of at most twenty rows, everything escaped; says how many more there are."""
    rows = list(rows)
    lines = [_row("td", row) for row in rows[:_SHOWN]]
    if len(rows) > _SHOWN:
        lines.append(f'<tr><td colspan="{len(header)}">… and {len(rows) - _SHOWN} more</td></tr>')
    title = f'<caption style="text-align: left; white-space: nowrap">{escape(caption)}</caption>'
    return f"<table>{title}{_row('th', header)}{''.join(lines)}</table>"


def _row(tag: str, cells: Sequence[object]) -> str:
    return "<tr>" + "".join(f"<{tag}>{escape(text(cell))}</{tag}>" for cell in cells) + "</tr>"
