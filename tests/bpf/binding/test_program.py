# SPDX-License-Identifier: Apache-2.0
"""Facts about programs, and running them on frames."""

from __future__ import annotations

import struct

import pytest

from mizarnet._kernel.bpf import Map, Object, Program, ProgramType, program_name
from mizarnet.errors import BpfError, ClosedError, InvalidValueError

FRAME = bytes(range(64))
XDP_TX = 3
TC_ACT_SHOT = 2


def test_facts(sample: Object) -> None:
    program = sample.programs["first"]
    assert (program.name, program.type) == ("first", ProgramType.SCHED_CLS)
    assert sample.programs["turn"].type is ProgramType.XDP
    assert program.id > 0
    assert len(program.tag) == 16
    assert program.verified_instructions > 10
    assert program_name(program.id) == "first"


def test_open_by_number(sample: Object) -> None:
    opened = Program.open_id(sample.programs["second"].id)
    assert opened is not None
    with opened:
        assert opened.name == "second"
    assert Program.open_id(0x7FFFFFFF) is None
    assert program_name(0x7FFFFFFF) is None


def test_maps_that_are_used_and_bound(sample: Object) -> None:
    """A bound map is one of the program's, whether its instructions name it or not; twice is no error."""
    second, table = sample.programs["second"], sample.maps["table"]
    assert sample.maps["counters"].id in sample.programs["first"].map_ids
    before = second.map_ids
    assert table.id not in before
    for _ in range(2):
        second.bind(table)
    assert sorted(second.map_ids) == sorted((*before, table.id))


def test_a_bound_map_lives_as_long_as_the_program(sample: Object) -> None:
    second, table = sample.programs["second"], sample.maps["table"]
    second.bind(table)
    table.update(bytes(8), bytes(table.value_size))
    number = table.id
    sample.programs["first"].close()
    table.close()
    opened = Map.open_id(number)
    assert opened is not None
    with opened:
        assert (opened.name, opened.count()) == ("table", 1)
    assert Map.open_id(0x7FFFFFFF) is None


def test_tc_run(sample: Object) -> None:
    run = sample.programs["second"].test_run(FRAME, repeat=100)
    assert (run.verdict, run.frame, run.context) == (TC_ACT_SHOT, FRAME, b"")
    assert run.duration_ns < 1_000_000


def test_tc_run_with_context(sample: Object) -> None:
    """The mark is the third word of struct __sk_buff."""
    run = sample.programs["first"].test_run(FRAME, context=struct.pack("=3I", 0, 0, 41).ljust(192, b"\0"))
    assert struct.unpack_from("=3I", run.context)[2] == 42


def test_xdp_run_may_grow_the_frame(sample: Object) -> None:
    run = sample.programs["turn"].test_run(FRAME)
    assert run.verdict == XDP_TX
    assert len(run.frame) == 72
    assert run.frame[8:] == FRAME


def test_jumbo_frame(sample: Object) -> None:
    frame = bytes(FRAME * 140)
    run = sample.programs["turn"].test_run(frame)
    assert run.frame[8:] == frame


def test_refused_runs(sample: Object) -> None:
    with pytest.raises(InvalidValueError):
        sample.programs["first"].test_run(b"short")
    with pytest.raises(BpfError):
        sample.programs["first"].test_run(FRAME, context=b"\xff" * 192)


def test_closed(sample: Object) -> None:
    sample.programs["first"].close()
    sample.programs["first"].close()
    with pytest.raises(ClosedError, match="first"):
        sample.programs["first"].test_run(FRAME)
