# SPDX-License-Identifier: Apache-2.0
"""Writes mizarnet/numbers.py from the enumerations of csrc/include/mizarnet/abi.h.

``python tools/gen_abi.py`` writes the file, ``--check`` only compares and fails when it is out of date.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEADER = ROOT / "csrc/include/mizarnet/abi.h"
TARGET = ROOT / "mizarnet/numbers.py"

ENUM = re.compile(r"enum mzn_(\w+) \{(.*?)\};", re.DOTALL)
MEMBER = re.compile(r"MZN_(\w+) = (\w+), /\* (.*?) \*/", re.DOTALL)
CLASSES = {
    "limit": ("Limit", "Sizes and bounds that programs and user space share."),
    "program": ("Program", "A program that counts verdicts."),
    "verdict": ("Verdict", "What a program decided about a frame; numbers keep their meaning for good."),
    "place": ("Place", "Where an endpoint lives, seen from this host."),
    "interface_flag": ("InterfaceFlag", "What a local endpoint is allowed to do."),
    "kind": ("KindNumber", "The kind of an endpoint's device, as recorded."),
    "switch_flag": ("SwitchFlag", "How a transit switch was attached, and what that changed on its device."),
    "encap": ("EncapNumber", "The encapsulation of a tunnel, as recorded."),
}
HEAD = '''# SPDX-License-Identifier: Apache-2.0
# Generated from csrc/include/mizarnet/abi.h by tools/gen_abi.py; do not edit.
"""The numbers that BPF programs and Python share."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final
'''
DROPPED = '''
    @property
    def dropped(self) -> bool:
        """Whether the frame ended here."""
        return self >= Limit.FIRST_DROP
'''


def render_class(enum_name: str, body: str) -> str:
    name, summary = CLASSES[enum_name]
    # Limits are no enumeration in Python: equal ones would become aliases of each other.
    base, kind = ("", ": Final") if name == "Limit" else ("(enum.IntEnum)", "")
    lines = [f"class {name}{base}:", f'    """{summary}"""', ""]
    for member, number, comment in MEMBER.findall(body):
        text = " ".join(comment.split()).replace("`", "``")
        lines += [
            f"    {member}{kind} = {number.upper().replace('0X', '0x')}",
            f'    """{text[0].upper()}{text[1:]}"""',
        ]
    return "\n".join(lines) + ("\n" + DROPPED if enum_name == "verdict" else "\n")


def render(header: str) -> str:
    found = dict(ENUM.findall(header))
    if set(found) != set(CLASSES):
        raise SystemExit(
            f"enumerations of {HEADER.name} and {Path(__file__).name} differ: {set(found) ^ set(CLASSES)}"
        )
    bodies = [render_class(name, body) for name, body in found.items()]
    return HEAD + "\n\n" + "\n\n".join([*bodies, render_index(found)])


def render_index(found: dict[str, str]) -> str:
    lines = ["ENUMERATIONS: Final[Mapping[str, Mapping[str, int]]] = {"]
    for enum_name, body in found.items():
        name = CLASSES[enum_name][0]
        lines.append(f'    "mzn_{enum_name}": {{')
        lines += [f'        "MZN_{member}": {name}.{member},' for member, _, _ in MEMBER.findall(body)]
        lines.append("    },")
    return "\n".join([*lines, "}", '"""The members of each C enumeration under their C names."""', ""])


def main() -> int:
    text = render(HEADER.read_text())
    if "--check" not in sys.argv[1:]:
        TARGET.write_text(text)
        return 0
    if TARGET.read_text() == text:
        return 0
    print(f"{TARGET.relative_to(ROOT)} is out of date: run python tools/gen_abi.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
