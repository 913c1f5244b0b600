# SPDX-License-Identifier: Apache-2.0
"""Filters on clsact, which older kernels have in place of tcx."""

from __future__ import annotations

import pytest

from mizarnet._kernel.bpf import ClsactPlace, Direction, Object, query_filters
from mizarnet.errors import BpfError, ExistsError, NotFoundError, StaleHandleError
from tests.bpf.binding.veth import Namespace

EGRESS, INGRESS = Direction.EGRESS, Direction.INGRESS


def place(
    inside: Namespace, direction: Direction = EGRESS, *, priority: int = 1, handle: int = 7
) -> ClsactPlace:
    return ClsactPlace(ifindex=inside.index("mzb0"), direction=direction, priority=priority, handle=handle)


def attach(inside: Namespace, sample: Object, program: str, direction: Direction = EGRESS) -> ClsactPlace:
    found = place(inside, direction)
    inside(lambda: found.attach(sample.programs[program]))
    return found


def filters(inside: Namespace, direction: str) -> str:
    return inside.tc("filter", "show", "dev", "mzb0", direction)


def test_attach_and_find_again(inside: Namespace, sample: Object) -> None:
    found = attach(inside, sample, "first")
    assert "clsact" in inside.tc("qdisc", "show", "dev", "mzb0")
    assert "pref 1" in filters(inside, "egress")
    assert "direct-action" in filters(inside, "egress")
    assert inside(found.query) == sample.programs["first"].id
    assert inside(place(inside, INGRESS).query) is None


def test_both_sides(inside: Namespace, sample: Object) -> None:
    attach(inside, sample, "first")
    attach(inside, sample, "second", INGRESS)
    assert "first" in filters(inside, "egress")
    assert "second" in filters(inside, "ingress")


def test_place_taken(inside: Namespace, sample: Object) -> None:
    attach(inside, sample, "first")
    with pytest.raises(ExistsError, match="first") as caught:
        attach(inside, sample, "second")
    assert caught.value.holder.startswith("first (")


def test_replace(inside: Namespace, sample: Object) -> None:
    first, second = sample.programs["first"], sample.programs["second"]
    found = attach(inside, sample, "first")
    with pytest.raises(StaleHandleError):
        inside(lambda: found.replace(first, expected=second))
    inside(lambda: found.replace(second, expected=first))
    assert inside(found.query) == second.id
    assert filters(inside, "egress").count("handle") == 1


def test_detach_leaves_others_alone(inside: Namespace, sample: Object) -> None:
    first, second = sample.programs["first"], sample.programs["second"]
    found, other = attach(inside, sample, "first"), place(inside, priority=2, handle=1)
    inside(lambda: other.attach(second))
    running = inside(lambda: query_filters(found.ifindex)[EGRESS])
    assert [(each.priority, each.handle, each.program_id) for each in running] == [
        (1, 7, first.id),
        (2, 1, second.id),
    ]
    inside(lambda: found.detach(second))
    assert inside(found.query) == first.id
    for _ in range(2):
        inside(lambda: found.detach(first))
        assert inside(found.query) is None
    assert inside(other.query) == second.id
    inside(lambda: other.detach(second))
    assert "clsact" in inside.tc("qdisc", "show", "dev", "mzb0")


def test_ingress_qdisc_in_the_way(inside: Namespace, sample: Object) -> None:
    inside.tc("qdisc", "add", "dev", "mzb0", "ingress")
    with pytest.raises(ExistsError, match="ingress") as caught:
        attach(inside, sample, "first")
    assert caught.value.holder == "ingress"
    assert inside(place(inside).query) is None


def test_someone_elses_clsact_is_used(inside: Namespace, sample: Object) -> None:
    inside.tc("qdisc", "add", "dev", "mzb0", "clsact")
    attach(inside, sample, "first")


def test_device_gone(inside: Namespace, sample: Object) -> None:
    first, second = sample.programs["first"], sample.programs["second"]
    found = attach(inside, sample, "first")
    inside.ip("link", "delete", "mzb0")
    assert inside(found.query) is None
    inside(lambda: found.detach(first))
    with pytest.raises(NotFoundError):
        inside(lambda: found.replace(second, expected=first))
    with pytest.raises(NotFoundError):
        inside(lambda: found.attach(first))


def test_wrong_type_of_program(inside: Namespace, sample: Object) -> None:
    with pytest.raises(BpfError):
        attach(inside, sample, "turn")
