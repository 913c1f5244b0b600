# SPDX-License-Identifier: Apache-2.0
"""Agent and guard as they are shipped, on single frames without a network: they do what the model says.

A test run gives a frame no tunnel key, and an IP packet no route but a socket of a routed family. The agent that looks
at the route takes such a packet for a reflected one, so most of this uses the object that does not look. Nor does the
kernel take IP packets here that are shorter than their header: those are in ``tests/netns/test_isolation.py``.
"""

from __future__ import annotations

import struct

import attrs
import pytest

from mizarnet import Verdict
from mizarnet._kernel.netlink import Session
from mizarnet._kernel.objects import has_route_identity
from tests.frames import TYPE_IPV4, TYPE_IPV6, u16
from tests.model import Model
from tests.model.case import Case
from tests.support.fixtures import by_state, named_states
from tests.support.shipped import Ran, Shipped, blind

CONTEXT = struct.Struct("=8xI20xI")  # the members of struct __sk_buff that are told: mark and priority
SHORTEST = {u16(TYPE_IPV4): 34, u16(TYPE_IPV6): 54}
TYPE_AT = slice(12, 14)


KEPT = by_state("agent", "guard")


def cases_of(name: str) -> dict[str, Case]:
    """The kept cases of a state, with what a test run has of them."""
    return {
        each: Case(program=case.program, frame=case.frame, mark=case.mark, priority=case.priority)
        for each, fixture in KEPT[name].items()
        if len((case := fixture.case).frame) >= SHORTEST.get(case.frame[TYPE_AT], 14)
    }


def run(shipped: Shipped, case: Case) -> Ran:
    return shipped.run(case.program, case.frame, CONTEXT.pack(case.mark, case.priority))


def is_right(shipped: Shipped, model: Model, case: Case) -> bool:
    ran, expected = run(shipped, case), model.judge(case)
    # From what the agent drops it may have taken a hop.
    dropped = ran.frame if case.program == "agent" else case.frame
    frame = dropped if expected.frame is None else expected.frame
    return (ran.verdict, ran.action, ran.frame) == (expected.verdict, expected.action, frame)


@pytest.mark.parametrize("name", KEPT)
def test_the_shipped_programs_do_what_is_right(isolated: None, name: str) -> None:
    cases = cases_of(name)
    with Shipped.load(blind(named_states()[name])) as shipped:
        model = Model(shipped.state)
        wrong = [each for each, case in cases.items() if not is_right(shipped, model, case)]
    assert not wrong


@pytest.mark.skipif(not has_route_identity(), reason="this kernel cannot read the route: see test_probe")
def test_the_agent_that_looks_at_the_route() -> None:
    state = named_states()["VXLAN over IPv4"]
    cases = cases_of("VXLAN over IPv4")
    packet = cases["valid:ipv4-udp-to-a-remote-endpoint"]
    question = cases["neighbours:arp-request-for-a-remote-endpoint"]
    with Session.open() as session:
        here = session.cookie
    for cookie, answer in ((here, Verdict.NEIGHBOUR_ANSWERED), (here + 1, Verdict.FOREIGN_SOCKET)):
        senders = {mac: attrs.evolve(each, netns_cookie=cookie) for mac, each in state.senders.items()}
        with Shipped.load(attrs.evolve(state, senders=senders)) as shipped:
            assert run(shipped, packet).verdict is Verdict.REFLECTED
            assert run(shipped, question).verdict is answer
