# SPDX-License-Identifier: Apache-2.0
"""Those who wait for a part of a host get it in the order in which they came."""

from __future__ import annotations

import threading
from typing import Any

import pytest

import mizarnet as mz
from mizarnet._datapath import lock
from mizarnet._datapath.lock import HOST, SHARED_HOST, Section, endpoint_writer, locked
from tests.support.process import heard, start_python

COOKIE = 0x6D7C
"""Of no namespace."""


@pytest.fixture
def queued(monkeypatch: pytest.MonkeyPatch) -> threading.Semaphore:
    """Counts those who have taken a place among the waiting."""
    places = threading.Semaphore(0)
    really = lock._queue_up

    def queue_up(*arguments: Any) -> int:
        place = really(*arguments)
        places.release()
        return place

    monkeypatch.setattr(lock, "_queue_up", queue_up)
    return places


def waiting(queued: threading.Semaphore, came: list[str], name: str, *sections: Section) -> threading.Thread:
    """A thread that waits for sections, and says when it has them."""

    def wait() -> None:
        with locked(COOKIE, *sections):
            came.append(name)

    thread = threading.Thread(target=wait)
    thread.start()
    assert queued.acquire(timeout=10)
    return thread


def test_those_who_wait_come_in_turn(queued: threading.Semaphore) -> None:
    came: list[str] = []
    with locked(COOKIE, HOST):
        threads = [waiting(queued, came, f"{n}", HOST) for n in range(12)]
    for thread in threads:
        thread.join()
    assert came == [f"{n}" for n in range(12)]


def test_who_shares_lets_those_pass_who_waited_for_it_alone(queued: threading.Semaphore) -> None:
    came: list[str] = []
    with locked(COOKIE, SHARED_HOST):
        first = waiting(queued, came, "alone", HOST)
        others = [waiting(queued, came, "shared", SHARED_HOST) for _ in range(3)]
        with pytest.raises(mz.LockTimeoutError), locked(COOKIE, SHARED_HOST, timeout=0):
            pass
        last = waiting(queued, came, "alone again", HOST)
        assert came == []
    for thread in (first, *others, last):
        thread.join()
    assert came == ["alone", *["shared"] * 3, "alone again"]


def test_two_who_come_in_one_microsecond_have_two_places(
    queued: threading.Semaphore, monkeypatch: pytest.MonkeyPatch
) -> None:
    came: list[str] = []
    monkeypatch.setattr(lock.time, "time_ns", lambda: 7_000)
    with locked(COOKIE, HOST):
        threads = [waiting(queued, came, f"{n}", HOST) for n in range(3)]
    for thread in threads:
        thread.join()
    assert came == ["0", "1", "2"]


def test_the_place_of_one_who_died_is_free(queued: threading.Semaphore) -> None:
    program = """
        from mizarnet._datapath import lock
        really = lock._queue_up
        def queue_up(*arguments):
            place = really(*arguments)
            print("waits", flush=True)
            return place
        lock._queue_up = queue_up
        with lock.locked(int(sys.argv[1])):
            print("has it", flush=True)
    """
    came: list[str] = []
    with locked(COOKIE, HOST):
        process = start_python(program, str(COOKIE), talk=True)
        assert heard(process) == "waits"
        thread = waiting(queued, came, "behind it", HOST)
        process.kill()
        process.communicate()
    thread.join()
    assert came == ["behind it"]


def test_who_waits_for_the_host_alone_is_not_kept_out_by_those_who_share_it() -> None:
    """Six threads share it, so that it is never free; each lets go after the next one has it."""
    over, waited = threading.Event(), []

    def share(name: str) -> None:
        while not over.is_set():
            with locked(COOKIE, *endpoint_writer(name)):
                over.wait(0.02)

    threads = [threading.Thread(target=share, args=(f"n{n}",)) for n in range(6)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(20):
            with locked(COOKIE, HOST, timeout=5):
                waited.append(True)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert len(waited) == 20
