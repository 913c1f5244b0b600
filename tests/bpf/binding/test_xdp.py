# SPDX-License-Identifier: Apache-2.0
"""XDP links on a veth pair in a namespace of its own; and tcx where there is none."""

from __future__ import annotations

import pytest

from mizarnet.bpf import Direction, Object, XdpMode, attach_tcx, attach_xdp, has_tcx, query_tcx, query_xdp
from mizarnet.errors import ExistsError, NotFoundError, StaleHandleError, UnsupportedError
from tests.bpf.binding.veth import Namespace


@pytest.mark.parametrize("mode", [XdpMode.NATIVE, XdpMode.GENERIC, XdpMode.AUTO])
def test_xdp(inside: Namespace, sample: Object, mode: XdpMode) -> None:
    index, turn = inside.index("mzb0"), sample.programs["turn"]
    with inside(lambda: attach_xdp(turn, index, mode=mode)) as link:
        state = inside(lambda: query_xdp(index))
        assert (link.type, link.direction, link.ifindex, link.program_id) == ("xdp", None, index, turn.id)
        assert state.program_ids == [turn.id]
        assert (state.generic == turn.id) == (mode is XdpMode.GENERIC)
        with pytest.raises(ExistsError, match="turn"):
            inside(lambda: attach_xdp(turn, index, mode=mode))
    assert inside(lambda: query_xdp(index)).program_ids == []


def test_xdp_update_and_end_of_device(inside: Namespace, sample: Object) -> None:
    index, turn = inside.index("mzb0"), sample.programs["turn"]
    with inside(lambda: attach_xdp(turn, index, mode=XdpMode.GENERIC)) as link:
        with pytest.raises(StaleHandleError):
            link.update(turn, expected=sample.programs["first"])
        link.update(turn, expected=turn)
        inside.ip("link", "delete", "mzb0")
        with pytest.raises(NotFoundError):
            link.update(turn, expected=turn)
        link.detach()


def test_no_such_device(inside: Namespace, sample: Object) -> None:
    with pytest.raises(NotFoundError):
        inside(lambda: attach_xdp(sample.programs["turn"], 9999, mode=XdpMode.AUTO))


@pytest.mark.skipif(bool(has_tcx()), reason="this kernel has tcx (6.6)")
def test_kernel_without_tcx_says_so(inside: Namespace, sample: Object) -> None:
    index = inside.index("mzb0")
    with pytest.raises(UnsupportedError, match=r"6\.6"):
        inside(lambda: attach_tcx(sample.programs["first"], index, direction=Direction.EGRESS))
    with pytest.raises(UnsupportedError):
        inside(lambda: query_tcx(index, direction=Direction.EGRESS))
