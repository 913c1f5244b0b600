# SPDX-License-Identifier: Apache-2.0
"""Writes docs/verifier.md: how many instructions the verifier processed for each program on each kernel.

``python tools/verifier_table.py`` loads the objects here and inside the emulated kernels; root is needed. With
``--here`` it prints the counts of this kernel as JSON.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from ipaddress import ip_address
from pathlib import Path
from typing import TypeAlias

from mizarnet import Capacity
from mizarnet._datapath import loader
from mizarnet._kernel.objects import has_route_identity
from mizarnet._model import layouts
from mizarnet._model.codec import ip_fields
from mizarnet._model.enumerations import EncapNumber

ROOT = Path(__file__).resolve().parent.parent
OBJECTS = ROOT / "mizarnet" / "_objects"
PAGE = ROOT / "docs" / "verifier.md"
EMULATED = ("6.1", "6.12")
GUEST_SECONDS = 300
LIMIT = 10_000
"""Our limit for each program, which a test checks; the kernel's own limit is a million."""

Counts: TypeAlias = dict[str, dict[str, int]]
"""By object and program: instructions processed."""


def counts() -> Counts:
    """The counts for every object that this kernel can load; one object reads routes, which takes Linux 6.2."""
    names = [path.name for path in sorted(OBJECTS.glob("transit*.bpf.o"))]
    if not has_route_identity():
        names.remove("transit.bpf.o")
    return {name: _count(name) for name in names}


def _count(name: str) -> dict[str, int]:
    nothing = layouts.Config.unpack(bytes(layouts.CONFIG.size))
    config = nothing._replace(local=ip_fields(ip_address("192.0.2.1")), encap=EncapNumber.VXLAN)
    capacity = Capacity(max_endpoints=16, max_local=4)
    with loader.load(config.pack(), capacity, path=OBJECTS / name) as loaded:
        return {program: each.verified_instructions for program, each in sorted(loaded.programs.items())}


def _here() -> str:
    return json.dumps({"kernel": re.split("[-+]", os.uname().release)[0], "objects": counts()})


def _in_guest(series: str) -> str:
    machine = [sys.executable, "tests/vm/run.py", "--kernel", series, "--timeout", str(GUEST_SECONDS)]
    command = [*machine, "--env", f"PYTHONPATH={ROOT}", "--", sys.executable, __file__, "--here"]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return next(line for line in done.stdout.splitlines() if line.startswith('{"kernel"'))


def _row(kernel: str, name: str, programs: dict[str, int]) -> str:
    cells = (f"{programs[each]:,}" for each in ("mzn_agent", "mzn_guard", "mzn_switch"))
    return f"| {kernel} | `{name}` | {' | '.join(cells)} |"


def _clang() -> str:
    said = subprocess.run(["clang", "--version"], check=True, stdout=subprocess.PIPE, text=True).stdout
    found = re.search(r"clang version (\S+)", said)
    return found[1] if found else "unknown"


def page(results: list[str]) -> str:
    """The page as Markdown, from one line of JSON for each kernel."""
    lines = [
        "# What the programs cost the verifier",
        "",
        f"Instructions that the verifier processed when it loaded each program ({platform.machine()}, compiled by",
        f"clang {_clang()}). The kernel's limit is a million; here every program stays below {LIMIT:,}, and a test",
        "sees to that on every kernel. Written by `tools/verifier_table.py`.",
        "",
        "| kernel | object | `mzn_agent` | `mzn_guard` | `mzn_switch` |",
        "|---|---|---|---|---|",
    ]
    for result in map(json.loads, results):
        lines += [_row(result["kernel"], name, programs) for name, programs in result["objects"].items()]
    without = "`transit-mac-only.bpf.o` does without the look at a packet's route, which takes Linux 6.2."
    return "\n".join([*lines, "", without, ""])


def main(arguments: list[str]) -> int:
    """Print the counts of this kernel, or write the page."""
    if arguments == ["--here"]:
        print(_here())
        return 0
    PAGE.write_text(page([*map(_in_guest, EMULATED), _here()]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
