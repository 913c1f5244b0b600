# SPDX-License-Identifier: Apache-2.0
"""The type stub of the extension says what the extension has, no more and no less."""

from __future__ import annotations

import ast
from pathlib import Path

import mizarnet._kernel.bpf as package
from mizarnet._kernel.bpf import _lib

# C code calls it; Python only defines it.
CALLBACKS = {"mzn_log"}

# Read by nobody, but cffi lists every enumerator of a declared enumeration.
ENUMERATORS = {"BPF_XDP"}


def stub_names() -> set[str]:
    tree = ast.parse((Path(package.__file__).parent / "_ext.pyi").read_text())
    [body] = [node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Lib"]
    functions = {node.name for node in body if isinstance(node, ast.FunctionDef)}
    values = {
        node.target.id
        for node in body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    return functions | values


def test_stub_matches_the_extension() -> None:
    assert stub_names() == set(dir(_lib.lib)) - CALLBACKS - ENUMERATORS
