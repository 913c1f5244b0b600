# SPDX-License-Identifier: Apache-2.0
"""What becomes of a frame, asked of every number that a program could come to, and of some that it could not."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from mizarnet import Verdict
from mizarnet._model.enumerations import Limit

SOURCES = Path(__file__).resolve().parent.parent.parent / "csrc"
NUMBERS = range(-2, 2 * Limit.VERDICTS)
ASK = f"""
#include <stdio.h>
#include <linux/stddef.h>
#include <lib/fate.h>
int main(void)
{{
	for (int n = {NUMBERS.start}; n < {NUMBERS.stop}; n++)
		printf("%d %d %d %d\\n", agent_fate(n), guard_fate(n), shortcut_fate(n), switch_fate(n));
	return 0;
}}
"""
GO_ON, TURN = 1, 2
FATES = {
    "agent": {
        Verdict.ENCAPSULATED: GO_ON,
        Verdict.BOUNCE_ADMITTED: GO_ON,
        Verdict.DELIVERED_LOCALLY: TURN,
        Verdict.NEIGHBOUR_ANSWERED: TURN,
        Verdict.GATEWAY_ANSWERED: TURN,
        Verdict.OVERSIZED_ANSWERED: TURN,
    },
    "guard": {Verdict.ACCEPTED: GO_ON, Verdict.ACCEPTED_LOCALLY: GO_ON, Verdict.BOUNCED: TURN},
    "shortcut": {Verdict.PASSED: GO_ON, Verdict.ACCEPTED: TURN},
    "switch": dict.fromkeys(NUMBERS, GO_ON) | {int(Verdict.BOUNCED): TURN},
}


@pytest.fixture(scope="module")
def fates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[int, int]]:
    """Number to fate, zeros left out, as the host's compiler makes it of the shipped source."""
    directory = tmp_path_factory.mktemp("fates")
    source, program = directory / "ask.c", directory / "ask"
    source.write_text(ASK)
    include = ["-I", str(SOURCES / "include"), "-I", str(SOURCES / "bpf")]
    subprocess.run(["gcc", *include, str(source), "-o", str(program)], check=True, timeout=60)
    said = subprocess.run([program], check=True, timeout=60, stdout=subprocess.PIPE, text=True).stdout
    columns = zip(*(map(int, line.split()) for line in said.splitlines()), strict=True)
    return {
        name: {number: fate for number, fate in zip(NUMBERS, column, strict=True) if fate}
        for name, column in zip(FATES, columns, strict=True)
    }


@pytest.mark.parametrize("program", FATES)
def test_only_its_own_verdicts_let_a_frame_go_on(fates: dict[str, dict[int, int]], program: str) -> None:
    assert fates[program] == FATES[program]
