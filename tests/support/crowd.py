# SPDX-License-Identifier: Apache-2.0
"""Processes that do the same at the same moment, each with a handle of its own."""

from __future__ import annotations

import gc
import os
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, Pipe
from typing import Any, Generic, TypeVar

import mizarnet as mz
from mizarnet._kernel.closing import Closing
from tests.world import TUNNEL, Host

T = TypeVar("T")


class Crowd(Closing, Generic[T]):
    """Children that wait for orders.

    Each opens the host's agent, and does ``act`` with that, its number and each order that it gets.
    """

    def __init__(self, host: Host, count: int, act: Callable[[mz.TransitAgent, int, Any], T]) -> None:
        self._members: list[tuple[int, Connection]] = []
        try:
            for number in range(count):
                self._members.append(self._member(host.namespace.name, number, act))
            assert [each.recv() for _, each in self._members] == ["ready"] * count
        except BaseException:
            self.close()
            raise

    def _member(
        self, netns: str, number: int, act: Callable[[mz.TransitAgent, int, Any], T]
    ) -> tuple[int, Connection]:
        here, there = Pipe()
        process = os.fork()
        if process == 0:
            for each in (here, *(connection for _, connection in self._members)):
                each.close()  # so that the parent alone keeps a member waiting for orders
            _live(there, netns, number, act)
        there.close()
        return process, here

    def at_once(self, order: Any = None) -> list[T]:
        """Give all of them an order; what each answers."""
        for _, connection in self._members:
            connection.send(order)
        return [connection.recv() for _, connection in self._members]

    def close(self) -> None:
        """End them."""
        for process, connection in self._members:
            connection.close()
            os.waitpid(process, 0)
        self._members = []


def _live(orders: Connection, netns: str, number: int, act: Callable[[mz.TransitAgent, int, Any], T]) -> None:
    status = 1
    gc.freeze()  # what the parent has needs no look at each collection
    try:
        with mz.TransitAgent.open(TUNNEL, netns=netns) as agent:
            orders.send("ready")
            while True:
                orders.send(act(agent, number, orders.recv()))
    except EOFError:
        status = 0
    except BaseException:  # reported, and the parent gets no answer
        traceback.print_exc()
    finally:
        os._exit(status)
