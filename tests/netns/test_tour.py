# SPDX-License-Identifier: Apache-2.0
"""The notebook runs from its first cell to its last, and shows tables where the kept one does."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

KEPT = Path(__file__).resolve().parent.parent.parent / "examples/tour.ipynb"
# How Python writes bytes, members of enumerations and addresses: nothing for a reader.
UGLY = re.compile(r"b'|b&#x27;|\b[A-Z]\w+\.[A-Z]{2}|IPv[46]\w+\(|&lt;")


def html(notebook: Path) -> dict[str, str | None]:
    """The table that each cell shows, or None, by the cell's id."""
    cells: list[dict[str, Any]] = json.loads(notebook.read_text())["cells"]
    shown = {cell["id"]: [out.get("data", {}) for out in cell.get("outputs", [])] for cell in cells}
    return {
        cell: "".join("".join(data.get("text/html", "")) for data in out) or None
        for cell, out in shown.items()
    }


def test_it_runs_and_every_object_is_a_table(tmp_path: Path) -> None:
    new = tmp_path / "tour.ipynb"
    new.write_text(KEPT.read_text())
    execute = Path(sys.executable).with_name("jupyter-execute")
    subprocess.run([execute, "--inplace", new], cwd=KEPT.parent, capture_output=True, check=True)
    kept, now = html(KEPT), html(new)
    tables = {cell for cell, shown in kept.items() if shown}
    assert len(tables) >= 15
    assert {cell for cell, shown in now.items() if shown} == tables
    for shown in (*kept.values(), *now.values()):
        assert not UGLY.search(shown or "")
