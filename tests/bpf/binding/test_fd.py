# SPDX-License-Identifier: Apache-2.0
"""Every descriptor has one owner."""

from __future__ import annotations

import gc
import os
import resource
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from mizarnet._kernel.bpf import Map, Object, ObjectSpec, query_filters
from mizarnet._kernel.bpf.fd import Fd
from mizarnet.errors import BpfError, ClosedError, KernelError, NetlinkError, VerifierError
from tests.support.leaks import descriptors
from tests.support.process import run_python


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


def test_what_is_retired_is_closed_without_a_word_when_nobody_uses_it(sample: Object) -> None:
    table = Map.open_id(sample.maps["table"].id)
    assert table is not None
    number, in_use = table.fileno(), table.items()
    table.retire()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del table
        assert os.path.samefile(f"/proc/self/fd/{number}", os.devnull)  # nothing else gets the number
        with pytest.raises(BpfError):
            next(in_use)
        in_use.close()
        del in_use
        gc.collect()  # the error may refer to it
    assert not os.path.exists(f"/proc/self/fd/{number}")


def test_the_memory_of_a_map_that_was_let_go_is_an_error_of_the_tree(sample: Object) -> None:
    table = Map.open_id(sample.maps["table"].id)
    assert table is not None
    with table:
        table.let_go()
        with pytest.raises(BpfError):
            _ = table.memory


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
    with room_for(0), pytest.raises(NetlinkError, match="open a netlink socket"):
        query_filters(1)
    with room_for(0), pytest.raises(KernelError, match="copy the descriptor of a copy"):
        Fd.copy_of(0, what="a copy")
    before, said = descriptors(), set[str]()
    for count in range(64):
        with ObjectSpec.open(objects / "sample.bpf.o", name="sample") as spec, room_for(count):
            try:
                spec.load().close()
                break
            except KernelError as refused:
                said.add(refused.operation)
        assert descriptors() == before
    assert said == {"load BPF object 'sample'"}


def test_a_shortage_is_over_when_it_is_over() -> None:
    """At its first load libbpf tries what the kernel can, and remembers it: a shortage must not count as a no."""
    program = """
        import resource
        from mizarnet._kernel.bpf import ObjectSpec
        from mizarnet._kernel.objects import object_path
        path = object_path("transit", route_identity=False)
        last = os.open(os.devnull, os.O_RDONLY)
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        for room in range(1, 64):
            resource.setrlimit(resource.RLIMIT_NOFILE, (last + room, limits[1]))
            try:
                ObjectSpec.open(path, name="transit").load().close()
            except mz.KernelError as refused:
                assert "ulimit -n" in refused.hint, refused
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        ObjectSpec.open(path, name="transit").load().close()
    """
    assert run_python(program) == ""
