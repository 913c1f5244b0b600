# SPDX-License-Identifier: Apache-2.0
"""Somebody on another host who asks all addresses of a tenant at once; how the guard judged the questions."""

from __future__ import annotations

import itertools
import os
import select
import socket
from collections.abc import Collection
from contextlib import suppress
from typing import Self

import mizarnet as mz
from mizarnet import Verdict
from tests.frames import echo_request
from tests.support.namespace import Namespace
from tests.support.wait import wait_until

SECONDS = 1.0


class Asker:
    """Pings from one namespace, to endpoints on the host of an agent."""

    def __init__(self, namespace: Namespace, agent: mz.TransitAgent) -> None:
        """Asking takes one socket."""
        self._agent = agent
        self._socket = namespace.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        self._socket.setblocking(False)
        self._numbers = itertools.count(1)

    def ask(self, everybody: Collection[str], wanted: Collection[str]) -> tuple[set[str], int]:
        """Ask everybody, and wait until those who should have answered.

        Returns:
            Who answered, and how many of the questions the guard accepted.
        """
        number = next(self._numbers) & 0xFFFF
        before = self._judged()
        for address in everybody:
            self._socket.sendto(echo_request(os.getpid() & 0xFFFF, number), (address, 0))
        wait_until(
            lambda: sum(self._judged()) - sum(before) >= len(everybody),
            lambda: f"of {len(everybody)} questions, {sum(self._judged()) - sum(before)} came to the guard",
            timeout=SECONDS,
        )
        found: set[str] = set()
        with suppress(AssertionError):
            wait_until(lambda: self._hear(number, found) >= {*wanted}, timeout=SECONDS)
        return self._hear(number, found), self._judged()[0] - before[0]

    def _judged(self) -> tuple[int, int]:
        """Frames from other hosts that the guard accepted, and those that it did not, or never saw."""
        stats = self._agent.stats()
        counted = {verdict: each.packets for verdict, each in stats.guard.items()}
        accepted = counted.pop(Verdict.ACCEPTED, 0)
        counted.pop(Verdict.ACCEPTED_LOCALLY, 0)
        return accepted, sum(counted.values()) + stats.switch[Verdict.BOUNCED].packets

    def _hear(self, number: int, found: set[str]) -> set[str]:
        """Add those whose answers have come."""
        while select.select([self._socket], [], [], 0)[0]:
            packet, (address, _) = self._socket.recvfrom(2048)
            if packet[20] == 0 and packet[26:28] == number.to_bytes(2, "big"):
                found.add(address)
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
