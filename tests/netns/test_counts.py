# SPDX-License-Identifier: Apache-2.0
"""No verb makes more system calls, and no program calls more helpers, than ``tests/bench/counts.json`` says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.counts import COUNTED, committed, counted, more
from tests.support.injector import Injector


def test_nothing_takes_more_than_it_did(tmp_path: Path) -> None:
    known = committed()
    if known is None:
        pytest.skip("the counts are of another kernel")
    found = counted(Injector.build(tmp_path))
    assert set(found) == {*COUNTED, "mzn_agent", "mzn_guard"}
    assert more(found, known) == [], "write it anew with python -m tests.bench.counts --write, and say why"


def test_more_is_noticed() -> None:
    known = {"verb": {"system calls": 100, "bpf": 10}}
    assert more({"verb": {"system calls": 105, "bpf": 13}}, known) == []
    assert more({"verb": {"system calls": 106, "bpf": 14}}, known) == [
        "verb: 106 system calls, not 100",
        "verb: 14 bpf, not 10",
    ]
