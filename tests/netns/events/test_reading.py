# SPDX-License-Identifier: Apache-2.0
"""Events: what becomes of frames is told to those who asked, as it happens, and the frames do not notice."""

from __future__ import annotations

import itertools
import select
import signal
import threading
import time
from collections import deque
from contextlib import ExitStack
from pathlib import Path

import pytest

import mizarnet as mz
from mizarnet import Program, Verdict
from mizarnet._datapath.readers import LEASE, LeftReader, ReaderPlace, left
from mizarnet._kernel.bpf import Map, RingBuffer
from mizarnet._model import layouts
from mizarnet._model.codec import u32
from tests.frames import BROADCAST, arp, ethernet
from tests.netns.events.senders import NOBODY, SOON, frame_of, send
from tests.support.listener import NOBODY as NO_READER
from tests.support.process import finish, heard, in_child, run_python, start_python
from tests.support.steps import ends_at
from tests.support.traffic import assert_ping, send_raw
from tests.support.wait import wait_until
from tests.world import BLUE, GREEN, Container, Host

FLOOD = 12_000
"""Frames of which no ring has room for all events."""
ROUND = 3_200
"""Frames of which a ring is used again after three rounds, and of a second's budget there is still something left."""


def taken(events: mz.Events) -> list[mz.Event]:
    """All that comes until nothing does for a moment."""
    found: list[mz.Event] = []
    while (event := events.read(timeout=0.2)) is not None:
        found.append(event)
    return found


def places(host: Host) -> list[layouts.Reader]:
    readers = host.agent._datapath.maps.readers
    return [layouts.Reader.unpack(value) for _, value in readers.items()]


# -- what is told ------------------------------------------------------------------------------------------


@pytest.mark.vm
def test_a_drop_is_told_with_all_that_is_known_of_it(one: Container) -> None:
    with one.host.agent.events() as events:
        frame = frame_of(one, payload=b"x" * 300)
        send(one, frame)
        event = events.read(timeout=SOON)
        assert event is not None
        assert (event.program, event.verdict) == (Program.AGENT, Verdict.NO_DESTINATION)
        assert (event.vni, event.endpoint, event.claimed) == (BLUE, "one", False)
        assert (str(event.source), str(event.destination)) == (one.ip, NOBODY)
        assert (event.protocol, event.source_port, event.destination_port) == ("udp", 9, 9)
        assert (event.length, event.data) == (len(frame), frame[:128])
        assert event.at == one.host.agent.tunnel.netns
        assert event in {event}
        assert event.to_dict()["data"] == frame[:128].hex()
        assert str(event).endswith(
            f"agent NO_DESTINATION VNI {BLUE} one {one.ip} -> {NOBODY} udp port 9 342 bytes"
        )
        assert events.read(timeout=0) is None
        assert events.lost == 0


def test_a_question_is_told_with_who_is_asked_for(one: Container) -> None:
    with one.host.agent.events(address=NOBODY) as events:
        send(one, frame_of(one, to="10.0.0.98"))
        send(one, ethernet(BROADCAST, one.mac, 0x0806, arp(one.mac, one.ip, NOBODY)))
        (event,) = taken(events)
    assert (event.verdict, event.protocol) == (Verdict.NEIGHBOUR_UNKNOWN, "arp")
    assert (str(event.source), str(event.destination), event.destination_port) == (one.ip, NOBODY, None)


def test_a_record_holds_nothing_of_another_tenants_frame(one: Container, other: Container) -> None:
    """Short frames after long ones, more of them than a ring has room for."""
    with one.host.agent.events(vni=GREEN) as green, one.host.agent.events() as all_of_them:
        long, short = frame_of(one, payload=b"\xee" * 1400), frame_of(other, payload=b"")
        for _ in range(3):
            flood(one, long, ROUND)
            taken(all_of_them)
        send(other, short)
        (event,) = taken(green)
        assert (event.data, event.length) == (short, len(short))
        assert taken(all_of_them)[-1].data == short


@pytest.mark.vm
def test_passes_are_told_by_each_program_on_the_way(one: Container, far: Container) -> None:
    with (
        one.host.agent.events(drops=False, passes=True, endpoint=one.endpoint) as sent,
        far.host.agent.events(drops=False, passes=True, endpoint="far") as received,
    ):
        assert_ping(one.namespace, far.ip)
        there = {(each.program, each.verdict) for each in taken(sent)}
        assert there >= {(Program.AGENT, Verdict.ENCAPSULATED), (Program.GUARD, Verdict.ACCEPTED)}
        (arrived, *_) = [each for each in taken(received) if each.program is Program.GUARD]
        assert (arrived.verdict, arrived.endpoint, arrived.vni) == (Verdict.ACCEPTED, "far", BLUE)
        assert (arrived.protocol, str(arrived.source)) == ("icmp", one.ip)


def test_what_stays_on_a_host_is_told_twice(one: Container, near: Container) -> None:
    with one.host.agent.events(drops=False, passes=True, endpoint=near.endpoint) as events:
        send(one, frame_of(one, to=near.ip))
        found = [(each.verdict, each.endpoint, each.vni) for each in taken(events) if each.protocol == "udp"]
    assert found == [
        (Verdict.DELIVERED_LOCALLY, "one", BLUE),
        (Verdict.ACCEPTED_LOCALLY, "near", BLUE),
    ]


def test_a_vni_that_nobody_proved_is_said_to_be_claimed(one: Container) -> None:
    with one.host.agent.events() as events, one.host.agent.events(vni=BLUE) as blue:
        send(one, ethernet(one.mac, one.mac, 0x88CC, b"of a protocol that is none"))
        send(one, ethernet(one.mac, b"\2\0\0\0\0\x77", 0x0800, b"too short"))
        known, unknown = taken(events)
        assert (known.verdict, known.vni, known.claimed) == (Verdict.UNKNOWN_ETHERTYPE, BLUE, True)
        assert (unknown.verdict, unknown.vni, unknown.endpoint) == (Verdict.TRUNCATED, None, None)
        assert taken(blue) == []


# -- who is told, and what is lost -------------------------------------------------------------------------


def flood(sender: Container, frame: bytes, times: int) -> None:
    with sender.packet_socket() as raw:
        for _ in range(times):
            send_raw(raw, frame)


@pytest.mark.vm
def test_a_reader_that_does_not_read_loses_what_has_no_room(one: Container, other: Container) -> None:
    agent = one.host.agent
    with agent.events() as asleep, agent.events(endpoint="other") as awake:
        before = one.endpoint.stats().dropped
        flood(one, frame_of(one), FLOOD)
        send(other, frame_of(other))
        assert (one.endpoint.stats().dropped - before).packets == FLOOD
        (event,) = taken(awake)
        assert (event.endpoint, awake.lost) == ("other", 0)
        assert asleep.lost > 0
        assert len(taken(asleep)) + asleep.lost == FLOOD + 1


def test_what_one_wants_besides_costs_the_other_nothing(one: Container, far: Container) -> None:
    agent = one.host.agent
    with agent.events() as drops, agent.events(drops=False, passes=True) as passes:
        flood(one, frame_of(one, to=far.ip), FLOOD)
        send(one, frame_of(one))
        assert [each.verdict for each in taken(drops)] == [Verdict.NO_DESTINATION]
        assert drops.lost == 0
        assert len(taken(passes)) + passes.lost >= FLOOD


def test_four_may_read_and_the_fifth_is_told_so(one: Container) -> None:
    agent = one.host.agent
    with ExitStack() as stack:
        four = [stack.enter_context(agent.events()) for _ in range(4)]
        with pytest.raises(mz.CapacityError, match="4 others read events") as refused:
            agent.events()
        assert (refused.value.table, refused.value.capacity, refused.value.used) == ("readers", 4, 4)
        send(one, frame_of(one))
        assert [len(taken(each)) for each in four] == [1] * 4
        four[2].close()
        with agent.events() as again:
            send(one, frame_of(one))
            assert len(taken(again)) == 1
    assert all(each.until == each.owner == 0 for each in places(one.host))


READ = """
agent = mz.TransitAgent.open(sys.argv[1], netns=sys.argv[2])
events = agent.events(passes=True)
print("reads", flush=True)
signal.pause()
"""


def test_a_killed_reader_gives_up_its_place(one: Container) -> None:
    agent, machine = one.host.agent, mz.Host.open(netns=one.host.namespace.name)
    reader = start_python(READ, agent.tunnel.name, one.host.namespace.name)
    with machine, ExitStack() as stack:
        assert heard(reader) == "reads"
        for _ in range(3):
            stack.enter_context(agent.events())
        with pytest.raises(mz.CapacityError):
            agent.events()
        reader.kill()
        reader.communicate()
        wait_until(lambda: left_readers(machine), "the lease is over")
        assert all(each.collectable and not each.repairable for each in machine.check())
        memory = agent._datapath.maps.rings.items
        assert len([*memory()]) == 4
        report = machine.gc()
        assert report and [each.kind for each in report.done] == [mz.FindingKind.READER_LEFT]
        assert len([*memory()]) == 3
        assert machine.check() == []
        with agent.events() as events:
            send(one, frame_of(one))
            assert len(taken(events)) == 1


def left_readers(machine: mz.Host) -> list[mz.Finding]:
    return [each for each in machine.check() if each.kind is mz.FindingKind.READER_LEFT]


def test_a_lease_is_renewed_as_long_as_its_reader_lives(one: Container) -> None:
    """Also when the host's thread waits, as for the kernel's rtnl lock."""
    datapath, free = one.host.agent._datapath, threading.Event()
    readers = datapath.maps.readers
    with one.host.agent.events() as events, ExitStack() as busy:
        busy.callback(free.set)
        datapath.host.begin(free.wait)
        first = lease(readers)
        wait_until(lambda: lease(readers) > first + LEASE, "the first lease is long over")
        send(one, frame_of(one))
        assert [each.endpoint for each in taken(events)] == ["one"]


def lease(readers: Map) -> int:
    return max(layouts.Reader.unpack(value).until for _, value in readers.items())


ELSEWHEN = ("unshare", "--time", "--monotonic", "100000", "--fork")
READ_ONE = """
agent = mz.TransitAgent.open(sys.argv[1], netns=sys.argv[2])
with agent.events() as events:
    print("reads", flush=True)
    print(events.read(timeout=10).time.timestamp())
"""


@pytest.mark.skipif(not Path("/proc/self/ns/time").exists(), reason="a kernel without time namespaces")
def test_a_reader_in_a_time_namespace_counts_as_programs_do(one: Container) -> None:
    agent = one.host.agent
    reader = start_python(READ_ONE, agent.tunnel.name, one.host.namespace.name, by=ELSEWHEN)
    assert heard(reader) == "reads"
    assert abs(lease(agent._datapath.maps.readers) - time.monotonic_ns()) < 100 * 10**9
    send(one, frame_of(one))
    status, output = finish(reader)
    assert status == 0
    assert abs(float(output) - time.time()) < 100


def test_who_begins_to_read_takes_a_place_that_was_left_and_looks_like_none(
    one: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    maps, update, seen = one.host.agent._datapath.maps, Map.update, list[list[LeftReader]]()

    def watched(self: Map, key: bytes, value: bytes) -> None:
        seen.append(left(maps))
        update(self, key, value)

    with Map.create_ring("events", 4096) as ring:
        maps.rings.update(u32(2), u32(ring.fileno()))
    maps.readers.update(u32(2), NO_READER._replace(owner=9).pack())
    monkeypatch.setattr(Map, "update", watched)
    with one.host.agent.events():
        monkeypatch.undo()
        assert [index for index, each in enumerate(places(one.host)) if each.owner] == [2]
    assert seen == [[LeftReader(2, 9)], [], [], []]
    assert [*maps.rings.items()] == []


def test_whose_place_another_one_has_learns_it(one: Container) -> None:
    """As that of a process which was stopped for too long."""
    readers = one.host.agent._datapath.maps.readers
    counts = one.host.agent._datapath.maps.heard
    with one.host.agent.events() as events:
        key = next(key for key, value in readers.items() if layouts.Reader.unpack(value).owner)
        readers.update(
            key, layouts.Reader.unpack(readers.lookup(key) or b"")._replace(owner=9, until=2**62).pack()
        )
        with pytest.raises(mz.StaleHandleError, match="its place was given away"):
            events.read(timeout=SOON)
        counts.update(
            key, counts.join([layouts.Heard(9, 9, 9, 9).pack()] * (counts.slot_size // layouts.HEARD.size))
        )
        assert events.lost == 0, "what another one loses is its own"
    assert layouts.Reader.unpack(readers.lookup(key) or b"").owner == 9, "it is left to whom it belongs"
    readers.update(key, bytes(layouts.READER.size))


STARVE = """
import resource, threading
agent = mz.TransitAgent.open(sys.argv[1], netns=sys.argv[2])
agent.events().close()
readers, used = agent._datapath.maps.readers, len(os.listdir("/proc/self/fd"))
most, failed, threads = resource.getrlimit(resource.RLIMIT_NOFILE)[1], 0, threading.active_count()
while True:
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + failed, most))
    try:
        agent.events().close()
    except mz.KernelError:
        failed += 1
    else:
        break
    assert not any(any(value) for _, value in readers.items()), failed
    assert threading.active_count() == threads
print(failed)
"""


def test_a_reader_for_which_there_are_too_few_descriptors_leaves_nothing(one: Container) -> None:
    assert int(run_python(STARVE, one.host.agent.tunnel.name, one.host.namespace.name)) > 4


# -- the handle --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "error", "argument"),
    [
        ({"drops": False}, mz.InvalidValueError, "drops"),
        ({"drops": 1}, mz.InvalidTypeError, "drops"),
        ({"sample": 0}, mz.InvalidValueError, "sample"),
        ({"vni": 0}, mz.InvalidValueError, "vni"),
        ({"address": "10.0.0.0/24"}, mz.InvalidValueError, "address"),
        ({"endpoint": 7}, mz.InvalidTypeError, "endpoint"),
        ({"endpoint": "nobody"}, mz.EndpointNotFoundError, None),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_made(
    one: Container, wanted: dict[str, object], error: type[mz.MizarnetError], argument: str | None
) -> None:
    before = places(one.host)
    with pytest.raises(error) as refused:
        one.host.agent.events(**wanted)
    assert getattr(refused.value, "argument", None) == argument
    assert places(one.host) == before


def test_its_descriptor_is_readable_while_there_is_something_to_read(one: Container) -> None:
    with one.host.agent.events() as events:
        assert not select.select([events], [], [], 0)[0]
        for _ in range(2):
            send(one, frame_of(one))
        for _ in range(2):
            assert select.select([events], [], [], SOON)[0]
            assert events.read(timeout=0) is not None
        assert not select.select([events], [], [], 0)[0]


def test_it_is_gone_through_until_it_is_closed(one: Container) -> None:
    events = one.host.agent.events()
    send(one, frame_of(one))
    for event in events:
        assert event.endpoint == "one"
        events.close()
    with pytest.raises(mz.ClosedError):
        events.read()
    assert events.lost == 0


def test_its_iteration_ends_when_another_thread_closes_it(one: Container) -> None:
    events, found = one.host.agent.events(), deque[mz.Event]()
    reading = threading.Thread(target=lambda: found.extend(events), daemon=True)
    reading.start()
    send(one, frame_of(one))
    wait_until(lambda: found, "it reads")
    events.close()
    reading.join(SOON)
    assert not reading.is_alive()


def test_its_iteration_ends_when_the_handler_of_a_signal_closes_it(one: Container) -> None:
    events = one.host.agent.events()
    before = signal.signal(signal.SIGALRM, lambda *_: events.close())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        assert [*events] == []
    finally:
        signal.signal(signal.SIGALRM, before)


def test_an_interrupt_at_any_step_of_reading_loses_at_most_what_it_was_about_to_give(one: Container) -> None:
    frame, many = frame_of(one), 20
    with one.host.agent.events() as events:
        for step in itertools.count():
            flood(one, frame, many)
            is_one = ends_at(step, lambda: events.read(timeout=0))
            left = sum(1 for _ in iter(lambda: events.read(timeout=0), None))
            assert left >= many - 1, step
            if not is_one:
                break
        assert events.lost == 0


def test_an_interrupt_at_any_step_of_closing_leaves_no_reader(one: Container) -> None:
    for step in itertools.count():
        events = one.host.agent.events()
        is_one = ends_at(step, events.close)
        events.close()
        assert not [each for each in threading.enumerate() if each.name == "mizarnet-events"], step
        assert all(each.owner == 0 for each in places(one.host)), step
        if not is_one:
            break


def test_a_child_made_by_fork_has_no_reader(one: Container) -> None:
    def check() -> None:
        for use in (lambda: events.read(timeout=0), events.fileno, lambda: events.lost):
            with pytest.raises(mz.ForkedError):
                use()

    with one.host.agent.events() as events:
        in_child(check)


@pytest.mark.parametrize(("timeout", "error"), [(-1, mz.InvalidValueError), ("1", mz.InvalidTypeError)])
def test_a_time_that_is_none_is_refused(
    one: Container, timeout: float, error: type[mz.MizarnetError]
) -> None:
    with one.host.agent.events() as events, pytest.raises(error, match="timeout"):
        events.read(timeout=timeout)


def test_a_reader_of_an_agent_that_goes_is_told(host: Host) -> None:
    with host.agent.events() as events:
        host.agent.detach()
        with pytest.raises(mz.StaleHandleError):
            events.read(timeout=SOON)


def test_a_reader_whose_agents_handle_is_closed_is_told(one: Container) -> None:
    with mz.TransitAgent.open(one.host.tunnel) as agent, agent.events() as events:
        agent.close()
        traces: list[int] = []
        for _ in range(3):
            with pytest.raises(mz.ClosedError) as told:
                events.read(timeout=SOON)
            traces.append(len(told.traceback))
        assert len({*traces}) == 1, "it does not grow"


def test_an_end_that_nobody_foresaw_is_told_and_leaves_nothing(
    one: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: ReaderPlace) -> None:
        raise MemoryError

    monkeypatch.setattr(ReaderPlace, "renew", fail)
    with one.host.agent.events() as events, pytest.raises(MemoryError):
        events.read(timeout=SOON)


def test_its_end_is_seen_by_who_waits_for_its_descriptor_though_there_was_an_event(one: Container) -> None:
    with mz.TransitAgent.open(one.host.tunnel) as agent, agent.events() as events:
        send(one, frame_of(one))
        agent.close()
        wait_until(lambda: events._keeper.failure is not None, "the reader has ended")
        assert events.read(timeout=0) is not None
        assert select.select([events], [], [], SOON)[0]
        with pytest.raises(mz.ClosedError):
            events.read(timeout=0)


def test_a_time_may_be_longer_than_the_kernel_waits(one: Container) -> None:
    with mz.TransitAgent.open(one.host.tunnel) as agent, agent.events() as events:
        agent.close()
        with pytest.raises(mz.ClosedError):
            events.read(timeout=10**9)


def test_a_verdict_of_a_newer_version_is_counted_as_lost(
    one: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    def newer(self: RingBuffer) -> list[bytes]:
        return [layouts.Event.unpack(each)._replace(verdict=255).pack() for each in consume(self)]

    with one.host.agent.events() as events:
        consume = RingBuffer.consume
        send(one, frame_of(one))
        with monkeypatch.context() as patched:
            patched.setattr(RingBuffer, "consume", newer)
            assert events.read(timeout=0) is None
        assert events.lost == 1
        send(one, frame_of(one))
        assert len(taken(events)) == 1
    assert events.lost == 1
