# SPDX-License-Identifier: Apache-2.0
"""What verdicts say of themselves: whose concern each is, what brings it about, and what to do then."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import pytest

import mizarnet as mz
from mizarnet import Verdict, VerdictKind

OWNERS = {
    "agent": mz.TransitAgent,
    "agent.endpoints": mz.EndpointTable,
    "agent.networks": mz.NetworkTable,
    "agent.peers": mz.PeerSet,
    "endpoint": mz.Endpoint,
    "Endpoint": mz.Endpoint,
    "tunnel": mz.Tunnel,
    "Tunnel": mz.Tunnel,
    "TransitSwitch": mz.TransitSwitch,
}
"""What the words of a remedy stand for."""
NAMED = re.compile(
    r"\b((?:agent|tunnel|endpoint|Endpoint|Tunnel|TransitAgent|TransitSwitch)(?:\.\w+)*)\.(\w+)(\((\w*)=?\))?"
)
"""An owner, its attribute, and perhaps that it is called, with a keyword."""


def wrong_names(text: str) -> Iterator[str]:
    """What a text names that does not exist."""
    for owner, name, called, keyword in NAMED.findall(text):
        found = getattr(OWNERS.get(owner), name, None)
        if found is None or (called and not callable(found)):
            yield f"{owner}.{name}"
        elif keyword and keyword not in inspect.signature(found).parameters:
            yield f"{owner}.{name}({keyword}=)"


def sentences(text: str) -> list[str]:
    return re.split(r"(?<=[.])\s+(?=[A-Z])", text)


@pytest.mark.parametrize("verdict", Verdict)
def test_no_verdict_lacks_kind_cause_and_remedy(verdict: Verdict) -> None:
    assert (verdict.kind is VerdictKind.PASSED) is not verdict.dropped
    for text in (verdict.cause, verdict.remedy):
        assert re.fullmatch(r"[A-Z].+\.", text)
        assert all(len(sentence.split()) <= 40 for sentence in sentences(text))
    if verdict.kind not in (VerdictKind.PASSED, VerdictKind.CHATTER):
        assert verdict.remedy != "None needed."


def test_each_drop_reason_has_a_cause_of_its_own() -> None:
    assert len({verdict.cause for verdict in Verdict}) == len(Verdict)


def test_what_every_stack_says_is_chatter_and_nothing_else() -> None:
    chatter = {verdict for verdict in Verdict if verdict.kind is VerdictKind.CHATTER}
    assert chatter == {Verdict.MULTICAST, Verdict.OWN_ADDRESS_ASKED}


@pytest.mark.parametrize("verdict", Verdict)
def test_a_remedy_names_what_exists(verdict: Verdict) -> None:
    assert [*wrong_names(verdict.remedy)] == []


def test_remedies_do_name_calls() -> None:
    assert sum(bool(NAMED.search(verdict.remedy)) for verdict in Verdict) > 20


def test_a_name_that_does_not_exist_is_noticed() -> None:
    text = "agent.peers.append(), Endpoint.create(address=), tunnel.mtu() or agent.peers.add() and agent.stats()."
    assert [*wrong_names(text)] == ["agent.peers.append", "Endpoint.create(address=)", "tunnel.mtu"]
