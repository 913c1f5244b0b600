# SPDX-License-Identifier: Apache-2.0
"""XDP programs on a veth pair in a namespace of its own; and tcx where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from mizarnet._kernel.bpf import Direction, Object, ObjectSpec, TcxHook, XdpHook, has_tcx
from mizarnet._model.specs import XdpMode
from mizarnet.errors import ExistsError, NotFoundError, StaleHandleError, UnsupportedError
from tests.bpf.binding.veth import Namespace


@pytest.mark.parametrize("mode", XdpMode)
def test_xdp(inside: Namespace, sample: Object, mode: XdpMode) -> None:
    hook, turn = XdpHook(inside.index("mzb0")), sample.programs["turn"]
    inside(lambda: hook.attach(turn, mode=mode))
    state = inside(hook.query)
    assert state.program_ids == [turn.id]
    assert (state.generic == turn.id) == (mode is XdpMode.GENERIC)
    with pytest.raises(ExistsError, match="turn"):
        inside(lambda: hook.attach(turn, mode=mode))
    for _ in range(2):
        inside(lambda: hook.detach(turn, mode=mode))
        assert inside(hook.query).program_ids == []


@pytest.mark.parametrize("mode", XdpMode)
def test_replacing_compares_and_swaps(
    inside: Namespace, sample: Object, objects: Path, mode: XdpMode
) -> None:
    hook, turn = XdpHook(inside.index("mzb0")), sample.programs["turn"]
    with ObjectSpec.open(objects / "sample.bpf.o", name="other").load() as other:
        inside(lambda: hook.attach(turn, mode=mode))
        with pytest.raises(StaleHandleError):
            inside(lambda: hook.replace(turn, expected=other.programs["turn"], mode=mode))
        inside(lambda: hook.detach(other.programs["turn"], mode=mode))
        assert inside(hook.query).program_ids == [turn.id]
        inside(lambda: hook.replace(other.programs["turn"], expected=turn, mode=mode))
        assert inside(hook.query).program_ids == [other.programs["turn"].id]


def test_end_of_device(inside: Namespace, sample: Object) -> None:
    hook, turn = XdpHook(inside.index("mzb0")), sample.programs["turn"]
    inside(lambda: hook.attach(turn, mode=XdpMode.GENERIC))
    inside.ip("link", "delete", "mzb0")
    with pytest.raises(NotFoundError):
        inside(lambda: hook.replace(turn, expected=turn, mode=XdpMode.GENERIC))
    inside(lambda: hook.detach(turn, mode=XdpMode.GENERIC))


def test_no_such_device(inside: Namespace, sample: Object) -> None:
    with pytest.raises(NotFoundError):
        inside(lambda: XdpHook(9999).attach(sample.programs["turn"], mode=XdpMode.NATIVE))


@pytest.mark.skipif(bool(has_tcx()), reason="this kernel has tcx (6.6)")
def test_kernel_without_tcx_says_so(inside: Namespace, sample: Object) -> None:
    hook = TcxHook(inside.index("mzb0"), Direction.EGRESS)
    with pytest.raises(UnsupportedError, match=r"6\.6"):
        inside(lambda: hook.attach(sample.programs["first"], revision=1))
    with pytest.raises(UnsupportedError):
        inside(hook.query)
