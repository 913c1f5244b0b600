# SPDX-License-Identifier: Apache-2.0
"""The results of the suite as tables, a plot, and the page ``docs/benchmarks.md``."""

from __future__ import annotations

import itertools
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

OWN = ("mizarnet", "shortcut")
"""Peers that are this library itself: each has a table."""
ROOT = Path(__file__).resolve().parent.parent.parent
PAGE, PLOT = ROOT / "docs" / "benchmarks.md", ROOT / "docs" / "benchmarks.svg"
MEASURED, EMULATED = (f"<!-- made by tests/bench/{name}.py: begin -->" for name in ("suite", "suite_vm"))
END = "<!-- end -->"


@attrs.frozen
class Result:
    """One turn of one peer.

    Attributes:
        row: What was measured.
        peer: Of which peer.
        round: In which round: only results of one round are compared.
        found: What the timer said.
    """

    row: str
    peer: str
    round: int
    found: Mapping[str, float]


@attrs.frozen
class Spread:
    """A median and the two extremes."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of some values."""
        return cls(statistics.median(values), min(values), max(values))

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.least:.2f}-{self.most:.2f})"


def ratios(own: str, row: str, peer: str, results: Sequence[Result]) -> Spread | None:
    """How much faster one was than another in each round that has both; above 1 it was faster."""
    rates: defaultdict[int, dict[str, float]] = defaultdict(dict)
    for result in results:
        if result.row == row:
            rates[result.round][result.peer] = result.found["rate"]
    found = [each[own] / each[peer] for each in rates.values() if own in each and each.get(peer)]
    return Spread.of(found) if found else None


def tables(rows: Sequence[str], names: Sequence[str], results: Sequence[Result]) -> str:
    """The ratios of each row to each peer, and what was measured of each."""
    lines: list[str] = []
    for own in OWN:
        others = [name for name in names if name != own]
        lines += [f"| {own} divided by | " + " | ".join(others) + " |", "|---" * (1 + len(others)) + "|"]
        for row in rows:
            cells = [str(ratios(own, row, name, results) or "-") for name in others]
            if any(cell != "-" for cell in cells):
                lines.append(f"| {row} | " + " | ".join(cells) + " |")
        lines.append("")
    lines += ["| median of | rate | p50, us | p99, us |", "|---|---|---|---|"]
    for row in rows:
        for name in names:
            found = [each.found for each in results if (each.row, each.peer) == (row, name)]
            if found:
                cells = [_median(found, key) for key in ("rate", "p50", "p99")]
                lines.append(f"| {row}: {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _median(found: Sequence[Mapping[str, float]], key: str) -> str:
    values = [each[key] for each in found if key in each]
    return f"{statistics.median(values):,.2f}" if values else ""


def plot(rows: Sequence[str], results: Sequence[Result]) -> str:
    """Each ratio as a line from its least to its most with a dot at the median, in SVG; 1 is a line of its own."""
    width, left, line = 800, 370, 16
    marks: list[str] = []
    at = 30
    for row in rows:
        names = [each for each in dict.fromkeys(r.peer for r in results if r.row == row) if each not in OWN]
        for own, name in itertools.product(OWN, sorted(names)):
            spread = ratios(own, row, name, results)
            if spread is None:
                continue
            low, middle, high = (left + _place(each) for each in (spread.least, spread.median, spread.most))
            marks += [
                f'<text x="8" y="{at + 4}">{row}: {own} / {name}</text>',
                f'<line x1="{low:.0f}" x2="{high:.0f}" y1="{at}" y2="{at}" stroke="#888"/>',
                f'<circle cx="{middle:.0f}" cy="{at}" r="4" fill="{"#2a7" if spread.median >= 1 else "#c52"}"/>',
            ]
            at += line
    scale = [
        f'<line x1="{left + _place(each):.0f}" x2="{left + _place(each):.0f}" y1="18" y2="{at}" '
        f'stroke="{"#000" if each == 1 else "#ddd"}"/>'
        f'<text x="{left + _place(each) - 6:.0f}" y="14">{each:g}</text>'
        for each in (0.5, 1, 1.5, 2)
    ]
    size, font = f'width="{width}" height="{at}"', 'font-family="sans-serif" font-size="11"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} {font}>'
    return "\n".join([head, *scale, *marks, "</svg>", ""])


def _place(ratio: float) -> float:
    """Where a ratio is on the scale; what is above 2 stands at its end."""
    return (min(ratio, 2.1) - 0.4) * 240


def write(
    made: str, results: Sequence[Result], says: Mapping[str, str], *, machine: str, rows: Sequence[str]
) -> None:
    """Put tables and plot into the page; what was written beside them stays."""
    rounds = len({result.round for result in results if result.row == rows[0]})
    peers = "\n".join(f"- **{name}**: {what}" for name, what in says.items())
    replace(MEASURED, f"{machine}; {rounds} rounds.\n\n{peers}\n\n{made}\n\n![ratios](benchmarks.svg)")
    PLOT.write_text(plot(rows, results))


def replace(begin: str, text: str) -> None:
    """Put a text between a mark of the page and the end that follows it."""
    head, rest = PAGE.read_text().split(begin)
    _, end, tail = rest.partition(END)
    PAGE.write_text(f"{head}{begin}\n{text}\n{end}{tail}")
