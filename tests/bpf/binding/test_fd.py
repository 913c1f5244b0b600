# SPDX-License-Identifier: Apache-2.0
"""Every descriptor has one owner."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import pytest

from mizarnet._kernel.bpf import ObjectSpec
from mizarnet._kernel.bpf.fd import Fd
from mizarnet.errors import ClosedError, VerifierError
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
