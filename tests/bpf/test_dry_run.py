# SPDX-License-Identifier: Apache-2.0
"""Running the programs frame by frame; what they do with frames is in test_fixtures.py and test_fuzz.py."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from mizarnet import Verdict
from mizarnet._datapath.dry_run import NO_TOKEN, Context, DryRun, object_path
from mizarnet._datapath.dry_run.facts import Facts, Key
from mizarnet._model.enumerations import Program
from mizarnet.errors import BpfError, LayoutError
from tests.frames import datagram, mac
from tests.support import filled
from tests.support.twin_object import SOURCES, build

MARK = 0xC0FFEE01
CONFIG = filled.config(mark_local=MARK, mark_bounced=MARK + 1).pack()
FRAME = datagram(mac("02:00:00:00:00:01"), "10.0.0.1", "10.0.0.2", destination_mac=mac("02:00:00:00:00:02"))
TC_NEXT, TC_OK, TC_SHOT, XDP_PASS = 0xFFFFFFFF, 0, 2, 2


@pytest.fixture(params=[True, False], ids=["route identity", "MAC only"])
def dry_run(request: pytest.FixtureRequest, isolated: None) -> Iterator[DryRun]:
    """Both objects, on any kernel: neither reads a packet's route."""
    with DryRun.load(CONFIG, object_path(route_identity=request.param)) as loaded:
        yield loaded


@pytest.mark.vm
def test_each_program_runs_and_says_what_it_counted(dry_run: DryRun) -> None:
    agent, guard, switch, shortcut = (dry_run.run(program, FRAME) for program in Program)
    assert (agent.verdict, agent.action, agent.frame) == (Verdict.UNKNOWN_SENDER, TC_SHOT, None)
    assert (guard.verdict, guard.action, guard.frame) == (Verdict.NO_TUNNEL_KEY, TC_SHOT, None)
    assert (switch.verdict, switch.action, switch.frame) == (Verdict.PASSED, XDP_PASS, FRAME)
    assert (shortcut.verdict, shortcut.action, shortcut.frame) == (Verdict.PASSED, TC_NEXT, FRAME)
    assert [each.asked.program for each in (agent, guard, switch, shortcut)] == list(Program)


@pytest.mark.vm
def test_a_run_knows_nothing_of_the_one_before(dry_run: DryRun) -> None:
    told = Facts(key=Key(family=4, vni=7, ttl=64), tag=0x81000007, options=b"option")
    first = dry_run.run(Program.GUARD, FRAME, Context(mark=1, token=b"mizarnet tok"), told)
    assert first.verdict is Verdict.FOREIGN_LOCAL
    last = dry_run.run(Program.GUARD, FRAME, Context(mark=MARK))
    assert (last.verdict, last.action, last.frame) == (Verdict.ACCEPTED_LOCALLY, TC_OK, FRAME)
    assert (last.context.mark, last.context.token, last.asked.verdicts) == (0, NO_TOKEN, 1)


@pytest.mark.vm
def test_a_frame_shorter_than_its_header(dry_run: DryRun) -> None:
    ran = dry_run.run(Program.AGENT, FRAME[:15])
    assert (ran.verdict, ran.asked.length) == (Verdict.TRUNCATED, 15)


def test_what_is_no_frame_is_refused(dry_run: DryRun) -> None:
    with pytest.raises(BpfError, match="run 'mzn_switch' on 00"):
        dry_run.run(Program.SWITCH, b"\0")


def test_the_maps_are_filled_and_read_as_an_agents(dry_run: DryRun) -> None:
    dry_run.run(Program.AGENT, FRAME)
    _, words = dry_run.maps.verdicts.sum_words()
    assert list(filter(None, words)) == [1, len(FRAME)]


def test_nothing_runs_once_it_is_closed(dry_run: DryRun) -> None:
    dry_run.close()
    dry_run.close()
    with pytest.raises(ValueError, match="closed"):
        dry_run.run(Program.AGENT, FRAME)


@pytest.mark.parametrize(
    ("struct", "old", "new"),
    [
        ("dry_key", "\t__u32 ttl;\n", "\t__u64 ttl;\n"),
        ("dry_facts", "\t__u32 hash;\n", "\t__u32 hash;\n\t__u32 more;\n"),
        ("dry_asked", "\t__u32 received;\n", "\t__u32 received, more;\n"),
    ],
)
def test_another_layout_of_what_is_told_is_refused(
    tmp_path: Path, isolated: None, struct: str, old: str, new: str
) -> None:
    tree = tmp_path / "csrc"
    shutil.copytree(SOURCES, tree)
    header = tree / "bpf/dry_run/facts.h"
    text = header.read_text()
    assert text.count(old) == 1
    header.write_text(text.replace(old, new))
    with pytest.raises(LayoutError) as refused:
        DryRun.load(CONFIG, build(tree, tmp_path, route_identity=True))
    assert refused.value.struct == struct
