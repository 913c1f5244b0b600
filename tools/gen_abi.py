# SPDX-License-Identifier: Apache-2.0
"""Generates Python from csrc/include/mizarnet/abi.h.

Its enumerations become mizarnet/_model/enumerations.py, its structures mizarnet/_model/layouts.py.
``python tools/gen_abi.py`` writes the files, ``--check`` only compares and fails when one is out of date.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import NamedTuple

import abi_layouts

ROOT = Path(__file__).resolve().parent.parent
HEADER = ROOT / "csrc/include/mizarnet/abi.h"
NUMBERS = ROOT / "mizarnet/_model/enumerations.py"
LAYOUTS = ROOT / "mizarnet/_model/layouts.py"

ENUM = re.compile(r"enum mzn_(\w+) \{(.*?)\};", re.DOTALL)
MEMBER = re.compile(r"(MZN_\w+) = (\w+), /\* (.*?) \*/", re.DOTALL)
# In front of a verdict: its kind, what brings it about, and what to do then.
MEANING = re.compile(r"/\*(?P<text>(?:(?!\*/).)*)\*/\s*(?P<member>MZN_\w+) = ", re.DOTALL)
PARTS = re.compile(r"(?P<kind>\w+): (?P<cause>.+?\.) Remedy: (?P<remedy>.+\.)")


class Group(NamedTuple):
    """The Python name of an enumeration, and the first words of its members in C, which Python leaves out."""

    name: str
    summary: str
    prefixes: tuple[str, ...]


GROUPS = {
    "limit": Group("Limit", "Sizes and bounds that programs and user space share.", ("LIMIT",)),
    "program": Group("Program", "A program that counts verdicts.", ("PROGRAM",)),
    "verdict": Group(
        "Verdict",
        "What a program decided about a frame; numbers keep their meaning for good.",
        ("PASS", "DROP"),
    ),
    "place": Group("Place", "Where an endpoint lives, seen from this host.", ("PLACE",)),
    "sender_flag": Group("SenderFlag", "What a local endpoint is allowed to do.", ("FLAG",)),
    "kind": Group("KindNumber", "The kind of an endpoint's device, as recorded.", ("KIND",)),
    "state": Group("State", "How far an object has come.", ("STATE",)),
    "item_kind": Group("ItemKind", "What an entry of ``items`` is.", ("ITEM",)),
    "shortcut": Group(
        "ShortcutNumber", "Whether there shall be a shortcut on the way in, as recorded.", ("SHORTCUT",)
    ),
    "layer": Group("Layer", "Where agent and guard stand on the tunnel, as recorded.", ("LAYER",)),
    "switch_flag": Group(
        "SwitchFlag", "How a transit switch was attached, and what that changed on its device.", ("SWITCH",)
    ),
    "wish": Group("Wish", "Which frames a reader of events wants, as recorded.", ("WISH",)),
    "event_flag": Group("EventFlag", "What is special about an event.", ("EVENT",)),
    "encap": Group("EncapNumber", "The encapsulation of a tunnel, as recorded.", ("ENCAP",)),
}
HEAD = '''# SPDX-License-Identifier: Apache-2.0
# Generated from csrc/include/mizarnet/abi.h by tools/gen_abi.py; do not edit.
"""The numbers that BPF programs and Python share."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final, NamedTuple
'''
KINDS = {
    "passed": "The frame went on.",
    "chatter": "What every network stack says of itself, and the overlay does not carry: nothing is wrong.",
    "tenant": "A container or VM does what it may not, by mistake or not.",
    "operator": "The hosts were not told, or not set up, as they should be.",
    "attack": "What no network stack sends: somebody forges frames.",
    "kernel": "The kernel refused what was asked of it.",
}
PROPERTIES = '''
    @property
    def dropped(self) -> bool:
        """Whether the frame ended here."""
        return self >= Limit.FIRST_DROP

    @property
    def kind(self) -> VerdictKind:
        """Whose concern it is; of what may have several causes, that of the usual one."""
        return _MEANINGS[self].kind

    @property
    def cause(self) -> str:
        """What usually brings it about, in a sentence."""
        return _MEANINGS[self].cause

    @property
    def remedy(self) -> str:
        """What to do about it, in a sentence or two."""
        return _MEANINGS[self].remedy

    @property
    def page(self) -> str:
        """Path of the page about it, in the source tree and in the documentation."""
        return f"docs/verdicts/{self.name.lower().replace('_', '-')}.md"


class _Meaning(NamedTuple):
    kind: VerdictKind
    cause: str
    remedy: str
'''


class Member(NamedTuple):
    """An enumerator, in C and in Python."""

    c_name: str
    name: str
    number: str
    comment: str


def members_of(group: Group, body: str) -> list[Member]:
    found: list[Member] = []
    for c_name, number, comment in MEMBER.findall(body):
        prefix, _, name = c_name.removeprefix("MZN_").partition("_")
        if prefix not in group.prefixes:
            raise SystemExit(f"{c_name} does not begin with its group: MZN_{' or MZN_'.join(group.prefixes)}")
        found.append(Member(c_name, name, number.upper().replace("0X", "0x"), " ".join(comment.split())))
    if len(found) != body.count(" = "):
        raise SystemExit(f"a member of {group.name} is not `MZN_NAME = number, /* comment */` on one line")
    return found


def render_class(group: Group, members: list[Member]) -> str:
    # Limits are no enumeration in Python: equal ones would become aliases of each other.
    base, kind = ("", ": Final") if group.name == "Limit" else ("(enum.IntEnum)", "")
    lines = [f"class {group.name}{base}:", f'    """{group.summary}"""', ""]
    for _, name, number, comment in members:
        text = comment.replace("`", "``")
        lines += [f"    {name}{kind} = {number}", f'    """{text[0].upper()}{text[1:]}"""']
    return "\n".join(lines) + ("\n" + PROPERTIES if group.name == "Verdict" else "\n")


def render_kinds() -> str:
    lines = ["class VerdictKind(enum.Enum):", '    """Whose concern a verdict is."""', ""]
    for kind, summary in KINDS.items():
        lines += [f'    {kind.upper()} = "{kind}"', f'    """{summary}"""']
    return "\n".join([*lines, ""])


def render_meanings(header: str, verdicts: list[Member]) -> str:
    """The meaning of each verdict, from the comment in front of it."""
    comments = {found["member"]: found["text"] for found in MEANING.finditer(header)}
    lines = ["_MEANINGS: Final[Mapping[Verdict, _Meaning]] = {"]
    for each in verdicts:
        text = comments.get(each.c_name, "").replace("\n\t * ", " ")
        found = PARTS.fullmatch(" ".join(text.split()))
        if found is None or found["kind"] not in KINDS:
            raise SystemExit(f"in front of {each.c_name}: /* KIND: cause. Remedy: what to do. */ is missing")
        if (found["kind"] == "passed") != each.c_name.startswith("MZN_PASS_"):
            raise SystemExit(f"{each.c_name} is of the wrong kind: {found['kind']}")
        lines.append(f"    Verdict.{each.name}: _Meaning(")
        lines.append(f"        VerdictKind.{found['kind'].upper()},")
        lines += [f"        {json.dumps(found[part])}," for part in ("cause", "remedy")]
        lines.append("    ),")
    return "\n".join([*lines, "}", ""])


def render_index(enums: dict[str, list[Member]]) -> str:
    lines = ["ENUMERATIONS: Final[Mapping[str, Mapping[str, int]]] = {"]
    for enum_name, members in enums.items():
        lines.append(f'    "mzn_{enum_name}": {{')
        lines += [f'        "{each.c_name}": {GROUPS[enum_name].name}.{each.name},' for each in members]
        lines.append("    },")
    return "\n".join([*lines, "}", '"""The members of each C enumeration under their C names."""', ""])


def render_numbers(header: str) -> str:
    found = dict(ENUM.findall(header))
    if set(found) != set(GROUPS):
        raise SystemExit(
            f"enumerations of {HEADER.name} and {Path(__file__).name} differ: {set(found) ^ set(GROUPS)}"
        )
    enums = {name: members_of(GROUPS[name], body) for name, body in found.items()}
    check_verdicts(enums)
    bodies = [render_class(GROUPS[name], members) for name, members in enums.items()]
    meanings = render_meanings(dict(ENUM.findall(header))["verdict"], enums["verdict"])
    return HEAD + "\n\n" + "\n\n".join([render_kinds(), *bodies, meanings, render_index(enums)])


def check_verdicts(enums: dict[str, list[Member]]) -> None:
    """Refuse a verdict whose number and name disagree on whether it drops the frame."""
    limits = {each.name: int(each.number, 0) for each in enums["limit"]}
    first_drop, room = limits["FIRST_DROP"], limits["VERDICTS"]
    for each in enums["verdict"]:
        passes = each.c_name.startswith("MZN_PASS_")
        low, high = (0, first_drop) if passes else (first_drop, room)
        if not low <= int(each.number, 0) < high:
            raise SystemExit(f"{each.c_name} = {each.number} is not in {low}..{high - 1}")


def limits_of(header: str) -> dict[str, int]:
    found = MEMBER.findall(dict(ENUM.findall(header))["limit"])
    return {name.removeprefix("MZN_LIMIT_"): int(number, 0) for name, number, _ in found}


def main() -> int:
    header = HEADER.read_text()
    rendered = {NUMBERS: render_numbers(header), LAYOUTS: abi_layouts.render(header, limits_of(header))}
    changed = [path for path, text in rendered.items() if not path.exists() or path.read_text() != text]
    if "--check" not in sys.argv[1:]:
        for path in changed:
            path.write_text(rendered[path])
        return 0
    for path in changed:
        print(f"{path.relative_to(ROOT)} is out of date: run python tools/gen_abi.py", file=sys.stderr)
    return 1 if changed else 0


if __name__ == "__main__":
    raise SystemExit(main())
