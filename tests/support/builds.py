# SPDX-License-Identifier: Apache-2.0
"""A second build of the programs: the same schema, another constant, another verdict."""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mizarnet._datapath import loader
from mizarnet._kernel.objects import has_route_identity
from tests.support.sources import change

ROOT = Path(__file__).resolve().parent.parent.parent
FLAGS = ("-O2", "-g", "-target", "bpf", "-mcpu=v3", "-Wall", "-Wextra", "-Werror")
OTHER_TTL = 63
"""Outer TTL of what the second build's agent sends; the first one's is 64."""
CHANGES = (
    ("OUTER_TTL", "64", str(OTHER_TTL)),
    ("go_to", "MZN_DROP_HAIRPIN", "MZN_DROP_NO_DESTINATION"),
)


def compile_second(into: Path) -> Path:
    """The object of the second build, for this kernel."""
    tree = into / "csrc"
    shutil.copytree(ROOT / "csrc", tree)
    for where, before, after in CHANGES:
        change(tree, where, before, after)
    return compile_tree(tree, into / "second.bpf.o")


def compile_tree(tree: Path, target: Path, *, source: str = "transit.bpf.c") -> Path:
    """The object ``target`` of a tree of C sources, for this kernel."""
    flags = () if has_route_identity() else ("-DMZN_NO_ROUTE_IDENTITY",)
    include = ("-I", tree / "include", "-idirafter", f"/usr/include/{sysconfig.get_config_var('MULTIARCH')}")
    made = tree / "bpf" / source
    subprocess.run(["clang", *FLAGS, *flags, *include, "-c", made, "-o", target], check=True, timeout=120)
    subprocess.run(["llvm-strip", "-g", target], check=True, timeout=60)
    return target


@contextmanager
def installed(path: Path) -> Iterator[None]:
    """As if the package had the object at ``path``, as long as the block lasts."""
    shipped = loader.object_path
    loader.object_path = lambda: path
    try:
        yield
    finally:
        loader.object_path = shipped
