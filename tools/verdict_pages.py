# SPDX-License-Identifier: Apache-2.0
"""Generates the heads of the pages in docs/verdicts, and the list of them.

``python tools/verdict_pages.py`` writes what is generated of each page, and makes a page for a verdict that has none;
``--check`` only compares, and fails when one is out of date. What stands below the last line of the head is written by
hand, and kept. The rules that a verdict belongs to are found in docs/packet-rules.md.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from mizarnet._model.enumerations import Verdict  # noqa: E402

RULES = ROOT / "docs/packet-rules.md"
PAGES = ROOT / "docs/verdicts"
LIST = PAGES / "README.md"
END = "<!-- The head is made by tools/verdict_pages.py; what follows is written by hand. -->"
HEADINGS = ("What was looked at", "Who is likely wrong", "What to look at next")
ROW = re.compile(r"^\| ([A-Z]+\d[\da-z.]*) \| .* \| ([^|]*) \|$", re.MULTILINE)
# Rules that name their verdict in the text around their table.
AROUND = {
    "BOUNCE_ADMITTED": ("B1", "B2", "B3", "B4", "B5"),
    "NEIGHBOUR_ANSWERED": ("R6", "L9"),
    "GATEWAY_ANSWERED": ("D6", "E1", "E2", "E3"),
    "OVERSIZED": tuple(f"T{number}" for number in range(1, 9)),
    "OVERSIZED_ANSWERED": ("W1", "W2", "W3"),
    "HOP_LIMIT": tuple(f"H{number}" for number in range(1, 8)),
    "PASSED": tuple(f"K{number}" for number in range(1, 19)) + tuple(f"U{number}" for number in range(1, 15)),
    "TUNNEL_KEY_REFUSED": ("D5", "D9", "G15"),
    "UNREADABLE": ("A1", "G6", "G12"),
}
PROGRAMS = {
    "P": ("agent", "guard"),
    "G": ("guard",),
    "K": ("transit switch",),
    "X": ("transit switch",),
    "U": ("shortcut",),
}
SHORTCUT_TOO = "G12"
"""The rule of the guard's by which the shortcut lets in what it has taken out."""
LOOKED_AT_BY_AGENT = ("agent",)


def slug(verdict: Verdict) -> str:
    return verdict.page.removeprefix("docs/verdicts/")


def rules_of(verdict: Verdict, rules: str) -> list[str]:
    found = [rule for rule, last in ROW.findall(rules) if re.search(rf"\b{verdict.name}\b", last)]
    found += [rule for rule in AROUND.get(verdict.name, ()) if rule not in found]
    if not found:
        raise SystemExit(f"docs/packet-rules.md has no rule for {verdict.name}")
    return found


def programs_of(rules: list[str]) -> str:
    found = dict.fromkeys(name for rule in rules for name in PROGRAMS.get(rule[0], LOOKED_AT_BY_AGENT))
    if SHORTCUT_TOO in rules:
        found["shortcut"] = None
    return ", ".join(found)


def summary(verdict: Verdict) -> str:
    """The sentence of abi.h about a verdict, which the enumeration has as the text behind its member."""
    text = (ROOT / "mizarnet/_model/enumerations.py").read_text()
    found = re.search(rf'^    {verdict.name} = {verdict.value}\n    """(.*)"""$', text, re.MULTILINE)
    assert found is not None  # the file is generated with one for each
    return found[1]


def head(verdict: Verdict, rules: str) -> str:
    own = rules_of(verdict, rules)
    rows = {
        "number": str(verdict.value),
        "counted by": programs_of(own),
        "kind": verdict.kind.value,
        "rule": f"{', '.join(own)} of [packet-rules.md](../packet-rules.md)",
        "usual cause": verdict.cause,
        "remedy": verdict.remedy,
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return f"# {verdict.name}\n\n{summary(verdict)}\n\n| | |\n|---|---|\n{table}\n\n{END}\n"


def skeleton(verdict: Verdict) -> str:
    """What a page has below its head before anybody wrote it: for a drop the headings."""
    return "".join(f"\n## {heading}\n" for heading in HEADINGS) if verdict.dropped else ""


def page(verdict: Verdict, rules: str) -> str:
    path = PAGES / slug(verdict)
    _, end, own = path.read_text().partition(f"{END}\n") if path.exists() else ("", "", "")
    return head(verdict, rules) + (own if end else skeleton(verdict))


def listing() -> str:
    lines = ["# Verdicts", "", "A page for each, as `mizarnet.Verdict.X.page` names it."]
    for title, dropped in (("Frames that went on", False), ("Drop reasons", True)):
        lines += ["", f"## {title}", "", "| | kind | |", "|---|---|---|"]
        lines += [
            f"| [{each.name}]({slug(each)}) | {each.kind.value} | {summary(each)} |"
            for each in Verdict
            if each.dropped is dropped
        ]
    return "\n".join([*lines, ""])


def rendered() -> Iterator[tuple[Path, str]]:
    rules = RULES.read_text()
    for verdict in Verdict:
        yield PAGES / slug(verdict), page(verdict, rules)
    yield LIST, listing()


def main() -> int:
    wanted = dict(rendered())
    changed = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    changed += [path for path in PAGES.glob("*.md") if path not in wanted]
    if "--check" not in sys.argv[1:]:
        PAGES.mkdir(exist_ok=True)
        for path in changed:
            path.write_text(wanted[path]) if path in wanted else path.unlink()
        return 0
    for path in changed:
        print(f"{path.relative_to(ROOT)} is out of date: run python tools/verdict_pages.py", file=sys.stderr)
    return 1 if changed else 0


if __name__ == "__main__":
    raise SystemExit(main())
