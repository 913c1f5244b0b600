# SPDX-License-Identifier: Apache-2.0
"""Fixtures: namespaces and sessions that vanish with the test, and a look for what leaked."""

from __future__ import annotations

import gc
import itertools
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from mizarnet._kernel.netlink import Session, create_netns, delete_netns, set_link

MakeSession = Callable[[], Session]


@pytest.fixture(scope="session", autouse=True)
def first_request() -> None:
    """Import what the first request imports, so that leaks can be counted exactly afterwards."""
    with Session.open() as session:
        set_link(session, 1)


def _descriptors() -> set[tuple[str, str]]:
    found: set[tuple[str, str]] = set()
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.add((fd, os.readlink(f"/proc/self/fd/{fd}")))
        except FileNotFoundError:  # the listing's own
            continue
    return found


@pytest.fixture(autouse=True)
def no_leaks(first_request: None) -> Iterator[None]:
    """Fail a test that leaves a thread, a descriptor or a named namespace behind."""
    gc.collect()
    threads, descriptors = set(threading.enumerate()), _descriptors()
    yield
    gc.collect()
    assert set(threading.enumerate()) <= threads
    assert _descriptors() <= descriptors
    names = os.listdir("/run/netns") if os.path.isdir("/run/netns") else []
    assert not [name for name in names if name.startswith("mzl")]


@pytest.fixture
def new_name(no_leaks: None) -> Iterator[Callable[[], str]]:
    """Return a maker of namespace names that are deleted after the test."""
    counter = itertools.count()
    names: list[str] = []

    def make() -> str:
        names.append(f"mzl{os.getpid()}-{next(counter)}")
        return names[-1]

    yield make
    for name in names:
        delete_netns(name)


@pytest.fixture
def open_new(new_name: Callable[[], str]) -> Iterator[MakeSession]:
    """Return a maker of sessions to new namespaces."""
    with ExitStack() as stack:

        def make() -> Session:
            name = new_name()
            create_netns(name)
            return stack.enter_context(Session.open(name))

        yield make


@pytest.fixture
def session(open_new: MakeSession) -> Session:
    """Return a session to a new namespace."""
    return open_new()
