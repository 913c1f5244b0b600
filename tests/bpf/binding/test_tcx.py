# SPDX-License-Identifier: Apache-2.0
"""tcx links on a veth pair in a namespace of its own."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from mizarnet.bpf import Direction, Link, Object, ObjectSpec, attach_tcx, query_tcx
from mizarnet.errors import BpfError, ExistsError, NotFoundError, StaleHandleError
from tests.bpf.binding.veth import Namespace, needs_tcx

pytestmark = needs_tcx

EGRESS = Direction.EGRESS


def tcx(inside: Namespace, sample: Object, program: str, device: str = "mzb0") -> Link:
    index = inside.index(device)
    return inside(lambda: attach_tcx(sample.programs[program], index, direction=EGRESS))


def test_each_new_program_runs_first(inside: Namespace, sample: Object) -> None:
    index = inside.index("mzb0")
    with tcx(inside, sample, "first"), tcx(inside, sample, "second"):
        order = inside(lambda: query_tcx(index, direction=EGRESS))
        assert order == [sample.programs["second"].id, sample.programs["first"].id]
        assert inside(lambda: query_tcx(index, direction=Direction.INGRESS)) == []
    assert inside(lambda: query_tcx(index, direction=EGRESS)) == []


def test_before_the_programs_of_others(inside: Namespace, sample: Object, objects: Path) -> None:
    """Also before one that was put at the head in the same way."""
    index = inside.index("mzb0")
    links = [tcx(inside, sample, "first")]
    for _ in range(3):
        with ObjectSpec.open(objects / "sample.bpf.o", name="other").load() as other:
            links.insert(0, inside(lambda: attach_tcx(other.programs["first"], index, direction=EGRESS)))
    assert inside(lambda: query_tcx(index, direction=EGRESS)) == [link.program_id for link in links]
    for link in links:
        link.close()


def test_facts(inside: Namespace, sample: Object) -> None:
    with tcx(inside, sample, "first") as link:
        assert (link.type, link.direction, link.ifindex) == ("tcx", EGRESS, inside.index("mzb0"))
        assert link.program_id == sample.programs["first"].id
        assert link.id > 0


def test_twice_the_same_program(inside: Namespace, sample: Object) -> None:
    with tcx(inside, sample, "first"), pytest.raises(ExistsError, match="first"):
        tcx(inside, sample, "first")


def test_the_program_sees_packets(inside: Namespace, sample: Object) -> None:
    with tcx(inside, sample, "first"):
        inside.ip("address", "add", "192.0.2.1/24", "dev", "mzb0")
        inside.ip("neighbour", "add", "192.0.2.2", "lladdr", "02:00:00:00:00:02", "dev", "mzb0")

        def send() -> None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.sendto(b"hello", ("192.0.2.2", 9))

        inside(send)
        assert sample.maps["counters"].sum_words()[1][4] >= 1


def test_update_compares_and_swaps(inside: Namespace, sample: Object) -> None:
    first, second = sample.programs["first"], sample.programs["second"]
    with tcx(inside, sample, "first") as link:
        with pytest.raises(StaleHandleError, match="second"):
            link.update(first, expected=second)
        assert link.program_id == first.id
        link.update(second, expected=first)
        assert link.program_id == second.id
        link.update(first)
        assert link.program_id == first.id


def test_wrong_type_of_program(inside: Namespace, sample: Object) -> None:
    with tcx(inside, sample, "first") as link, pytest.raises(BpfError):
        link.update(sample.programs["turn"])
    with pytest.raises(BpfError):
        tcx(inside, sample, "turn")


def test_detach(inside: Namespace, sample: Object) -> None:
    index = inside.index("mzb0")
    with tcx(inside, sample, "first") as link:
        link.detach()
        assert inside(lambda: query_tcx(index, direction=EGRESS)) == []
        assert link.ifindex == 0
        link.detach()


def test_device_gone(inside: Namespace, sample: Object) -> None:
    with tcx(inside, sample, "first") as link:
        inside.ip("link", "delete", "mzb0")
        assert link.ifindex == 0
        with pytest.raises(NotFoundError, match="gone"):
            link.update(sample.programs["second"])
        link.detach()


def test_no_such_device(inside: Namespace, sample: Object) -> None:
    with pytest.raises(NotFoundError):
        inside(lambda: attach_tcx(sample.programs["first"], 9999, direction=EGRESS))
    with pytest.raises(NotFoundError):
        inside(lambda: query_tcx(9999, direction=EGRESS))
