# SPDX-License-Identifier: Apache-2.0
"""One process in each container, as long as the example runs."""

from __future__ import annotations

import json
import select
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import mizarnet as mz

WORKER = Path(__file__).with_name("worker.py")
PATIENCE = 30.0
"""Seconds for any answer, enough for an emulated machine."""


class Container:
    """A process in the namespace of an endpoint."""

    def __init__(self, endpoint: mz.Endpoint) -> None:
        """Start it; it is ready when :meth:`answer` returns for the first time."""
        self.name = endpoint.name
        self._process = subprocess.Popen(
            ["nsenter", f"--net=/run/netns/{endpoint.netns}", sys.executable, "-IS", str(WORKER), self.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the example, which then ends this
        )

    def order(self, what: str, /, **arguments: object) -> dict[str, Any]:
        """Have the worker do something, and return what it says."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([what, arguments]).encode() + b"\n")
        self._process.stdin.flush()
        return self.answer()

    def answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], PATIENCE)[0]:
            raise TimeoutError(f"{self.name} does not answer")
        answer: dict[str, Any] = json.loads(
            self._process.stdout.readline() or '{"error": "the process ended"}'
        )
        if "error" in answer:
            raise ConnectionError(f"{self.name}: {answer['error']}")
        return answer

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()


class Containers:
    """The processes, by the endpoint's name; started together when the first is needed."""

    def __init__(self) -> None:
        self._running: dict[str, Container] = {}
        self._stack = ExitStack()

    def start(self, endpoints: list[mz.Endpoint]) -> None:
        for endpoint in endpoints:
            container = self._running[endpoint.name] = Container(endpoint)
            self._stack.callback(container.stop)
        for container in self._running.values():
            container.answer()

    def order(self, who: str, what: str, /, **arguments: object) -> dict[str, Any]:
        return self._running[who].order(what, **arguments)

    def __enter__(self) -> Self:
        # kill(1) deletes the lab as Ctrl-C does.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
