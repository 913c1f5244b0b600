# SPDX-License-Identifier: Apache-2.0
"""The programs and the model agree on random cases; ``make fuzz`` runs a hundred times as many."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.needs import need_shortcut

ROOT = Path(__file__).resolve().parent.parent.parent
CASES, SEED = 10_000, 20261123


@pytest.mark.vm
@pytest.mark.parametrize("program", ["agent", "guard", "switch", "shortcut"])
def test_program_and_model_agree(program: str, tmp_path: Path) -> None:
    if program == "shortcut":
        need_shortcut()
    wanted = ("--program", program, "--cases", str(CASES), "--seed", str(SEED))
    command = (sys.executable, "-m", "tests.fuzz", *wanted, "--found", str(tmp_path / "found.jsonl"))
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
