# SPDX-License-Identifier: Apache-2.0
"""What the first use of the package says where libbpf or the extension is missing: one line, an error of the tree."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import mizarnet

EXTENSION = "_kernel/bpf/_ext.abi3.so"
USE = """
import traceback
import mizarnet
try:
    mizarnet.Tunnel
except mizarnet.MissingLibraryError as error:
    print(*traceback.format_exception_only(error), sep="", end="")
    print(error.__cause__, error.__suppress_context__)
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package, to be damaged."""
    copy = tmp_path / "mizarnet"
    shutil.copytree(Path(mizarnet.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def patch(file: Path, old: bytes, new: bytes) -> None:
    """Replace a name in the extension's table of strings, in which every name keeps its place."""
    assert len(old) == len(new)
    assert old in file.read_bytes()
    file.write_bytes(file.read_bytes().replace(old, new))


def use_of(package: Path) -> list[str]:
    """Lines that are printed about the error of a first use of the copy."""
    where = {"PYTHONPATH": str(package.parent), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", USE]
    done = subprocess.run(
        command, cwd=package.parent, env=os.environ | where, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


def test_an_undamaged_copy_is_used(package: Path) -> None:
    assert use_of(package) == []


def test_a_missing_libbpf_is_named_with_its_package(package: Path) -> None:
    patch(package / EXTENSION, b"libbpf.so.1\0", b"libbpf.so.0\0")
    assert use_of(package) == [
        "mizarnet.errors.MissingLibraryError: libbpf.so.0: cannot open shared object file: "
        "No such file or directory; on Debian: apt-get install libbpf1",
        "None True",
    ]


def test_a_libbpf_that_is_too_old_is_named_with_its_package(package: Path) -> None:
    patch(package / EXTENSION, b"\0bpf_prog_bind_map\0", b"\0bpf_prog_bind_new\0")
    line, _context = use_of(package)
    assert "undefined symbol: bpf_prog_bind_new" in line
    assert line.endswith("; on Debian: apt-get install libbpf1")


def test_a_tree_without_the_extension_says_how_to_get_it(package: Path) -> None:
    (package / EXTENSION).unlink()
    line, _context = use_of(package)
    assert "No module named 'mizarnet._kernel.bpf._ext'" in line
    assert line.endswith("; install mizarnet with pip, which compiles it")


def test_the_extra_that_metrics_need_is_named() -> None:
    code = "import sys; sys.modules['prometheus_client'] = None; import mizarnet as mz; mz.metrics"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("mizarnet.errors.MissingLibraryError: No module named 'prometheus_client.core'")
    assert last.endswith("; pip install 'mizarnet[metrics]'")
