# SPDX-License-Identifier: Apache-2.0
"""Records that programs send."""

from __future__ import annotations

import select
import struct
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest

from mizarnet._kernel.bpf import Map, MapType, Object, RingBuffer
from mizarnet.errors import BpfError, ClosedError, InvalidValueError


def send(sample: Object, *lengths: int) -> None:
    for length in lengths:
        sample.programs["first"].test_run(bytes(length))


def records(*lengths: int) -> list[bytes]:
    return [struct.pack("=I", length) for length in lengths]


def test_consume_in_order(sample: Object) -> None:
    with RingBuffer(sample.maps["events"]) as ring:
        assert ring.consume() == []
        send(sample, 60, 70, 80)
        assert ring.consume() == records(60, 70, 80)
        assert ring.consume() == []


def test_limit(sample: Object) -> None:
    with RingBuffer(sample.maps["events"], limit=2) as ring:
        send(sample, 60, 70, 80)
        assert ring.consume() == records(60, 70)
        assert ring.poll(1) == records(80)


def test_poll_waits(sample: Object) -> None:
    with RingBuffer(sample.maps["events"]) as ring:
        start = time.monotonic()
        assert ring.poll(0.05) == []
        assert time.monotonic() - start >= 0.04
        later = threading.Timer(0.05, send, (sample, 99))
        later.start()
        assert ring.poll(5) == records(99)
        later.join()


def test_descriptor_tells_of_records(sample: Object) -> None:
    with RingBuffer(sample.maps["events"]) as ring:
        assert select.select([ring], [], [], 0)[0] == []
        send(sample, 60)
        assert select.select([ring], [], [], 1)[0] == [ring]
        assert ring.consume() == records(60)


def test_the_map_may_be_closed(sample: Object) -> None:
    with RingBuffer(sample.maps["events"]) as ring:
        sample.maps["events"].close()
        send(sample, 60)
        assert ring.poll(1) == records(60)


def test_only_for_ring_buffers(sample: Object) -> None:
    with pytest.raises(InvalidValueError, match="table"):
        RingBuffer(sample.maps["table"])


def test_closing(sample: Object) -> None:
    ring = RingBuffer(sample.maps["events"])
    ring.close()
    ring.close()
    with pytest.raises(ClosedError):
        ring.consume()


def test_forgotten(sample: Object) -> None:
    ring = RingBuffer(sample.maps["events"])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del ring
    assert [item.category for item in caught] == [ResourceWarning]


def test_errors_in_between_are_not_lost(sample: Object, monkeypatch: pytest.MonkeyPatch) -> None:
    """The callback runs inside C, where nothing can be raised."""

    def interrupt(*_: object) -> bytes:
        raise KeyboardInterrupt

    with RingBuffer(sample.maps["events"]) as ring:
        send(sample, 60, 70)
        with monkeypatch.context() as patch:
            patch.setattr("mizarnet._kernel.bpf.ringbuf.bytes", interrupt, raising=False)
            with pytest.raises(KeyboardInterrupt):
                ring.consume()
        assert ring.consume() == records(70)


def test_a_ring_that_is_closed_during_a_call_is_freed_after_it(
    sample: Object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By another thread, or by the handler of a signal."""

    def close(data: memoryview) -> bytes:
        ring.close()
        return b"".join((data,))

    ring = RingBuffer(sample.maps["events"])
    send(sample, 60, 70, 80)
    monkeypatch.setattr("mizarnet._kernel.bpf.ringbuf.bytes", close, raising=False)
    assert ring.consume() == records(60, 70, 80)
    with pytest.raises(ClosedError):
        ring.consume()


def test_a_call_during_a_call_takes_nothing_from_it(sample: Object, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(data: memoryview) -> bytes:
        assert ring.consume() == []
        return b"".join((data,))

    with RingBuffer(sample.maps["events"]) as ring:
        send(sample, 60, 70)
        monkeypatch.setattr("mizarnet._kernel.bpf.ringbuf.bytes", read, raising=False)
        assert ring.consume() == records(60, 70)


def test_a_ring_can_be_made_and_others_see_what_is_in_it(sample: Object) -> None:
    with Map.create_ring("made", 1 << 16) as made, RingBuffer(made) as ring:
        assert (made.type, made.max_entries, made.name) == (MapType.RINGBUF, 1 << 16, "made")
        assert not ring.has_records()
    with RingBuffer(sample.maps["events"]) as ring:
        send(sample, 60)
        with ThreadPoolExecutor(1) as other:
            assert other.submit(ring.has_records).result()
        assert ring.consume() == records(60)
        assert not ring.has_records()
    with pytest.raises(ClosedError):
        ring.has_records()


def test_a_ring_of_no_power_of_two_is_refused() -> None:
    with pytest.raises(BpfError, match="make the ring buffer 'odd'"):
        Map.create_ring("odd", 5000)
