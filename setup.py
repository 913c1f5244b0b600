# SPDX-License-Identifier: Apache-2.0
"""Build steps beyond pyproject.toml: the cffi extension against libbpf, and the BPF objects with clang."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sysconfig
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar

from setuptools import Command, setup
from setuptools.command.build import build
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
OBJECTS = Path("mizarnet/_objects")

# BPF object -> its source under csrc/bpf, and the extra flags that make this variant of it.
VARIANTS: dict[str, tuple[str, list[str]]] = {
    "transit.bpf.o": ("transit.bpf.c", []),
    "transit-mac-only.bpf.o": ("transit.bpf.c", ["-DMZN_NO_ROUTE_IDENTITY"]),
    "dry-run.bpf.o": ("dry_run.bpf.c", []),
    "dry-run-mac-only.bpf.o": ("dry_run.bpf.c", ["-DMZN_NO_ROUTE_IDENTITY"]),
    "behaviours.bpf.o": ("behaviours.bpf.c", []),
    "behaviours-mac-only.bpf.o": ("behaviours.bpf.c", ["-DMZN_NO_ROUTE_IDENTITY"]),
}

# Built files do not depend on where they were built.
NO_PATHS = f"-ffile-prefix-map={ROOT}=."

PACKAGES = "apt-get install clang llvm libbpf-dev libelf-dev zlib1g-dev pkg-config gcc libc6-dev python3-dev"


def require(missing: Iterable[str]) -> None:
    """Stop with one readable message that names every missing build tool."""
    if names := list(missing):
        raise SystemExit(f"mizarnet cannot be built, missing: {', '.join(names)}.\nOn Debian: {PACKAGES}")


def pkg_config(*arguments: str) -> list[str]:
    """What pkg-config says about libbpf, as separate words."""
    tool = os.environ.get("PKG_CONFIG", "pkg-config")
    return subprocess.run([tool, *arguments], check=True, capture_output=True, text=True).stdout.split()


def has_libbpf() -> bool:
    """Whether pkg-config finds a libbpf that is new enough."""
    tool = os.environ.get("PKG_CONFIG", "pkg-config")
    return subprocess.run([tool, "--exists", "libbpf >= 1.1"], check=False).returncode == 0


def missing_for_extension() -> Iterable[str]:
    """Names of the tools that the extension module needs and this machine lacks."""
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    if not shutil.which(compiler):
        yield f"a C compiler ({compiler})"
    if not Path(sysconfig.get_paths()["include"], "Python.h").exists():
        yield "the header Python.h"
    if not shutil.which(os.environ.get("PKG_CONFIG", "pkg-config")):
        yield "pkg-config"
    elif not has_libbpf():
        yield "libbpf >= 1.1"


class BuildExtension(build_ext):
    """Compile the extension with the flags that pkg-config gives for libbpf."""

    def run(self) -> None:
        """Ask pkg-config only now: making an sdist needs no libbpf."""
        require(missing_for_extension())
        for extension in self.extensions:
            extension.extra_compile_args += [*pkg_config("--cflags", "libbpf"), NO_PATHS]
            extension.extra_link_args += pkg_config("--libs", "libbpf")
        super().run()


class BuildBpf(Command):
    """Compile the BPF objects into ``mizarnet/_objects``."""

    description = "compile the BPF objects"
    user_options: ClassVar[list[tuple[str, str, str]]] = [
        ("build-lib=", "b", "directory to build into"),
        ("inplace", "i", "build into the source tree"),
    ]
    boolean_options: ClassVar[list[str]] = ["inplace"]
    editable_mode = False

    def initialize_options(self) -> None:
        """Set the defaults."""
        self.build_lib: str | None = None
        self.inplace = False

    def finalize_options(self) -> None:
        """Build where the Python files are built."""
        self.set_undefined_options("build_py", ("build_lib", "build_lib"))

    def run(self) -> None:
        """Compile every variant; llvm-strip drops DWARF but keeps BTF, which libbpf needs."""
        clang = os.environ.get("CLANG", "clang")
        strip = os.environ.get("LLVM_STRIP", "llvm-strip")
        pkg = os.environ.get("PKG_CONFIG", "pkg-config")
        require(tool for tool in (clang, strip, pkg) if not shutil.which(tool))
        require([] if has_libbpf() else ["libbpf >= 1.1"])
        self.target().mkdir(parents=True, exist_ok=True)
        for name, (source, extra) in VARIANTS.items():
            output = str(self.target() / name)
            self.spawn([clang, *self.flags(), *extra, "-c", f"csrc/bpf/{source}", "-o", output])
            self.spawn([strip, "-g", output])

    def target(self) -> Path:
        """Directory of the objects: the source tree for an editable install."""
        return OBJECTS if self.inplace or self.editable_mode else self.built()

    def built(self) -> Path:
        """Directory of the objects in a built distribution."""
        assert self.build_lib is not None  # finalize_options has run
        return Path(self.build_lib) / OBJECTS

    def flags(self) -> list[str]:
        """Flags of every object. clang for BPF does not search the directory where Debian has asm/types.h."""
        triple = sysconfig.get_config_var("MULTIARCH") or f"{platform.machine()}-linux-gnu"
        return [
            *("-O2", "-g", "-target", "bpf", "-mcpu=v3", "-Wall", "-Wextra", "-Werror"),
            *("-Icsrc/include", *pkg_config("--cflags", "libbpf"), "-idirafter", f"/usr/include/{triple}"),
            NO_PATHS,
        ]

    def get_source_files(self) -> list[str]:
        """Every file that the objects are made from."""
        trees = [Path("csrc/bpf"), Path("csrc/include")]
        return sorted(str(file) for tree in trees for file in tree.rglob("*.[ch]"))

    def get_outputs(self) -> list[str]:
        """The files of a built distribution."""
        return [str(self.built() / name) for name in VARIANTS]

    def get_output_mapping(self) -> dict[str, str]:
        """Built file to file in the source tree: none, since these are not copied."""
        return {}


class CheckBpf(BuildBpf):
    """Compile every file under ``csrc/bpf`` by itself, so that each says what it needs."""

    description = "compile every BPF header and source by itself, and keep nothing"

    def run(self) -> None:
        """With the flags of the objects, and each way that these are compiled in."""
        clang = os.environ.get("CLANG", "clang")
        for file in self.get_source_files():
            # A header that is included leaves functions unused; one that is compiled would be told so.
            unit = ["-x", "c", "/dev/null", "-include", file] if file.endswith(".h") else [file]
            for extra in ([], ["-DMZN_NO_ROUTE_IDENTITY"]):
                command = [clang, *self.flags(), *extra, "-fsyntax-only", *unit]
                print(f"  {file} {' '.join(extra)}".rstrip(), flush=True)
                subprocess.run(command, check=True)


class Build(build):
    """``build`` with the BPF objects as one more step."""

    sub_commands: ClassVar[list[tuple[str, Callable[[Any], bool] | None]]] = [
        *build.sub_commands,
        ("build_bpf", None),
    ]


def wheel_options() -> dict[str, dict[str, str]]:
    """Tag of the wheel. cffi builds for the limited API, except on free-threaded Pythons, which have none."""
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        return {}
    return {"bdist_wheel": {"py_limited_api": "cp311"}}


setup(
    cffi_modules=["csrc/binding/build_ext.py:ffibuilder"],
    cmdclass={"build": Build, "build_bpf": BuildBpf, "build_ext": BuildExtension, "check_bpf": CheckBpf},
    options=wheel_options(),
)
