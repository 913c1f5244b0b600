# SPDX-License-Identifier: Apache-2.0
"""Tiers, time limits, isolation, the look for what leaked, and the counters that must add up.

The directory of a test is its tier: ``unit`` runs anywhere, ``bpf`` and ``netns`` need root. The marker ``vm``
puts a test into the selection that also runs inside the emulated kernels; what runs with each encapsulation on
this machine runs there with Geneve, and if it has the marker ``demand`` with VXLAN too.
"""

from __future__ import annotations

import faulthandler
import functools
import os
import signal
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TextIO

import pytest

TEST_SECONDS = int(os.environ.get("MIZARNET_TEST_SECONDS", "120"))
"""A test that takes longer fails."""
ABORT_SECONDS = TEST_SECONDS + 30
"""A test that does not react to that, because the kernel does not return, ends the whole run."""
PRIVILEGED = ("bpf", "netns")
"""Tiers whose tests change the kernel."""

PART, PARTS = map(int, os.environ.get("MIZARNET_TEST_PART", "1/1").split("/"))
"""Which part of the tests is run, of how many: a run that takes hours can be continued."""
TURN, TURNS = map(int, os.environ.get("MIZARNET_TEST_TURN", "1/1").split("/"))
"""The same for tests of ``netns`` that are no demand: a short run takes others every day."""

_stderr: list[TextIO] = []


def pytest_configure() -> None:
    # Output is not captured yet: the last words of a hung run must reach the terminal.
    _stderr.append(os.fdopen(os.dup(2), "w"))


def pytest_unconfigure() -> None:
    faulthandler.cancel_dump_traceback_later()
    _stderr.pop().close()


@functools.cache
def offered_encapsulations() -> tuple[str, ...]:
    """What this kernel has; tests/netns/test_probe.py says what each known kernel must have."""
    if os.geteuid():
        return ("vxlan", "geneve")
    import mizarnet as mz

    features = mz.probe()
    return tuple(name for name in ("vxlan", "geneve") if getattr(features, name))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "encap" in metafunc.fixturenames and tier(metafunc.definition) != "unit":
        each = [pytest.param(name, marks=getattr(pytest.mark, name)) for name in offered_encapsulations()]
        metafunc.parametrize("encap", each, scope="module")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    elsewhere = [item for item in items if not _is_here(item)]
    if elsewhere:
        config.hook.pytest_deselected(items=elsewhere)
        items[:] = [item for item in items if _is_here(item)]


def _is_here(item: pytest.Item) -> bool:
    always = tier(item) == "bpf" or item.get_closest_marker("demand") is not None
    return _part(item, PARTS) == PART and (always or _part(item, TURNS) == TURN)


def _part(item: pytest.Item, parts: int) -> int:
    function, _, _ = item.nodeid.partition("[")
    return zlib.crc32(function.encode()) % parts + 1


def tier(node: pytest.Item | pytest.Collector) -> str:
    """``unit``, ``bpf``, ``netns`` ...: the directory below this one."""
    return node.path.relative_to(Path(__file__).parent).parts[0]


# -- time --------------------------------------------------------------------------------------------------


def _too_long(signum: int, frame: FrameType | None) -> None:
    raise TimeoutError(f"the test took more than {TEST_SECONDS} s")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Interrupt a slow test; abort the run, with every thread's stack, when that does not help."""
    previous = signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(TEST_SECONDS)
    faulthandler.dump_traceback_later(ABORT_SECONDS, exit=True, file=_stderr[-1])
    try:
        return (yield)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
        faulthandler.cancel_dump_traceback_later()


# -- isolation and leaks -----------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def isolated() -> Iterator[None]:
    """File systems of the run's own, counted runs, and everything imported that the first call imports."""
    from tests.support.isolation import isolate

    if os.geteuid():
        pytest.exit("the tests of these tiers need root", returncode=3)
    isolate()
    from mizarnet._kernel.netlink import Session, set_link
    from tests.support.invariants import counting_runs

    with Session.open() as session:
        set_link(session, 1)
    with counting_runs():
        yield


@pytest.fixture(scope="module", autouse=True)
def no_leaks_of_module(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a module's fixtures make goes with them."""
    yield from _watched(request)


@pytest.fixture(autouse=True)
def no_leaks(request: pytest.FixtureRequest, no_leaks_of_module: None) -> Iterator[None]:
    """A test leaves no link, namespace, descriptor or thread behind."""
    yield from _watched(request)


def _watched(request: pytest.FixtureRequest) -> Iterator[None]:
    if tier(request.node) not in PRIVILEGED:
        yield
        return
    from tests.support.leaks import Snapshot, assert_nothing_new

    request.getfixturevalue("isolated")
    before = Snapshot.take()
    yield
    assert_nothing_new(before)


# -- counters ----------------------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """After a test, while its fixtures still stand, the counters of every agent add up."""
    result = yield
    if tier(item) in PRIVILEGED:
        from tests.support.invariants import assert_accounts_add_up

        assert_accounts_add_up()
    return result
