# SPDX-License-Identifier: Apache-2.0
"""Events, frame by frame: every kept case once more with somebody who reads, who changes nothing and misses nothing."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from ipaddress import ip_address
from typing import Any

import attrs
import pytest

from mizarnet import Verdict
from mizarnet._kernel.bpf import has_tcx
from mizarnet._model import layouts
from mizarnet._model.codec import FIRST, ip_fields, u32
from mizarnet._model.enumerations import EventFlag, Limit, Wish
from tests.fuzz.workers import Twins
from tests.model.case import Case, Outcome
from tests.model.state import Config
from tests.support.fixtures import Fixture, load_all
from tests.support.listener import Listener
from tests.support.twin import PROGRAMS, Twin, instance

HOPS = range(21, 26)
"""Where a frame has its TTL and header checksum, or its hop limit."""
STRANGERS = {Verdict.FOREIGN_LOCAL, Verdict.GENEVE_OPTIONS, Verdict.FOREIGN_PEER}


Ears = Mapping[Config, tuple[Twin, Listener]]


@pytest.fixture(scope="module")
def ears() -> Iterator[Ears]:
    """Programs with the constants of every fixture, and a reader of each."""
    with Twins() as loaded, ExitStack() as stack:
        found: dict[Config, tuple[Twin, Listener]] = {}
        for fixture in load_all().values():
            config = fixture.state.config
            if config not in found:
                twin = loaded.load(config)
                found[config] = twin, stack.enter_context(Listener(twin.maps))
        yield found


def test_each_frame_is_told_once_and_as_it_was_decided(ears: Ears) -> None:
    """All kept cases; the ring of a reader is used again and again, so that each event stands where others stood."""
    told = compare(ears, load_all().values())
    assert {verdict for verdict in Verdict if verdict.dropped} - told == {Verdict.UNREADABLE}, (
        "nobody runs out of memory"
    )


@pytest.mark.vm
def test_frames_are_told_by_the_programs_of_each_kernel(ears: Ears) -> None:
    """As many as there is time for in emulation, of the programs that this kernel can have."""
    there = [each for each in load_all().values() if has_tcx() or each.case.program != "shortcut"]
    assert len(compare(ears, there[::20])) > 10


def compare(ears: Ears, fixtures: Iterable[Fixture]) -> set[Verdict]:
    """Let cases be decided and told; their verdicts."""
    told: set[Verdict] = set()
    for fixture in fixtures:
        twin, listener = ears[fixture.state.config]
        twin.fill(fixture.state)
        listener.forget()
        assert twin.run(fixture.case) == fixture.outcome, fixture.name
        events, verdict = listener.take(), fixture.outcome.verdict
        if verdict is Verdict.PASSED:
            assert events == [], fixture.name
            continue
        assert len(events) == 1, fixture.name
        assert_tells(events[0], fixture.case, fixture.outcome, fixture.name)
        assert not [each for each in secrets_of(twin) if each in events[0].pack()], fixture.name
        told.add(verdict)
    return told


def secrets_of(twin: Twin) -> list[bytes]:
    config = layouts.Config.unpack(twin.maps.config.lookup(FIRST) or b"")
    return [u32(config.mark_local), u32(config.mark_bounced), config.token_bounced]


def without_hops(frame: bytes) -> bytes:
    """A frame that may have been routed before it was dropped."""
    return frame[: HOPS.start] + frame[HOPS.stop :]


def assert_tells(event: layouts.Event, case: Case, outcome: Outcome, name: str) -> None:
    assert (event.program, event.verdict) == (PROGRAMS[case.program], outcome.verdict), name
    assert event.time == case.clock, name
    data = event.data[: event.captured]
    assert event.data[event.captured :] == bytes(Limit.EVENT_BYTES - event.captured), name
    if outcome.frame is not None:
        assert data == outcome.frame[: Limit.EVENT_BYTES], name
    elif case.program != "shortcut":
        assert without_hops(data) == without_hops(case.frame[: Limit.EVENT_BYTES]), name
    counted = outcome.sent or outcome.received or outcome.undelivered
    if counted is not None:
        assert (event.slot, event.length) == (counted.number, counted.bytes), name
    assert bool(event.flags & EventFlag.CLAIMED) or outcome.verdict not in STRANGERS or not event.vni, name


# -- who is told, and of how many --------------------------------------------------------------------------

LOCAL = "fragments:ipv4-later-fragment-to-a-local-endpoint"
DROPPED = "nested:vxlan-to-another-host"
FOREIGN = "further:source-further-of-another"
STRANGER = "guard:peer-before-a-prefix"
ASKED = "neighbours:arp-request-for-nobody"
SENDER, RECEIVER, ELSE = 1, 2, 17
"""Slots: who sends the first three and asks the last, whom the first is for, and somebody of another VNI."""
LARGE = 1 << 23
FILLS = 17
"""Events that fill a small ring."""


@pytest.fixture
def ear(ears: dict[Config, tuple[Twin, Listener]]) -> Iterator[Ear]:
    made = Ear(ears)
    yield made
    made.close()


class Ear:
    """Readers of a kept case, in place of the one that all of them have."""

    def __init__(self, ears: dict[Config, tuple[Twin, Listener]]) -> None:
        self._ears = ears
        self._stack = ExitStack()

    def of(self, name: str) -> tuple[Twin, Case]:
        fixture = load_all()[name]
        twin, everything = self._ears[fixture.state.config]
        twin.fill(fixture.state)
        self._stack.enter_context(everything.away())
        return twin, fixture.case

    def listen(self, twin: Twin, **wanted: Any) -> Listener:
        return self._stack.enter_context(Listener(twin.maps, index=1, **wanted))

    def close(self) -> None:
        self._stack.close()


def ip(text: str) -> layouts.Ip:
    return ip_fields(ip_address(text))


def endpoint(slot: int) -> dict[str, int]:
    return {"slot": slot, "endpoint": instance(slot)}


@pytest.mark.parametrize(
    ("name", "wanted", "told"),
    [
        (LOCAL, {"wishes": Wish.PASSES}, True),
        (LOCAL, {"wishes": Wish.DROPS}, False),
        (DROPPED, {"wishes": Wish.DROPS}, True),
        (DROPPED, {"wishes": Wish.PASSES}, False),
        (DROPPED, {"vni": 7}, True),
        (DROPPED, {"vni": 8}, False),
        (STRANGER, {}, True),
        (STRANGER, {"vni": 7}, False),
        (LOCAL, {"ip": ip("10.0.0.1")}, True),
        (LOCAL, {"ip": ip("10.0.0.2")}, True),
        (LOCAL, {"ip": ip("10.0.0.3")}, False),
        (FOREIGN, {"ip": ip("10.0.0.22")}, True),
        (ASKED, {"ip": ip("10.0.0.1")}, True),
        (ASKED, {"ip": ip("0.1.10.0")}, False),
        (LOCAL, endpoint(SENDER), True),
        (LOCAL, endpoint(RECEIVER), True),
        (LOCAL, endpoint(ELSE), False),
        (LOCAL, {**endpoint(SENDER), "endpoint": instance(SENDER) + 1}, False),
        (FOREIGN, endpoint(SENDER), True),
        (FOREIGN, endpoint(RECEIVER), True),  # whose address was forged
        (FOREIGN, endpoint(ELSE), False),
        (STRANGER, endpoint(RECEIVER), False),
        (DROPPED, {"until": 0}, False),
    ],
)
def test_a_reader_is_told_of_what_it_wants(ear: Ear, name: str, wanted: dict[str, Any], told: bool) -> None:
    twin, case = ear.of(name)
    listener = ear.listen(twin, **wanted)
    twin.run(case)
    assert len(listener.take()) == told
    assert listener.heard == (told, 0)


def test_what_does_not_fit_into_a_ring_is_counted(ear: Ear) -> None:
    twin, case = ear.of(DROPPED)
    listener = ear.listen(twin)
    outcomes = {twin.run(case) for _ in range(2 * FILLS)}
    assert outcomes == {load_all()[DROPPED].outcome}
    assert len(listener.take()) == FILLS
    assert listener.heard == (2 * FILLS, FILLS)
    twin.run(case)
    assert len(listener.take()) == 1


def test_a_budget_is_for_a_second(ear: Ear) -> None:
    twin, case = ear.of(DROPPED)
    listener = ear.listen(twin, size=LARGE)
    with on_one_cpu():
        for clock in (case.clock, case.clock + 10**9):
            for _ in range(Limit.EVENT_BUDGET + 10):
                twin.run(attrs.evolve(case, clock=clock))
    assert len(listener.take()) == 2 * Limit.EVENT_BUDGET
    assert listener.heard == (2 * Limit.EVENT_BUDGET + 20, 20)


def test_one_of_several_is_told(ear: Ear) -> None:
    twin, case = ear.of(DROPPED)
    listener = ear.listen(twin, sample=3)
    with on_one_cpu():
        for _ in range(10):
            twin.run(case)
    assert len(listener.take()) == 4
    assert listener.heard == (10, 0), "what is left out is not lost"


def test_what_one_reader_wants_costs_another_none(ear: Ear) -> None:
    twin, passed = ear.of(LOCAL)
    one = ear.listen(twin, wishes=Wish.DROPS)
    with Listener(twin.maps, index=2) as other:
        for _ in range(2 * FILLS):
            twin.run(passed)
        assert (one.heard, other.heard) == ((0, 0), (2 * FILLS, FILLS))


def test_when_the_last_lease_is_over_nobody_looks_any_more(ear: Ear) -> None:
    twin, case = ear.of(DROPPED)
    listener, attention = ear.listen(twin), twin.maps.attention
    attention.update(FIRST, layouts.Attention(any=20, drops=10, passes=20).pack())
    for clock, left in ((9, (20, 10, 20)), (10, (20, 0, 20)), (20, (20, 0, 20))):
        twin.run(attrs.evolve(case, clock=clock))
        assert layouts.Attention.unpack(attention.lookup(FIRST) or b"") == left
    assert len(listener.take()) == 1
    attention.update(FIRST, layouts.Attention(any=20, drops=20, passes=20).pack())
    twin.run(attrs.evolve(case, clock=20))
    assert layouts.Attention.unpack(attention.lookup(FIRST) or b"") == (0, 0, 20)


@contextmanager
def on_one_cpu() -> Iterator[None]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)
