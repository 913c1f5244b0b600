# SPDX-License-Identifier: Apache-2.0
"""Checks the types of the Python code in the pages, as a reader's own type checkers would, each block by itself."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "build/snippets"
PAGES = (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")))


def main() -> int:
    """Write the blocks to files and check them; zero if there is nothing to say of any."""
    TARGET.mkdir(parents=True, exist_ok=True)
    for old in TARGET.glob("*.py"):
        old.unlink()
    for page in PAGES:
        blocks: list[str] = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
        for number, block in enumerate(blocks, 1):
            (TARGET / f"{page.stem.lower()}_{number}.py").write_text(f"# pyright: strict\n{block}")
    files = sorted(map(str, TARGET.glob("*.py")))
    checks = ([sys.executable, "-m", "mypy", "--strict"], [str(Path(sys.executable).with_name("pyright"))])
    return int(any(subprocess.run([*check, *files], cwd=ROOT, check=False).returncode for check in checks))


if __name__ == "__main__":
    sys.exit(main())
