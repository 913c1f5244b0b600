# SPDX-License-Identifier: Apache-2.0
"""Lets something happen at system calls of a gateway's verbs inside an emulated kernel, a part that the seed chooses.

``python tests/vm/crash.py --kernel 6.1`` runs ``python -m tests.crash`` there. What takes a compiler is made before, on
this machine. The output is kept in ``build/vm-crash-<kernel>.log``.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from pathlib import Path

from kernels import METAPACKAGES

ROOT = Path(__file__).resolve().parent.parent.parent
BUILD = ROOT / "build"
VERBS = ("Gateway.create", "Gateway.update", "Gateway.delete", "Gateway.follow")
SHARE = 30
SECONDS = 3600
_BUILD_TOOLS = (
    "import sys; from pathlib import Path; from tests.crash import tools; tools.build(Path(sys.argv[1]))"
)


def main() -> int:
    """Run them; zero if nothing was violated."""
    parser = argparse.ArgumentParser(description="Run crash trials of gateways inside an emulated kernel.")
    parser.add_argument("--kernel", choices=METAPACKAGES, required=True)
    parser.add_argument("--share", type=int, default=SHARE, metavar="N", help="one trial of N")
    parser.add_argument("--seed", type=int, default=int(time.time()) // 86400, help="(default: the day's)")
    parser.add_argument("--mode", action="append", default=[], help="only this one (may be given again)")
    parser.add_argument("--verb", action="append", choices=VERBS, help="only this one (may be given again)")
    options = parser.parse_args()
    tools = BUILD / "crash-tools"
    shutil.rmtree(tools, ignore_errors=True)
    tools.mkdir(parents=True)
    subprocess.run([sys.executable, "-c", _BUILD_TOOLS, str(tools)], cwd=ROOT, check=True)
    trials = [
        "--tools",
        str(tools),
        "--share",
        str(options.share),
        "--seed",
        str(options.seed),
        "--jobs",
        "1",
    ]
    trials += [word for each in options.verb or VERBS for word in ("--verb", each)]
    trials += [word for each in options.mode for word in ("--mode", each)]
    return _run(options.kernel, [sys.executable, "-m", "tests.crash", *trials])


def _run(series: str, command: list[str]) -> int:
    machine = [
        *(sys.executable, "tests/vm/run.py", "--kernel", series, "--cpus", "1", "--memory", "2G"),
        *("--timeout", str(SECONDS), "--log", str(BUILD / f"vm-crash-{series}-kernel.log")),
    ]
    log = BUILD / f"vm-crash-{series}.log"
    with log.open("wb") as output:
        done = subprocess.run([*machine, "--", *command], cwd=ROOT, stdout=output, stderr=output, check=False)
    print(log.read_text(errors="replace"), end="")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
