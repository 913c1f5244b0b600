# SPDX-License-Identifier: Apache-2.0
"""What verdicts say of themselves: whose concern each is, what brings it about, and what to do then."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

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


# -- pages

PAGES = Path(__file__).parent.parent.parent / "docs/verdicts"
BY_HAND = "what follows is written by hand. -->\n"
HEADINGS = ["What was looked at", "Who is likely wrong", "What to look at next"]
CODE = re.compile(r"`([^`]+)`")


def wrong_in_page(text: str) -> list[str]:
    """The same for a page, which names attributes of handles, too."""
    return [
        wrong
        for code in CODE.findall(text)
        for wrong in wrong_names(code)
        if wrong not in OWNERS and not is_attribute(*wrong.rsplit(".", 1))
    ]


def is_attribute(owner: str, name: str) -> bool:
    """Whether the handles that an owner stands for have an attribute that their constructor sets."""
    return owner in OWNERS and f"self.{name}:" in inspect.getsource(OWNERS[owner])


@pytest.mark.parametrize("verdict", Verdict)
def test_each_verdict_has_a_page_with_what_it_says_of_itself(verdict: Verdict) -> None:
    page = PAGES.parent.parent / verdict.page
    text = page.read_text()
    assert text.startswith(f"# {verdict.name}\n")
    assert f"| {verdict.cause} |" in text
    assert f"| {verdict.remedy} |" in text
    assert re.search(r"^\| rule \| .*[A-Z]\d", text, re.MULTILINE)
    assert f"[{verdict.name}]({page.name})" in (PAGES / "README.md").read_text()


@pytest.mark.parametrize("verdict", [each for each in Verdict if each.dropped])
def test_of_each_drop_somebody_wrote_where_to_look(verdict: Verdict) -> None:
    _, _, text = (PAGES.parent.parent / verdict.page).read_text().partition(BY_HAND)
    parts = re.split(r"^## (.+)\n", text, flags=re.MULTILINE)
    assert parts[1::2] == HEADINGS
    for part in parts[2::2]:
        assert len(part.split()) >= (1 if verdict.kind is VerdictKind.CHATTER else 8)
    assert wrong_in_page(text) == []


def test_a_name_in_a_page_that_does_not_exist_is_noticed() -> None:
    text = "`agent.endpoints[vni, ip]`, `tunnel.local`, `tunnel.mtus`, `endpoint.nothing()` and agent.nothing"
    assert wrong_in_page(text) == ["tunnel.mtus", "endpoint.nothing"]


def test_there_is_no_page_of_a_verdict_that_does_not_exist() -> None:
    named = {Path(verdict.page).name for verdict in Verdict}
    assert {page.name for page in PAGES.glob("*.md")} == named | {"README.md"}
