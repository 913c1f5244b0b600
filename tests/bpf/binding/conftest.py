# SPDX-License-Identifier: Apache-2.0
"""Small BPF objects compiled on the spot, a namespace with a veth pair, and a watch over descriptors."""

from __future__ import annotations

import gc
import os
import platform
from collections.abc import Iterator
from pathlib import Path

import pytest

from mizarnet._kernel.bpf import Object, ObjectSpec
from tests.bpf.binding.veth import Namespace, run
from tests.support.leaks import descriptors

HERE = Path(__file__).parent
FLAGS = ("-O2", "-g", "-target", "bpf", "-mcpu=v3", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter")


@pytest.fixture(scope="session")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of the compiled objects."""
    target = tmp_path_factory.mktemp("objects")
    include = f"/usr/include/{platform.machine()}-linux-gnu"
    for source in HERE.glob("*.bpf.c"):
        output = str(target / source.with_suffix(".o").name)
        run("clang", *FLAGS, "-idirafter", include, "-c", str(source), "-o", output)
        run("llvm-strip", "-g", output)
    return target


@pytest.fixture
def spec(objects: Path) -> Iterator[ObjectSpec]:
    """The sample object, opened."""
    with ObjectSpec.open(objects / "sample.bpf.o", name="sample") as opened:
        yield opened


@pytest.fixture
def sample(spec: ObjectSpec) -> Iterator[Object]:
    """The sample object, loaded."""
    with spec.load() as loaded:
        yield loaded


@pytest.fixture
def inside() -> Iterator[Namespace]:
    """A namespace for one test."""
    namespace = Namespace(f"mzb{os.getpid()}")
    yield namespace
    run("ip", "netns", "delete", namespace.name)


@pytest.fixture(autouse=True)
def no_descriptor_left(objects: Path) -> Iterator[None]:
    """Every test closes what it opens."""
    before = descriptors()
    yield
    gc.collect()
    assert {item for item in descriptors() - before if "bpf" in item or "eventpoll" in item} == set()
