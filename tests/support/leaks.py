# SPDX-License-Identifier: Apache-2.0
"""What a test may leave behind, seen from outside the library."""

from __future__ import annotations

import gc
import os
import threading
from pathlib import Path

import attrs

from mizarnet._kernel.runners import NAME
from tests.support.wait import wait_until


def descriptors() -> frozenset[str]:
    """What this process has open.

    By file, and not by path: that of a tap changes when the kernel is done with the mount it was opened in.
    """
    found: set[str] = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            target, file = os.readlink(f"/proc/self/fd/{number}"), os.fstat(int(number))
        except OSError:  # the listing's own
            continue
        found.add(f"{number} {Path(target).name} {file.st_dev}:{file.st_ino}")
    return frozenset(found)


def _names(directory: str) -> frozenset[str]:
    return frozenset(os.listdir(directory)) if os.path.isdir(directory) else frozenset()


def _threads() -> frozenset[str]:
    """The threads of this process, but for the one that the library keeps for its next call."""
    each = threading.enumerate()
    runners = [thread for thread in each if thread.name == NAME]
    return frozenset(f"{thread.name} {thread.ident}" for thread in each if [thread] != runners)


@attrs.frozen
class Snapshot:
    """Everything of that kind at one moment.

    No programs: the kernel does not say who loaded one, and other runs of the tests load some of the same names. What
    keeps one is here: a descriptor, or a namespace with a device. `World` waits for the end of its own.
    """

    descriptors: frozenset[str]
    threads: frozenset[str]
    links: frozenset[str]
    namespaces: frozenset[str]

    @classmethod
    def take(cls) -> Snapshot:
        return cls(
            descriptors=descriptors(),
            threads=_threads(),
            links=_names("/sys/class/net"),
            namespaces=_names("/run/netns"),
        )

    def excess(self, before: Snapshot) -> dict[str, list[str]]:
        """What is here now and was not ``before``."""
        now, then = attrs.asdict(self), attrs.asdict(before)
        return {kind: sorted(now[kind] - then[kind]) for kind in now if now[kind] - then[kind]}


def assert_nothing_new(before: Snapshot) -> None:
    """Everything that came since ``before`` must be gone; the kernel gets a few seconds for deferred work."""
    if not Snapshot.take().excess(before):
        return
    gc.collect()
    wait_until(
        lambda: not Snapshot.take().excess(before), lambda: f"left behind: {Snapshot.take().excess(before)}"
    )
