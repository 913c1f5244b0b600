# SPDX-License-Identifier: Apache-2.0
"""The self-test: the shipped programs pass, and no frame of it is there for nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mizarnet import SelfTestError
from mizarnet._datapath import self_test
from mizarnet._datapath.self_test.frames import frames
from mizarnet._datapath.self_test.host import HOSTS
from tests.mutants.catalogue import CANNED, Bug, bugs
from tests.support.twin_object import build

HOST_NAMES = [host.name for host in HOSTS]


def failing(path: Path) -> dict[str, set[str]]:
    """Names of the frames whose answers are wrong, with the hosts that they were for."""
    found: dict[str, set[str]] = {}
    for error in self_test.failures(path, route_identity=True):
        match = re.fullmatch(r"(.*) \((.*)\)", error.frame)
        assert match
        found.setdefault(match[1], set()).add(match[2])
    return found


def build_with(bug: Bug, tmp_path: Path) -> Path:
    return build(bug.seed(tmp_path), tmp_path, route_identity=True)


@pytest.mark.vm
def test_the_shipped_programs_pass(isolated: None) -> None:
    self_test.check()


@pytest.mark.parametrize("route_identity", [True, False])
def test_both_objects_pass(isolated: None, route_identity: bool) -> None:
    self_test.check(route_identity=route_identity)


def test_both_encapsulations_and_families_are_there() -> None:
    assert HOST_NAMES == ["vxlan over IPv4", "geneve over IPv6"]


def test_every_frame_has_a_name_and_a_mistake() -> None:
    names = [canned.name for canned in frames(HOSTS[0])]
    assert sorted(names) == sorted(bug.name for bug in bugs(CANNED))


@pytest.mark.parametrize("bug", bugs(CANNED), ids=lambda bug: bug.name)
def test_each_frame_notices_what_no_other_does(isolated: None, tmp_path: Path, bug: Bug) -> None:
    assert failing(build_with(bug, tmp_path)) == {bug.name: set(HOST_NAMES)}


@pytest.mark.parametrize(
    ("host", "where", "before", "after"),
    [
        ("vxlan over IPv4", "VXLAN_FLAGS", "0x08", "0x0c"),
        ("geneve over IPv6", "GENEVE_ETHERNET", "0x6558", "0x6559"),
    ],
)
def test_each_host_notices_what_no_other_does(
    isolated: None, tmp_path: Path, host: str, where: str, before: str, after: str
) -> None:
    bug = Bug("4", "header of the tunnel", where, before, after)
    both = ("on the underlay, for another host", "taken out of its tunnel")
    assert failing(build_with(bug, tmp_path)) == {name: {host} for name in both}


def test_a_wrong_answer_says_what_is_wrong(isolated: None, tmp_path: Path) -> None:
    bug = next(bug for bug in bugs(CANNED) if bug.name == "from a stranger")
    with pytest.raises(SelfTestError) as caught:
        self_test.check(build_with(bug, tmp_path), route_identity=True)
    error = caught.value
    assert (error.program, error.frame) == ("guard", "from a stranger (vxlan over IPv4)")
    assert "action 2" in error.wanted and "verdict FOREIGN_PEER" in error.wanted
    assert "action 0" in error.found and "verdict ACCEPTED" in error.found
    assert str(error).startswith("the guard treats a frame from a stranger")
