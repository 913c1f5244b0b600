# SPDX-License-Identifier: Apache-2.0
"""Calls that failed once when the kernel refused one of their system calls; ``make crash`` tries every one."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from tests.crash.ground import Ground
from tests.crash.judge import Judge
from tests.crash.plan import MODES
from tests.crash.report import Tally
from tests.crash.verbs import VERBS
from tests.support.injector import Injector


@pytest.fixture(scope="module")
def injector(tmp_path_factory: pytest.TempPathFactory) -> Injector:
    return Injector.build(tmp_path_factory.mktemp("injector"))


CASES = {
    "Tunnel.create": [
        ("starve", "netlink", None),  # the device stayed when it could not be read back
        ("persist", "write", None),  # the first error was hidden by what its undoing met
    ],
    "Endpoint.create MACVLAN": [("starve", "netlink", None)],  # a device stayed that no record named
    "Endpoint.create MACVTAP": [("error", "lock", None)],  # an OSError that is none of the library's
    "TransitAgent.attach": [
        ("starve", "bpf PROG_QUERY", 4),  # it was attached to clsact alone, as if the kernel had no tcx
    ],
    "endpoints.update": [
        ("error", "bpf MAP_UPDATE_ELEM", 4),  # entries stayed that were written before the refused one
        ("error", "bpf MAP_UPDATE_BATCH", None),
    ],
    "TransitSwitch.attach": [
        ("error", "bpf PROG_BIND_MAP", 2),  # the program ran without its build
        ("error", "bpf MAP_UPDATE_ELEM", 4),  # program and forwarding stayed
        ("error", "netlink", None),  # the generic mode took the place of the native one
        ("kill", "netlink", None),  # a note stayed of a switch that was never attached
        ("starve", "open", None),  # there was "no BPF object"
    ],
    "TransitSwitch.detach": [("kill", "bpf MAP_UPDATE_ELEM", None)],  # a note stayed that no call found
}
"""By verb: kind of fault, beginning of the calls that it happens to, and how many trials of them; None: all."""


@pytest.mark.parametrize("verb", CASES)
def test_a_refused_call_leaves_nothing_and_says_why(
    injector: Injector, tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    tally = Tally(verb, seed=0)
    judge = Judge(lambda: Ground(injector, tmp_path), VERBS[verb], tally, "")
    try:
        for mode, call, count in CASES[verb]:
            trials = MODES[mode](judge.reference.listed, [*VERBS[verb].again])
            chosen = [each for each in trials if each.what.startswith(call)][:count]
            assert chosen, f"{verb} makes no call of {call}"
            judge.try_all(chosen)
    finally:
        judge.close()
    assert tally.violations == 0, capsys.readouterr().out


def test_a_namespace_that_cannot_be_removed_is_told(
    injector: Injector, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It was left without a word; a new tunnel of that name finds it, since there is no handle of the old one."""
    verb = VERBS["Tunnel.delete(force)"]
    tally = Tally(verb.name, seed=0)
    judge = Judge(lambda: Ground(injector, tmp_path), verb, tally, "")
    try:
        trials = MODES["error"](judge.reference.listed, [*verb.again])
        judge.try_all(
            [attrs.evolve(each, way="by name") for each in trials if each.what.startswith("umount")]
        )
    finally:
        judge.close()
    assert tally.violations == 0, capsys.readouterr().out
