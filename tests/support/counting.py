# SPDX-License-Identifier: Apache-2.0
"""Verdicts that a piece of traffic caused."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import mizarnet as mz
from mizarnet import Verdict
from tests.support.wait import wait_until


def counted(agent: mz.TransitAgent, action: Callable[[], object]) -> mz.Stats:
    """What an agent and its guard counted while ``action`` ran."""
    before = agent.stats()
    action()
    return agent.stats().since(before)


def wait_for(
    agent: mz.TransitAgent, verdict: Verdict, before: mz.Stats, *, program: str, packets: int = 1
) -> None:
    """Wait until ``program`` has counted ``packets`` more of a verdict since ``before``."""

    def risen() -> bool:
        since = agent.stats().since(before)
        return bool(getattr(since, program)[verdict].packets >= packets)

    wait_until(
        risen, lambda: f"no {verdict.name} by the {program}; there was:\n{agent.stats().since(before)}"
    )


def assert_counted(
    agent: mz.TransitAgent, program: str, verdict: Verdict, action: Callable[[], object]
) -> None:
    """``program`` counts exactly one frame more of ``verdict`` for ``action``."""
    before = agent.stats()
    action()
    wait_for(agent, verdict, before, program=program)
    assert getattr(agent.stats().since(before), program)[verdict].packets == 1


def refused(program: Mapping[Verdict, mz.Counter]) -> dict[Verdict, int]:
    """Its drops, without the questions for nobody, which the containers' kernels repeat for seconds."""
    return {
        verdict: counter.packets
        for verdict, counter in program.items()
        if verdict.dropped and counter.packets and verdict is not Verdict.NEIGHBOUR_UNKNOWN
    }


def refused_but_chatter(stats: mz.Stats) -> dict[Verdict, int]:
    """Both programs' drops, without what the IPv6 of a container says unasked for seconds after it came up."""
    return {verdict: counter.packets for verdict, counter in stats.drops.items()}
