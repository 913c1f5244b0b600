# SPDX-License-Identifier: Apache-2.0
"""Importing the package does nothing but import."""

from __future__ import annotations

import importlib.metadata
import inspect
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


def _modules_after(statement: str) -> set[str]:
    code = f"import sys, threading\n{statement}\nassert threading.active_count() == 1\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_import_loads_next_to_nothing() -> None:
    """Milliseconds are counted by a benchmark, modules here: neither the extension, nor attrs."""
    added = _modules_after("import mizarnet") - _modules_after("import typing, importlib")
    assert added == {"mizarnet"}


def test_values_and_errors_do_not_load_the_extension() -> None:
    modules = _modules_after("import mizarnet as mz; mz.EndpointSpec, mz.Verdict, mz.MizarnetError")
    assert "mizarnet._model.specs" in modules
    assert not any(name.partition(".")[0] == "cffi" for name in modules)
    assert not any(name.startswith("mizarnet._kernel") for name in modules)


def test_what_a_call_rarely_needs_is_imported_by_those_who_ask() -> None:
    """A fifth of what a command that makes one call would pay for its modules."""
    modules = _modules_after(
        "from mizarnet import Endpoint, TransitAgent; Endpoint.create, TransitAgent.open"
    )
    assert "mizarnet._datapath.endpoints" in modules
    rare = ("walk", "self_test", "upgrade", "relocation", "repairs", "checks", "health", "install")
    others = ("gateway", "leftovers", "shortcuts", "switches")
    assert not any(
        name.startswith(f"mizarnet._datapath.{each}") for each in rare + others for name in modules
    )
    assert modules.isdisjoint({"difflib", "html", "json", "subprocess", "tempfile", "typing_extensions"})


def test_asyncio_is_imported_by_those_who_use_it() -> None:
    assert "asyncio" not in _modules_after("from mizarnet import *; Tunnel.create, TransitAgent.attach")
    assert "asyncio" in _modules_after("import mizarnet as mz; mz.aio.call")


def test_prometheus_is_imported_by_those_who_use_it() -> None:
    assert "prometheus_client" not in _modules_after(
        "from mizarnet import *; Tunnel.create, TransitAgent.attach"
    )
    assert "prometheus_client" in _modules_after("import mizarnet as mz; mz.metrics.Collector")


def test_every_public_name_works_whatever_was_imported_before() -> None:
    """A module of the package that had the name of a function would take its place."""
    everything = """
        import importlib, pkgutil, mizarnet
        for module in pkgutil.walk_packages(mizarnet.__path__, "mizarnet."):
            importlib.import_module(module.name)
        for name in mizarnet.__all__:
            value = getattr(mizarnet, name)
            assert name in ("__version__", "KEEP") or callable(value), name
        assert dir(mizarnet) == sorted([*mizarnet.__all__, "aio", "metrics"])
        assert len(mizarnet.__all__) == len({*mizarnet.__all__})
    """
    _modules_after(textwrap.dedent(everything))


def test_a_name_that_does_not_exist_is_named() -> None:
    import mizarnet

    with pytest.raises(AttributeError, match="no attribute 'Bridge'"):
        _ = mizarnet.Bridge


def test_the_version_is_a_literal_that_the_metadata_repeat() -> None:
    import mizarnet

    assert "importlib.metadata" not in _modules_after("import mizarnet")
    assert mizarnet.__version__ == importlib.metadata.version("mizarnet")


def test_every_name_of_the_root_says_where_it_comes_from() -> None:
    import mizarnet

    public = [name for name in mizarnet.__all__ if name[0].isupper()]
    assert {"Tunnel", "TransitAgent", "Endpoint", "MizarnetError"} <= set(public)
    assert all(getattr(mizarnet, name).__module__.startswith("mizarnet.") for name in public)


@pytest.mark.parametrize("file", sorted((ROOT / "tests/bench").glob("*.py")), ids=lambda file: file.stem)
def test_a_benchmark_that_no_tier_runs_can_be_imported(file: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import tests.bench.{file.stem}"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_what_a_user_sees_of_a_handle_is_documented() -> None:
    """Nothing of the strata below shows among the public attributes, which the class describes."""
    import mizarnet

    for cls in (
        mizarnet.Tunnel,
        mizarnet.TransitAgent,
        mizarnet.TransitSwitch,
        mizarnet.Endpoint,
        mizarnet.Lab,
    ):
        set_by_init = re.findall(
            r"^        self\.(\w+)(?::.*?)? = ", inspect.getsource(cls.__init__), re.MULTILINE
        )
        listed = re.findall(r"^    {4,8}(\w+): ", cls.__doc__ or "", re.MULTILINE)
        assert {name for name in set_by_init if not name.startswith("_")} <= set(listed), cls
