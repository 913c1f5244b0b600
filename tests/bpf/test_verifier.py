# SPDX-License-Identifier: Apache-2.0
"""The verifier's work on every program, on every kernel: far from its limit of a million."""

from __future__ import annotations

import pytest

from tools.verifier_table import LIMIT, counts

pytestmark = pytest.mark.vm


def test_every_program_stays_small() -> None:
    for name, programs in counts().items():
        assert {"mzn_agent", "mzn_guard", "mzn_switch"} == programs.keys()
        assert all(0 < processed < LIMIT for processed in programs.values()), (name, programs)
