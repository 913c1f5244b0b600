# SPDX-License-Identifier: Apache-2.0
"""Every data path of this machine, found from the programs that the kernel has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mizarnet import TransitAgent
from mizarnet._datapath import loader
from mizarnet._datapath.survey import Standing, recognise, survey
from mizarnet._kernel.bpf import ClsactPlace, Direction, Program, TcxHook, has_tcx, program_name
from mizarnet._kernel.netlink import Session
from tests.support.calls import PROGRAMS, numbers

if TYPE_CHECKING:
    from tests.world import Host


def data_paths() -> dict[int, dict[int, Standing]]:
    """The programs of each data path, by id, under the id of its ``meta``: of this run and of others."""
    found: dict[int, dict[int, Standing]] = {}
    for number in numbers(PROGRAMS):
        if program_name(number) in loader.PROGRAMS and (standing := recognise(number)):
            found.setdefault(standing.meta_id, {})[number] = standing
    return found


def program_ids(agent: TransitAgent) -> dict[str, int]:
    """Ids of an agent's programs by name, that of its switch included."""
    return {program_name(number) or "": number for number in data_paths().get(agent._datapath.meta_id, {})}


def attached_on(host: Host) -> list[str]:
    """The places on a host's tunnel where programs of ours stand."""
    found = host.tunnel._host.run(survey, host.tunnel.ifindex)
    return [str(place) for place in found.standing]


@contextmanager
def at_the_head(session: Session, ifindex: int, program: Program, direction: Direction) -> Iterator[None]:
    """A program before all others on one side of a device, as long as the block lasts."""
    if has_tcx():
        hook = TcxHook(ifindex, direction)
        session.run(lambda: hook.attach(program, revision=hook.query().revision))
        detach = hook.detach
    else:
        place = ClsactPlace(ifindex=ifindex, direction=direction, priority=1, handle=1)
        session.run(place.attach, program)
        detach = place.detach
    try:
        yield
    finally:
        session.run(detach, program)
