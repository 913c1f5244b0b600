# SPDX-License-Identifier: Apache-2.0
"""The object in which the shipped programs run in a kernel that a test makes up, compiled when it is first needed."""

from __future__ import annotations

import os
import subprocess
import sysconfig
from hashlib import blake2b
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
SOURCES, TWIN = ROOT / "csrc", ROOT / "tests" / "twin"
BUILT = ROOT / "build" / "twin"
FLAGS = ("-O2", "-g", "-target", "bpf", "-mcpu=v3", "-Wall", "-Werror")


def build(sources: Path = SOURCES, *, route_identity: bool, into: Path = BUILT) -> Path:
    """The object made of a tree of sources; built once for the same sources."""
    flags = FLAGS if route_identity else (*FLAGS, "-DMZN_NO_ROUTE_IDENTITY")
    target = into / f"{_digest(sources, flags)}.bpf.o"
    if not target.exists():
        into.mkdir(parents=True, exist_ok=True)
        part = target.with_suffix(f".{os.getpid()}")
        _compile(sources, flags, part)
        part.replace(target)
    return target


def _digest(sources: Path, flags: tuple[str, ...]) -> str:
    digest = blake2b(" ".join(flags).encode(), digest_size=8)
    for file in sorted([*sources.rglob("*.[ch]"), *TWIN.iterdir()]):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _compile(sources: Path, flags: tuple[str, ...], target: Path) -> None:
    triple = sysconfig.get_config_var("MULTIARCH") or "x86_64-linux-gnu"
    include = [f"-I{sources / 'include'}", f"-I{sources / 'bpf'}", f"-I{TWIN}"]
    system = ["-idirafter", f"/usr/include/{triple}"]
    command = ["clang", *flags, *include, *system, "-c", str(TWIN / "twin.bpf.c"), "-o", str(target)]
    subprocess.run(command, check=True, timeout=120)
    subprocess.run(["llvm-strip", "-g", str(target)], check=True, timeout=60)


if __name__ == "__main__":
    for each in (True, False):
        print(build(route_identity=each))
