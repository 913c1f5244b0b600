# SPDX-License-Identifier: Apache-2.0
"""The check that follows every test of this tier notices a single frame that does not add up."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import mizarnet as mz
from mizarnet import Program, Verdict
from mizarnet._model.codec import u32
from mizarnet._model.enumerations import Limit
from tests.support.invariants import REDIRECTED, account_of
from tests.world import World

pytestmark = pytest.mark.vm


@pytest.fixture(scope="module")
def agent() -> Iterator[mz.TransitAgent]:
    """The agent of a host where nothing happens."""
    with World("vxlan", hosts=1) as world:
        yield world.hosts[0].agent


@contextmanager
def one_more(agent: mz.TransitAgent, program: Program, verdict: Verdict) -> Iterator[None]:
    """A frame in the counters that never was."""
    key = u32(program * Limit.VERDICTS + verdict)
    before = agent._datapath.maps.verdicts.lookup(key)
    assert before is not None
    packets = int.from_bytes(before[:8], sys.byteorder) + 1
    agent._datapath.maps.verdicts.update(key, packets.to_bytes(8, sys.byteorder) + before[8:])
    yield
    agent._datapath.maps.verdicts.update(key, before)


def errors(agent: mz.TransitAgent) -> list[str]:
    """What does not add up."""
    found = account_of(agent)
    assert found is not None
    return list(found.errors())


@pytest.mark.parametrize("program", [Program.AGENT, Program.GUARD])
def test_a_verdict_without_a_run_is_noticed(agent: mz.TransitAgent, program: Program) -> None:
    assert not errors(agent)
    with one_more(agent, program, Verdict.MULTICAST):
        assert errors(agent) == [f"the {program.name.lower()} ran 0 times and counted 1 verdicts"]


@pytest.mark.parametrize("verdict", REDIRECTED)
def test_a_redirected_frame_that_did_not_arrive_is_noticed(agent: mz.TransitAgent, verdict: Verdict) -> None:
    with one_more(agent, Program.AGENT, verdict):
        assert "of 1 frames that agent and shortcut redirected the guard accepted 0" in errors(agent)


def test_a_frame_with_the_agents_mark_that_the_agent_did_not_send_is_noticed(agent: mz.TransitAgent) -> None:
    with one_more(agent, Program.GUARD, Verdict.ACCEPTED_LOCALLY):
        assert "of 0 frames that agent and shortcut redirected the guard accepted 1" in errors(agent)


def test_a_bounced_frame_that_did_not_leave_is_noticed(agent: mz.TransitAgent) -> None:
    with one_more(agent, Program.GUARD, Verdict.BOUNCED):
        assert "of 1 frames that the guard bounced the agent admitted 0" in errors(agent)


def test_a_frame_with_the_guards_mark_that_the_guard_did_not_bounce_is_noticed(
    agent: mz.TransitAgent,
) -> None:
    with one_more(agent, Program.AGENT, Verdict.BOUNCE_ADMITTED):
        assert "of 0 frames that the guard bounced the agent admitted 1" in errors(agent)
