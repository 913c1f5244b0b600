# SPDX-License-Identifier: Apache-2.0
"""Writes docs/verifier.md: what each program costs the verifier and how deep its stack is, on each kernel.

``python tools/verifier_table.py`` loads the objects here and inside the emulated kernels; root is needed. With
``--here`` it prints the costs on this kernel as JSON. A test compares them with the page.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import re
import subprocess
import sys
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple, TypeAlias

from mizarnet._kernel.objects import has_route_identity
from mizarnet._model import layouts
from mizarnet._model.codec import ip_fields
from mizarnet._model.enumerations import EncapNumber

ROOT = Path(__file__).resolve().parent.parent
OBJECTS = ROOT / "mizarnet" / "_objects"
PAGE = ROOT / "docs" / "verifier.md"
EMULATED = ("6.1", "6.12")
GUEST_SECONDS = 300
LIMIT = 12_000
"""Where a program must be explained; the kernel's own limit is a million."""
PROGRAMS = ("mzn_agent", "mzn_guard", "mzn_switch", "mzn_shortcut")
_STATISTICS = 4  # BPF_LOG_STATS
_LOG_BYTES = 1 << 16


class Cost(NamedTuple):
    """What a program costs.

    Attributes:
        processed: Instructions that the verifier processed.
        stack: Bytes of its own and of the deepest of the functions that it calls.
    """

    processed: int
    stack: int


Costs: TypeAlias = dict[str, dict[str, Cost]]
"""Object to program to cost."""


def costs() -> Costs:
    """Of every object that this kernel can load: one of them reads routes, which takes Linux 6.2."""
    names = [path.name for path in sorted(OBJECTS.glob("transit*.bpf.o"))]
    if not has_route_identity():
        names.remove("transit.bpf.o")
    return {name: _costs_of(OBJECTS / name) for name in names}


def _costs_of(path: Path) -> dict[str, Cost]:
    """From the verifier's statistics, which the package's own binding does not ask for."""
    libbpf = ctypes.CDLL("libbpf.so.1")
    for name in ("open_file", "find_map_by_name", "find_program_by_name"):
        getattr(libbpf, f"bpf_object__{name}").restype = ctypes.c_void_p
    opened = ctypes.c_void_p(libbpf.bpf_object__open_file(os.fsencode(path), None))
    nothing = layouts.Config.unpack(bytes(layouts.CONFIG.size))
    config = nothing._replace(local=ip_fields(ip_address("192.0.2.1")), encap=EncapNumber.VXLAN).pack()
    constants = ctypes.c_void_p(libbpf.bpf_object__find_map_by_name(opened, b".rodata.config"))
    libbpf.bpf_map__set_initial_value(constants, config, ctypes.c_size_t(len(config)))
    logs = {name: ctypes.create_string_buffer(_LOG_BYTES) for name in PROGRAMS}
    for name, log in logs.items():
        program = ctypes.c_void_p(libbpf.bpf_object__find_program_by_name(opened, name.encode()))
        libbpf.bpf_program__set_log_level(program, _STATISTICS)
        libbpf.bpf_program__set_log_buf(program, log, ctypes.c_size_t(_LOG_BYTES))
    failed = libbpf.bpf_object__load(opened)
    libbpf.bpf_object__close(opened)
    if failed:
        raise OSError(-failed, os.strerror(-failed), str(path))
    return {name: _cost(log.value.decode()) for name, log in logs.items()}


def _cost(log: str) -> Cost:
    processed = re.search(r"processed (\d+) insns", log)
    depths = re.search(r"stack depth ([\d+]+)", log)
    assert processed and depths, log
    own, *called = map(int, depths[1].split("+"))
    return Cost(int(processed[1]), own + max(called, default=0))


def committed(kernel: str) -> Costs:
    """What the page says of a series of kernels such as 6.12."""
    found: Costs = {}
    for line in PAGE.read_text().splitlines():
        row = re.fullmatch(r"\| (\d+\.\d+)\S* \| `(\S+)` \| (.*) \|", line)
        if row and row[1] == kernel:
            figures = (cell.replace(",", "").split(" / ") for cell in row[3].split(" | "))
            each = (Cost(int(processed), int(stack)) for processed, stack in figures)
            found[row[2]] = dict(zip(PROGRAMS, each, strict=True))
    return found


def _here() -> str:
    return json.dumps({"kernel": re.split("[-+]", os.uname().release)[0], "objects": costs()})


def _in_guest(series: str) -> str:
    machine = [sys.executable, "tests/vm/run.py", "--kernel", series, "--timeout", str(GUEST_SECONDS)]
    command = [*machine, "--env", f"PYTHONPATH={ROOT}", "--", sys.executable, __file__, "--here"]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return next(line for line in done.stdout.splitlines() if line.startswith('{"kernel"'))


def _row(kernel: str, name: str, programs: dict[str, list[int]]) -> str:
    cells = (f"{processed:,} / {stack}" for processed, stack in (programs[each] for each in PROGRAMS))
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
        f"clang {_clang()}), and bytes of the stack, the program's own and those of the deepest function that it",
        f"calls. The kernel's limits are a million and 512; here every program stays below {LIMIT:,}, and a test",
        "compares each with this page on every kernel. Written by `tools/verifier_table.py`.",
        "",
        f"| kernel | object | {' | '.join(f'`{each}`' for each in PROGRAMS)} |",
        f"|---|---|{'---|' * len(PROGRAMS)}",
    ]
    for result in map(json.loads, results):
        lines += [_row(result["kernel"], name, programs) for name, programs in result["objects"].items()]
    without = "`transit-mac-only.bpf.o` does without the look at a packet's route, which takes Linux 6.2."
    return "\n".join([*lines, "", without, ""])


def main(arguments: list[str]) -> int:
    """Print the costs on this kernel, or write the page."""
    if arguments == ["--here"]:
        print(_here())
        return 0
    PAGE.write_text(page([*map(_in_guest, EMULATED), _here()]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
