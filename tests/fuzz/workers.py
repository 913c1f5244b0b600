# SPDX-License-Identifier: Apache-2.0
"""Several processes share the states of a run: which one takes a state follows from the state's number alone."""

from __future__ import annotations

import multiprocessing
import queue
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from multiprocessing.context import ForkProcess
from multiprocessing.queues import Queue
from typing import TypeAlias

import attrs

from tests.fuzz.cases import PER_STATE
from tests.fuzz.compare import Result, compare_state
from tests.fuzz.states import LIFE, config_of
from tests.model.case import ProgramName
from tests.model.state import Config
from tests.support.twin import Twin

BATCH_SECONDS = 1
_FORK = multiprocessing.get_context("fork")
Results: TypeAlias = "Queue[Result | None]"


class WorkerError(RuntimeError):
    """A worker ended before its work."""


@attrs.frozen
class Plan:
    """What a run is to do.

    Attributes:
        seed: Of all random choices.
        programs: Which.
        cases: Of each program.
        jobs: Processes.
    """

    seed: int
    programs: tuple[ProgramName, ...]
    cases: int
    jobs: int

    def numbers(self, job: int) -> Iterable[int]:
        """The states of a worker."""
        return range(job, -(-self.cases // PER_STATE), self.jobs)

    def counts(self, number: int) -> dict[ProgramName, int]:
        """How many cases before a state: the last has fewer."""
        return dict.fromkeys(self.programs, min(PER_STATE, self.cases - number * PER_STATE))


class Twins:
    """Loaded objects, by their constants. Close it, or use it in a ``with``."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._loaded: dict[Config, Twin] = {}
        self._life = 0

    def get(self, seed: int, number: int) -> Twin:
        """The object of a state."""
        if number // LIFE != self._life:
            self.close()
            self._life = number // LIFE
        return self.load(config_of(seed, number))

    def load(self, config: Config) -> Twin:
        """An object with these constants."""
        if config not in self._loaded:
            self._loaded[config] = self._stack.enter_context(Twin.load(config))
        return self._loaded[config]

    def close(self) -> None:
        """Let go of all of them."""
        self._loaded.clear()
        self._stack.close()

    def __enter__(self) -> Twins:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def run(plan: Plan, progress: Callable[[Result], None]) -> Result:
    """Do all of it; `progress` gets what there is so far, about once a second."""
    results: Results = _FORK.Queue()
    twins = Twins()  # nothing is loaded yet: each worker has its own
    workers = [
        _FORK.Process(target=_work, args=(plan, job, twins, results), daemon=True) for job in range(plan.jobs)
    ]
    for worker in workers:
        worker.start()
    total = Result()
    for result in _arriving(results, workers):
        total.add(result)
        progress(total)
    for worker in workers:
        worker.join()
    for found in (total.disagreements, total.refusals):
        found.sort(key=lambda one: (one.program, one.index))
    total.accounts.sort()
    return total


def _arriving(results: Results, workers: list[ForkProcess]) -> Iterator[Result]:
    """Until every worker has said that it is done."""
    working = len(workers)
    while working:
        try:
            result = results.get(timeout=BATCH_SECONDS)
        except queue.Empty:
            if any(worker.exitcode for worker in workers):
                raise WorkerError("a worker failed; its last words are above") from None
            continue
        if result is None:
            working -= 1
        else:
            yield result


def _work(plan: Plan, job: int, twins: Twins, results: Results) -> None:
    batch, since = Result(), time.monotonic()
    with twins:
        for number in plan.numbers(job):
            batch.add(compare_state(twins.get(plan.seed, number), plan.seed, number, plan.counts(number)))
            if time.monotonic() - since > BATCH_SECONDS:
                results.put(batch)
                batch, since = Result(), time.monotonic()
    results.put(batch)
    results.put(None)
