# SPDX-License-Identifier: Apache-2.0
"""Draws what a command printed as a picture for the README.

``.venv/bin/python examples/two_hosts.py | python3 tools/picture.py "make demo" > docs/demo.svg``
"""

from __future__ import annotations

import re
import sys
from html import escape

WIDTH, HEIGHT, MARGIN = 7.8, 17, 20
LINES = 53
STYLE = "font: 13px ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace"
GREEN, RED, GREY = "#3fb950", "#f85149", "#8b949e"


def main() -> int:
    """Standard input as an SVG on standard output."""
    text = sys.stdin.read().rstrip().split("\n")
    lines = [f"$ {sys.argv[1]}", *text[:LINES], *(["…"] if len(text) > LINES else [])]
    width = round(max(map(len, lines)) * WIDTH + 2 * MARGIN)
    height = len(lines) * HEIGHT + 2 * MARGIN
    print(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}">')
    print('<rect width="100%" height="100%" rx="8" fill="#0d1117"/>')
    print(f'<g xml:space="preserve" style="{STYLE}" fill="#e6edf3">')
    for number, line in enumerate(lines):
        print(f'<text x="{MARGIN}" y="{MARGIN + HEIGHT * (number + 0.8):.0f}">{coloured(line)}</text>')
    print("</g></svg>")
    return 0


def coloured(line: str) -> str:
    """A line with its result, or the command, in colour."""
    line = line.replace(" ", "\xa0")  # renderers collapse plain spaces
    found = re.fullmatch(r"(\s*)(ok|no|\$)(\s.*)", line)
    if found is None:
        return escape(line)
    colour = {"ok": GREEN, "no": RED}.get(found[2], GREY)
    return f'{found[1]}<tspan fill="{colour}">{found[2]}</tspan>{escape(found[3])}'


if __name__ == "__main__":
    sys.exit(main())
