# SPDX-License-Identifier: Apache-2.0
"""Every descriptor has one owner."""

from __future__ import annotations

import os
import resource
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from mizarnet._kernel.bpf import Direction, ObjectSpec, query_filters
from mizarnet._kernel.bpf.fd import Fd
from mizarnet.errors import ClosedError, KernelError, NetlinkError, VerifierError
from tests.support.leaks import descriptors


def test_closed_once() -> None:
    fd = Fd.copy_of(0, what="a copy")
    number = fd.fileno()
    fd.close()
    fd.close()
    assert fd.closed
    assert not os.path.exists(f"/proc/self/fd/{number}")
    with pytest.raises(ClosedError, match="a copy"):
        fd.fileno()


def test_forgotten_descriptor_warns_and_is_closed() -> None:
    fd = Fd.copy_of(0, what="a copy")
    number = fd.fileno()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del fd
    assert [(item.category, "a copy" in str(item.message)) for item in caught] == [(ResourceWarning, True)]
    assert not os.path.exists(f"/proc/self/fd/{number}")


def test_loading_many_times_leaks_nothing(objects: Path) -> None:
    before = descriptors()
    for _ in range(20):
        with ObjectSpec.open(objects / "sample.bpf.o", name="sample") as spec, spec.load():
            pass
        with pytest.raises(VerifierError):
            ObjectSpec.open(objects / "rejected.bpf.o", name="rejected").load()
    assert descriptors() == before


def test_not_inherited(objects: Path) -> None:
    with ObjectSpec.open(objects / "sample.bpf.o", name="sample").load() as loaded:
        handles = [*loaded.maps.values(), *loaded.programs.values()]
        assert [os.get_inheritable(handle.fileno()) for handle in handles] == [False] * len(handles)


@contextmanager
def room_for(count: int) -> Iterator[None]:
    """Let this process open so many descriptors, and no more."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as undo:
        undo.callback(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
        taken: list[int] = []
        with suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        for fd in taken[:count]:
            os.close(fd)
        for fd in taken[count:]:
            undo.callback(os.close, fd)
        yield


def test_too_many_are_an_error_of_the_package(objects: Path) -> None:
    with room_for(0), pytest.raises(NetlinkError, match="open an rtnetlink socket"):
        query_filters(1, direction=Direction.INGRESS)
    before, said = descriptors(), set[str]()
    for count in range(64):
        with ObjectSpec.open(objects / "sample.bpf.o", name="sample") as spec, room_for(count):
            try:
                spec.load().close()
                break
            except KernelError as refused:
                said.add(refused.operation)
        assert descriptors() == before
    assert {each.partition(" of ")[0] for each in said} >= {"load BPF object 'sample'", "copy the descriptor"}
