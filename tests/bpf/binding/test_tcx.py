# SPDX-License-Identifier: Apache-2.0
"""Programs on tcx hooks of a veth pair in a namespace of its own."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from mizarnet._kernel.bpf import Direction, Object, ObjectSpec, Program, TcxHook
from mizarnet.errors import BpfError, ExistsError, NotFoundError, StaleHandleError
from tests.bpf.binding.veth import Namespace, needs_tcx

pytestmark = needs_tcx

EGRESS = Direction.EGRESS


def hook(inside: Namespace, direction: Direction = EGRESS) -> TcxHook:
    return TcxHook(inside.index("mzb0"), direction)


def attach(inside: Namespace, program: Program, direction: Direction = EGRESS) -> None:
    place = hook(inside, direction)
    inside(lambda: place.attach(program, revision=place.query().revision))


def running(inside: Namespace, direction: Direction = EGRESS) -> list[int]:
    return list(inside(hook(inside, direction).query).program_ids)


def test_each_new_program_runs_first(inside: Namespace, sample: Object) -> None:
    first, second = sample.programs["first"], sample.programs["second"]
    attach(inside, first)
    attach(inside, second)
    assert running(inside) == [second.id, first.id]
    assert running(inside, Direction.INGRESS) == []
    inside(lambda: hook(inside).detach(second))
    assert running(inside) == [first.id]


def test_before_the_programs_of_others(inside: Namespace, sample: Object, objects: Path) -> None:
    """Also before one that was put at the head in the same way."""
    attach(inside, sample.programs["first"])
    expected = [sample.programs["first"].id]
    for _ in range(3):
        with ObjectSpec.open(objects / "sample.bpf.o", name="other").load() as other:
            attach(inside, other.programs["first"])
            expected.insert(0, other.programs["first"].id)
    assert running(inside) == expected


def test_stays_without_a_descriptor_and_goes_with_the_device(inside: Namespace, objects: Path) -> None:
    with ObjectSpec.open(objects / "sample.bpf.o", name="sample").load() as loaded:
        number = loaded.programs["first"].id
        attach(inside, loaded.programs["first"])
    assert running(inside) == [number]
    place = hook(inside)
    inside.ip("link", "delete", "mzb0")
    with pytest.raises(NotFoundError):
        inside(place.query)


def test_twice_the_same_program(inside: Namespace, sample: Object) -> None:
    attach(inside, sample.programs["first"])
    with pytest.raises(ExistsError, match="first"):
        attach(inside, sample.programs["first"])


def test_attaching_expects_the_hook_as_it_was_read(inside: Namespace, sample: Object) -> None:
    place = hook(inside)
    read = inside(place.query)
    attach(inside, sample.programs["first"])
    with pytest.raises(StaleHandleError, match="changed"):
        inside(lambda: place.attach(sample.programs["second"], revision=read.revision))
    assert running(inside) == [sample.programs["first"].id]


def test_of_two_who_read_the_same_one_attaches(inside: Namespace, sample: Object) -> None:
    place, both = hook(inside), threading.Barrier(2)
    programs = [sample.programs["first"], sample.programs["second"]]

    def attach_one(program: Program) -> bool:
        revision = place.query().revision
        both.wait(5)
        try:
            place.attach(program, revision=revision)
        except StaleHandleError:
            return False
        return True

    for _ in range(50):
        won: list[bool] = []
        threads = [
            threading.Thread(target=lambda p=program, won=won: won.append(inside(lambda: attach_one(p))))
            for program in programs
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert sorted(won) == [False, True]
        assert len(running(inside)) == 1
        for program in programs:
            inside(lambda p=program: place.detach(p))


def test_the_program_sees_packets(inside: Namespace, sample: Object) -> None:
    attach(inside, sample.programs["first"])
    inside.ip("address", "add", "192.0.2.1/24", "dev", "mzb0")
    inside.ip("neighbour", "add", "192.0.2.2", "lladdr", "02:00:00:00:00:02", "dev", "mzb0")

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"hello", ("192.0.2.2", 9))

    inside(send)
    assert sample.maps["counters"].sum_words()[1][4] >= 1


def test_replacing_compares_and_swaps(inside: Namespace, sample: Object, objects: Path) -> None:
    first, second, place = sample.programs["first"], sample.programs["second"], hook(inside)
    with ObjectSpec.open(objects / "sample.bpf.o", name="other").load() as other:
        attach(inside, first)
        attach(inside, other.programs["first"])
        with pytest.raises(StaleHandleError, match="second"):
            inside(lambda: place.replace(other.programs["second"], expected=second))
        assert running(inside) == [other.programs["first"].id, first.id]
        inside(lambda: place.replace(second, expected=first))
        assert running(inside) == [other.programs["first"].id, second.id]


def test_wrong_type_of_program(inside: Namespace, sample: Object) -> None:
    attach(inside, sample.programs["first"])
    with pytest.raises(BpfError):
        inside(lambda: hook(inside).replace(sample.programs["turn"], expected=sample.programs["first"]))
    with pytest.raises(BpfError):
        attach(inside, sample.programs["turn"])


def test_detach(inside: Namespace, sample: Object) -> None:
    """Of that program alone, and again without harm."""
    attach(inside, sample.programs["first"])
    inside(lambda: hook(inside).detach(sample.programs["second"]))
    assert running(inside) == [sample.programs["first"].id]
    for _ in range(2):
        inside(lambda: hook(inside).detach(sample.programs["first"]))
        assert running(inside) == []


def test_device_gone(inside: Namespace, sample: Object) -> None:
    attach(inside, sample.programs["first"])
    place = hook(inside)
    inside.ip("link", "delete", "mzb0")
    with pytest.raises(NotFoundError, match="no such interface"):
        inside(lambda: place.replace(sample.programs["second"], expected=sample.programs["first"]))
    inside(lambda: place.detach(sample.programs["first"]))


def test_no_such_device(inside: Namespace, sample: Object) -> None:
    nowhere = TcxHook(9999, EGRESS)
    with pytest.raises(NotFoundError):
        inside(lambda: nowhere.attach(sample.programs["first"], revision=1))
    with pytest.raises(NotFoundError):
        inside(nowhere.query)
