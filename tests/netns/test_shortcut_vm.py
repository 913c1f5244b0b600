# SPDX-License-Identifier: Apache-2.0
"""A VM behind the shortcut: single frames take it, merged ones go the kernel's way; all of them arrive whole."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mizarnet import Verdict
from mizarnet._kernel.bpf import has_tcx
from tests.netns.test_macvtap_frames import (
    test_a_vm_without_offloads_gets_plain_frames as receive_without_offloads,
)
from tests.netns.test_macvtap_frames import test_super_frames_arrive_whole as receive_super_frames
from tests.support.counting import counted
from tests.support.vm import Guests
from tests.support.vmm import Vmm
from tests.world import EncapName, World

pytestmark = pytest.mark.skipif(not has_tcx(), reason="this kernel has no tcx, and so no shortcut")

FULL_FRAME = 14 + 1450


@pytest.fixture(scope="module")
def shared_world(encap: EncapName) -> Iterator[World]:
    """Two hosts with the shortcut."""
    with World(encap, shortcut="auto") as made:
        yield made


@pytest.mark.vm
def test_super_frames_from_afar_arrive_whole(guests: Guests, vmm: Vmm) -> None:
    since = counted(guests.host.agent, lambda: receive_super_frames(guests.far, vmm))
    single, merged = since.shortcut[Verdict.ACCEPTED], since.guard[Verdict.ACCEPTED]
    assert single.packets > 0  # the handshake
    assert merged.packets > 0
    # How many the kernel merges depends on how fast they come; never on which way they go then.
    assert single.bytes <= single.packets * FULL_FRAME
    assert merged.bytes > merged.packets * FULL_FRAME


def test_a_vm_without_offloads_gets_plain_frames_from_afar(guests: Guests, plain: Vmm) -> None:
    since = counted(guests.host.agent, lambda: receive_without_offloads(guests.far, plain))
    assert since.shortcut[Verdict.ACCEPTED].packets > 0
