# SPDX-License-Identifier: Apache-2.0
"""The one way in which objects show themselves in a notebook: a caption and a small table."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from mizarnet._plain import text

_SHOWN = 20


def table(
    caption: str, header: Sequence[str], rows: Iterable[Sequence[object]], *, marked: Collection[int] = ()
) -> str:
    """An HTML table of at most twenty rows, everything escaped; says how many more there are.

    Args:
        caption: What stands above it.
        header: The names of the columns.
        rows: The rows.
        marked: Numbers of the rows to stand out.
    """
    rows = list(rows)
    lines = [_row("td", row, marked=number in marked) for number, row in enumerate(rows[:_SHOWN])]
    if len(rows) > _SHOWN:
        lines.append(f'<tr><td colspan="{len(header)}">… and {len(rows) - _SHOWN} more</td></tr>')
    title = f'<caption style="text-align: left; white-space: nowrap">{escaped(caption)}</caption>'
    return f"<table>{title}{_row('th', header)}{''.join(lines)}</table>"


def _row(tag: str, cells: Sequence[object], *, marked: bool = False) -> str:
    style = ' style="background: #fdd; color: #900; font-weight: bold"' if marked else ""
    return f"<tr{style}>" + "".join(f"<{tag}>{escaped(text(cell))}</{tag}>" for cell in cells) + "</tr>"


def escaped(said: str) -> str:
    """Text as HTML."""
    from html import escape  # takes a millisecond, and few processes are notebooks

    return escape(said)
