# SPDX-License-Identifier: Apache-2.0
"""A network namespace with a veth pair in it, made by commands: what is tested here has no netlink."""

from __future__ import annotations

import ctypes
import subprocess
import threading
from collections.abc import Callable
from typing import TypeVar

import pytest

from mizarnet._kernel.bpf import has_tcx

T = TypeVar("T")

CLONE_NEWNET = 0x40000000

needs_tcx = pytest.mark.skipif(not has_tcx(), reason="this kernel has no tcx (6.6)")


def run(*command: str) -> str:
    """Run a command that must succeed within ten seconds."""
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=10)
    return done.stdout


class Namespace:
    """A network namespace with the veth pair ``mzb0``-``mzb1`` in it."""

    def __init__(self, name: str) -> None:
        self.name = name
        run("ip", "netns", "add", name)
        self.ip("link", "add", "mzb0", "type", "veth", "peer", "name", "mzb1")
        self.ip("link", "set", "mzb0", "up")
        self.ip("link", "set", "mzb1", "up")

    def ip(self, *arguments: str) -> str:
        return run("ip", "-n", self.name, *arguments)

    def tc(self, *arguments: str) -> str:
        return run("tc", "-n", self.name, *arguments)

    def index(self, device: str) -> int:
        return int(self.ip("-o", "link", "show", device).split(":")[0])

    def __call__(self, work: Callable[[], T]) -> T:
        """Do ``work`` in a thread that lives in the namespace."""
        results: list[T] = []
        errors: list[BaseException] = []

        def inside() -> None:
            try:
                enter(f"/run/netns/{self.name}")
                results.append(work())
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=inside)
        thread.start()
        thread.join(10)
        if errors:
            raise errors[0]
        return results[0]


def enter(path: str) -> None:
    """Move this thread into a network namespace."""
    with open(path, "rb") as namespace:
        if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
