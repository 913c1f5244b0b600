# SPDX-License-Identifier: Apache-2.0
"""The verifier's work on every program and its stack, on every kernel: far from the limits, and as they were."""

from __future__ import annotations

import os

import pytest

from tools.verifier_table import LIMIT, PROGRAMS, committed, costs

pytestmark = pytest.mark.vm

TOLERANCE = 1.1
"""What another patch level of kernel or compiler may take more."""


def test_every_program_stays_small() -> None:
    for name, programs in costs().items():
        assert tuple(programs) == PROGRAMS
        assert all(0 < cost.processed < LIMIT for cost in programs.values()), (name, programs)


def test_no_program_takes_more_than_the_page_says() -> None:
    kernel = ".".join(os.uname().release.split(".")[:2])
    known = committed(kernel)
    if not known:
        pytest.skip(f"docs/verifier.md has nothing about Linux {kernel}")
    for name, programs in costs().items():
        for program, cost in programs.items():
            before = known[name][program]
            assert cost.processed <= TOLERANCE * before.processed, (name, program, cost, before)
            assert cost.stack <= TOLERANCE * before.stack, (name, program, cost, before)
