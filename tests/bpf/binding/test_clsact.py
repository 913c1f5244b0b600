# SPDX-License-Identifier: Apache-2.0
"""Filters on clsact, which older kernels have in place of tcx."""

from __future__ import annotations

import pytest

from mizarnet.bpf import ClsactLink, Direction, Object, attach_clsact, open_clsact, query_clsact
from mizarnet.errors import BpfError, ExistsError, NotFoundError, StaleHandleError
from tests.bpf.binding.veth import Namespace

EGRESS, INGRESS = Direction.EGRESS, Direction.INGRESS


def attach(inside: Namespace, sample: Object, program: str, direction: Direction = EGRESS) -> ClsactLink:
    index = inside.index("mzb0")
    return inside(
        lambda: attach_clsact(sample.programs[program], index, direction=direction, priority=1, handle=7)
    )


def filters(inside: Namespace, direction: str) -> str:
    return inside.tc("filter", "show", "dev", "mzb0", direction)


def test_attach_and_find_again(inside: Namespace, sample: Object) -> None:
    link = attach(inside, sample, "first")
    assert "clsact" in inside.tc("qdisc", "show", "dev", "mzb0")
    assert "pref 1" in filters(inside, "egress")
    assert "direct-action" in filters(inside, "egress")
    assert inside(lambda: link.program_id) == sample.programs["first"].id
    assert inside(lambda: open_clsact(link.ifindex, direction=EGRESS, priority=1, handle=7)) == link
    assert inside(lambda: query_clsact(link.ifindex, direction=INGRESS, priority=1, handle=7)) is None


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


def test_update(inside: Namespace, sample: Object) -> None:
    first, second = sample.programs["first"], sample.programs["second"]
    link = attach(inside, sample, "first")
    with pytest.raises(StaleHandleError):
        inside(lambda: link.update(first, expected=second))
    inside(lambda: link.update(second, expected=first))
    assert inside(lambda: link.program_id) == second.id
    assert filters(inside, "egress").count("handle") == 1


def test_detach_leaves_others_alone(inside: Namespace, sample: Object) -> None:
    link = attach(inside, sample, "first")
    other = inside(
        lambda: attach_clsact(sample.programs["second"], link.ifindex, direction=EGRESS, priority=2, handle=1)
    )
    with pytest.raises(StaleHandleError):
        inside(lambda: link.detach(expected=sample.programs["second"]))
    inside(lambda: link.detach(expected=sample.programs["first"]))
    inside(link.detach)
    assert inside(lambda: other.program_id) == sample.programs["second"].id
    with pytest.raises(NotFoundError):
        inside(lambda: link.program_id)
    inside(other.detach)
    assert "clsact" in inside.tc("qdisc", "show", "dev", "mzb0")


def test_ingress_qdisc_in_the_way(inside: Namespace, sample: Object) -> None:
    inside.tc("qdisc", "add", "dev", "mzb0", "ingress")
    with pytest.raises(ExistsError, match="ingress") as caught:
        attach(inside, sample, "first")
    assert caught.value.holder == "ingress"
    index = inside.index("mzb0")
    assert inside(lambda: query_clsact(index, direction=EGRESS, priority=1, handle=7)) is None


def test_someone_elses_clsact_is_used(inside: Namespace, sample: Object) -> None:
    inside.tc("qdisc", "add", "dev", "mzb0", "clsact")
    attach(inside, sample, "first")


def test_device_gone(inside: Namespace, sample: Object) -> None:
    link = attach(inside, sample, "first")
    inside.ip("link", "delete", "mzb0")
    inside(link.detach)
    with pytest.raises(NotFoundError):
        inside(lambda: link.update(sample.programs["second"]))
    with pytest.raises(NotFoundError):
        inside(
            lambda: attach_clsact(
                sample.programs["first"], link.ifindex, direction=EGRESS, priority=1, handle=7
            )
        )


def test_wrong_type_of_program(inside: Namespace, sample: Object) -> None:
    with pytest.raises(BpfError):
        attach(inside, sample, "turn")
