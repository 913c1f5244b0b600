# SPDX-License-Identifier: Apache-2.0
"""The order in which the package's modules are imported, whichever thread is first.

Python holds the lock of a module while it imports its package, and that of a package while it imports the modules that
its ``__init__`` names. Two threads that begin at either end would find each other's locks: one of them gets a
``_DeadlockError``. So a package whose ``__init__`` imports a module of its own is imported before that module.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import mizarnet

ROOT = Path(mizarnet.__file__).parent


def _name(path: Path) -> str:
    parts = (ROOT.name, *path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


TREES = {_name(path): ast.parse(path.read_text()) for path in sorted(ROOT.rglob("*.py"))}
PACKAGES = {_name(path) for path in ROOT.rglob("__init__.py")} - {ROOT.name}


def _imports(scope: ast.AST) -> Iterator[str]:
    """The package's own modules that a scope imports, in their order, without those of scopes within it."""
    for node in ast.iter_child_nodes(scope):
        if isinstance(node, ast.ImportFrom) and node.module in TREES:
            yield node.module
            yield from (name for each in node.names if (name := f"{node.module}.{each.name}") in TREES)
        elif isinstance(node, ast.Import):
            yield from (each.name for each in node.names if each.name in TREES)
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not _is_for_types(
            node
        ):
            yield from _imports(node)


def _is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def _loaded_by(package: str) -> set[str]:
    """The package's own modules that its ``__init__`` imports, directly or by one of them."""
    found: set[str] = set()
    ahead = [package]
    while ahead:
        own = {name for name in _imports(TREES[ahead.pop()]) if name.startswith(f"{package}.")}
        ahead += own - found
        found |= own
    return found


def _wrong() -> Iterator[str]:
    package_of = {module: package for package in PACKAGES for module in _loaded_by(package)}
    for name, tree in TREES.items():
        at_top = [*_imports(tree)]
        functions = (
            each for each in ast.walk(tree) if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
        )
        for known, imports in (([], at_top), *((at_top, [*_imports(each)]) for each in functions)):
            order = [*known, *imports]
            for module in imports:
                package = package_of.get(module, name)
                if package not in order[: order.index(module)] and not f"{name}.".startswith(f"{package}."):
                    yield f"{name} imports {module} before {package}"


def test_a_package_comes_before_the_modules_that_it_imports() -> None:
    assert len(PACKAGES) > 10
    assert [*_wrong()] == []
