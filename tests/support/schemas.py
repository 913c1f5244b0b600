# SPDX-License-Identifier: Apache-2.0
"""Packages of other schemas than this one: an older one in this process, and a newer one for a process of its own."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mizarnet._kernel.objects import has_route_identity
from mizarnet._model.enumerations import ENUMERATIONS, Limit
from tests.support.builds import ROOT, compile_tree, installed
from tests.support.process import HEAD
from tests.support.sources import change

SCHEMA, OLDER = "MZN_LIMIT_SCHEMA", "older.bpf.o"
SMALLER = {"networks": 2048, "routers": 2048, "peers": 1024, "drops": 1024}
"""Sizes of some tables in the older package: they cannot be shared."""


def compile_older(into: Path) -> Path:
    """The object of the schema before this one, for this kernel. Some of its tables are smaller."""
    tree = into / "older"
    shutil.copytree(ROOT / "csrc", tree)
    change(tree, SCHEMA, str(Limit.SCHEMA), str(Limit.SCHEMA - 1))
    maps = tree / "bpf" / "lib" / "maps.h"
    for name in SMALLER:
        maps.write_text(_with_entries(maps.read_text(), name, SMALLER[name]))
    return compile_tree(tree, into / OLDER)


def _with_entries(source: str, name: str, entries: int) -> str:
    pattern = rf"(max_entries, )(\w+)((?:(?!max_entries).)*?\}} {name} SEC)"
    changed, count = re.subn(pattern, rf"\g<1>{entries}\g<3>", source, flags=re.DOTALL)
    assert count == 1, name
    return changed


@contextmanager
def older(path: Path) -> Iterator[None]:
    """As if this package were the older one, of which ``path`` is the object, as long as the block lasts."""
    limits = ENUMERATIONS["mzn_limit"]
    assert isinstance(limits, dict)
    Limit.SCHEMA -= 1  # type: ignore[misc]
    limits[SCHEMA] = Limit.SCHEMA
    try:
        with installed(path):
            yield
    finally:
        Limit.SCHEMA += 1  # type: ignore[misc]
        limits[SCHEMA] = Limit.SCHEMA


def newer_package(into: Path) -> Path:
    """A directory with a package of the schema after this one.

    The members of entries stand in another order there, entries are longer, records have wider numbers, and there is
    one map more.
    """
    for name in ("mizarnet", "csrc", "tools"):
        shutil.copytree(ROOT / name, into / name, ignore=shutil.ignore_patterns("__pycache__"))
    header = into / "csrc" / "include" / "mizarnet" / "abi.h"
    change(header.parent, SCHEMA, str(Limit.SCHEMA), str(Limit.SCHEMA + 1))
    text = header.read_text()
    for before, after in (
        ("\t__u32 place; /* enum mzn_place */\n", ""),
        ("\t__u32 prefix_length; /* local: of the on-link prefix", "\t__u32 place;\n\t__u32 pad;\n\\g<0>"),
        ("\t__u64 maker; /* the lock", "\t__u64 pad;\n\\g<0>"),
    ):
        text, count = re.subn(re.escape(before), after, text)
        assert count == 1, before
    header.write_text(text)
    maps = into / "csrc" / "bpf" / "lib" / "maps.h"
    source = maps.read_text()
    end = 'changes SEC(".maps");\n'
    more = source[source.index("/* A stamp that never") : source.index(end) + len(end)]
    maps.write_text(source.replace(more, more + more.replace("changes SEC", "flows SEC")))
    python = into / "mizarnet" / "_datapath" / "maps.py"
    text = python.read_text().replace("    changes: Map\n", "    changes: Map\n    flows: Map\n")
    line = '    "changes": (MapType.ARRAY, _NUMBER, _STAMP),\n'
    assert line in text
    python.write_text(text.replace(line, line + line.replace("changes", "flows")))
    subprocess.run([sys.executable, into / "tools" / "gen_abi.py"], check=True, timeout=60)
    suffix = "" if has_route_identity() else "-mac-only"
    for source_name, target in (("transit", "transit"), ("dry_run", "dry-run")):
        compiled = into / "mizarnet" / "_objects" / f"{target}{suffix}.bpf.o"
        compile_tree(into / "csrc", compiled, source=f"{source_name}.bpf.c")
    return into


def start_newer(package: Path, program: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a program with that package, for which ``mz``, ``os``, ``signal`` and ``sys`` are imported."""
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", HEAD + program, *arguments],
        cwd=package,  # the first place where Python looks for modules
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
