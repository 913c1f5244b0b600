# SPDX-License-Identifier: Apache-2.0
"""The package asks the kernel itself: it starts no command but ``nft``, and in a lab what its user asks for."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import mizarnet

PACKAGE = Path(mizarnet.__file__).parent
MAY_START = {"lab.py", "_kernel/nftables.py"}
STARTERS = {"subprocess", "pty", "multiprocessing"}
OF_OS = ("exec", "spawn", "posix_spawn", "system", "popen", "fork")


def starters(source: str) -> Iterator[str]:
    """What a module has by which a process could be started."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names if each.name.split(".")[0] in STARTERS)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in STARTERS:
            yield node.module or ""
        elif (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == "os"
            and node.attr.startswith(OF_OS)
        ):
            yield f"os.{node.attr}"


def test_no_module_starts_commands_of_the_network() -> None:
    found = {
        str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if any(starters(path.read_text()))
    }
    assert found == MAY_START


def test_what_starts_a_process_is_noticed() -> None:
    assert [*starters("import subprocess")] == ["subprocess"]
    assert [*starters("from multiprocessing.pool import Pool")] == ["multiprocessing.pool"]
    assert [*starters("import os\nos.execvp('ip', ['ip'])")] == ["os.execvp"]
    assert [*starters("import os\nos.close(3)")] == []
