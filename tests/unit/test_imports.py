# SPDX-License-Identifier: Apache-2.0
"""Importing the package does nothing but import."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys


def _modules_after(statement: str) -> set[str]:
    code = f"import sys, threading\n{statement}\nassert threading.active_count() == 1\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_import_leaves_pyroute2_alone() -> None:
    modules = _modules_after("import mizarnet")
    assert "mizarnet._kernel.netlink" in modules
    assert not any(name.partition(".")[0] == "pyroute2" for name in modules)


def test_the_version_is_a_literal_that_the_metadata_repeat() -> None:
    import mizarnet

    assert "importlib.metadata" not in _modules_after("import mizarnet")
    assert mizarnet.__version__ == importlib.metadata.version("mizarnet")


def test_every_name_of_the_root_says_where_it_comes_from() -> None:
    import mizarnet

    public = [name for name in vars(mizarnet) if name[0].isupper()]
    assert {"Tunnel", "TransitAgent", "Endpoint", "MizarnetError"} <= set(public)
    assert all(vars(mizarnet)[name].__module__.startswith("mizarnet.") for name in public)
