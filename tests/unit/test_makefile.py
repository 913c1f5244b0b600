# SPDX-License-Identifier: Apache-2.0
"""The order in which `make test` begins the tiers."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def test_no_tier_has_to_wait_for_what_it_needs() -> None:
    # The make that runs this test must not give its own options on.
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))
    }
    command = ("make", "--dry-run", "--no-print-directory", "test")
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    _, tiers = done.stdout.split("--jobs=", maxsplit=1)
    commands = tiers.splitlines()[1:]
    assert len(commands) == 10, commands
    assert all(".venv/bin/python " in command for command in commands), commands
    assert all("tests/netns" in command for command in commands[:2]), commands
    assert "tests/vm/suite.py" in commands[-1], commands
