# SPDX-License-Identifier: Apache-2.0
"""Running ``timer.c`` between two namespaces."""

from __future__ import annotations

import itertools
import json
import subprocess
from pathlib import Path
from typing import Literal

import attrs

from tests.bench.peers.base import Way

_ports = itertools.cycle(range(20_000, 30_000, 32))
_PATIENCE = 20.0


@attrs.frozen
class Timer:
    """The compiled program.

    Attributes:
        path: The program.
        priority: Real-time priority of all that it runs; 0: none.
    """

    path: Path
    priority: int = 0

    def run(
        self,
        mode: Literal["rr", "stream", "udp"],
        way: Way,
        *,
        cpus: tuple[int, int] = (-1, -1),
        seconds: float = 0.4,
        count: int = 1,
    ) -> dict[str, float]:
        """Time it once.

        Args:
            mode: Round trips of one byte over TCP, bulk over TCP, or datagrams.
            way: From where to where.
            cpus: CPUs of client and server; -1: any.
            seconds: How long.
            count: Connections of a stream; bytes of a datagram.

        Returns:
            The rate: round trips, or datagrams that arrived, a second; or gigabits a second. For round trips the median
            ``p50`` and ``p99`` too, in microseconds.
        """
        places = (way.source.path, way.target.path, way.address, str(next(_ports)))
        numbers = (*map(str, cpus), str(seconds), str(count), str(self.priority))
        done = subprocess.run(
            (self.path, mode, *places, *numbers), capture_output=True, text=True, timeout=seconds + _PATIENCE
        )
        assert done.returncode == 0, f"{mode} to {way.address}: {done.stderr}"
        found: dict[str, float] = json.loads(done.stdout)
        return found
