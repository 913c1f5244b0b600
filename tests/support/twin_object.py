# SPDX-License-Identifier: Apache-2.0
"""The objects in which the programs run frame by frame, made of other sources than the package's."""

from __future__ import annotations

import os
import subprocess
import sysconfig
from pathlib import Path

from mizarnet._datapath.dry_run import object_path

ROOT = Path(__file__).resolve().parent.parent.parent
SOURCES = ROOT / "csrc"
# Less strict than the build of the package: a seeded bug may leave something unused.
FLAGS = ("-O2", "-g", "-target", "bpf", "-mcpu=v3", "-Wall", "-Werror")


def build(sources: Path, into: Path, *, route_identity: bool) -> Path:
    """The object made of a tree of sources; once for each directory."""
    target = into / object_path(route_identity=route_identity).name
    if not target.exists():
        into.mkdir(parents=True, exist_ok=True)
        part = target.with_suffix(f".{os.getpid()}")
        _compile(sources, FLAGS if route_identity else (*FLAGS, "-DMZN_NO_ROUTE_IDENTITY"), part)
        part.replace(target)
    return target


def _compile(sources: Path, flags: tuple[str, ...], target: Path) -> None:
    triple = sysconfig.get_config_var("MULTIARCH") or "x86_64-linux-gnu"
    include = [f"-I{sources / 'include'}", "-idirafter", f"/usr/include/{triple}"]
    source = sources / "bpf" / "dry_run.bpf.c"
    subprocess.run(["clang", *flags, *include, "-c", source, "-o", target], check=True, timeout=120)
    subprocess.run(["llvm-strip", "-g", target], check=True, timeout=60)
