# SPDX-License-Identifier: Apache-2.0
"""The benchmark's page: ratios are of one round, and what was not measured is not there."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.bench import report
from tests.bench.report import Result, Spread

ROW = "round trips"
RESULTS = [
    Result(ROW, "mizarnet", 1, {"rate": 100.0, "p50": 10.0, "p99": 12.0}),
    Result(ROW, "bridge", 1, {"rate": 50.0, "p50": 20.0, "p99": 30.0}),
    Result(ROW, "mizarnet", 2, {"rate": 90.0, "p50": 11.0, "p99": 13.0}),
    Result(ROW, "bridge", 2, {"rate": 60.0, "p50": 19.0, "p99": 30.0}),
    Result(ROW, "bridge", 3, {"rate": 1.0}),  # its other half is missing
]


def test_a_ratio_is_of_one_round() -> None:
    assert report.ratios("mizarnet", ROW, "bridge", RESULTS) == Spread(1.75, 1.5, 2.0)
    assert report.ratios("mizarnet", ROW, "native", RESULTS) is None
    assert report.ratios("shortcut", ROW, "bridge", RESULTS) is None


def test_the_tables_have_what_was_measured() -> None:
    text = report.tables([ROW, "streams"], ["mizarnet", "bridge", "native"], RESULTS)
    assert f"| {ROW} | 1.75 (1.50-2.00) | - |" in text
    assert f"| {ROW}: mizarnet | 95.00 | 10.50 | 12.50 |" in text
    assert "streams" not in text and "native |" in text


def test_the_plot_is_a_picture() -> None:
    picture = ElementTree.fromstring(report.plot([ROW], RESULTS))
    names = [each.text for each in picture if each.tag.endswith("text")]
    assert f"{ROW}: mizarnet / bridge" in names


def test_the_page_keeps_what_was_written_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page, picture = tmp_path / "page.md", tmp_path / "page.svg"
    ours, others = (f"{mark}\nold\n{report.END}" for mark in (report.MEASURED, report.EMULATED))
    page.write_text(f"above\n{ours}\nbelow\n{others}\n")
    monkeypatch.setattr(report, "PAGE", page)
    monkeypatch.setattr(report, "PLOT", picture)
    for _ in range(2):
        report.write("tables", RESULTS, {"bridge": "a bridge"}, machine="a machine", rows=[ROW])
    text = page.read_text()
    assert text.startswith("above\n") and text.endswith(f"\nbelow\n{others}\n")
    assert text.count("old") == 1 and text.count("tables") == 1 and "a machine; 3 rounds" in text
    assert picture.exists()
