# SPDX-License-Identifier: Apache-2.0
"""Compares the programs with the model on random cases: ``python -m tests.fuzz --cases 1000000 --seed 1``.

A case is its program, the seed and its index: ``--program agent --seed 1 --only 1234`` shows it again.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from tests.fuzz.cases import case_of
from tests.fuzz.findings import describe, keep_findings
from tests.fuzz.minimise import Minimiser
from tests.fuzz.report import Progress, errors, table
from tests.fuzz.workers import Plan, Twins, run
from tests.model.case import ProgramName
from tests.support.fixtures import FOUND

PROGRAMS: dict[str, tuple[ProgramName, ...]] = {
    "agent": ("agent",),
    "guard": ("guard",),
    "switch": ("switch",),
    "shortcut": ("shortcut",),
    "all": ("agent", "guard", "switch", "shortcut"),
}


def main() -> int:
    arguments = _arguments()
    plan = Plan(arguments.seed, PROGRAMS[arguments.program], arguments.cases, arguments.jobs)
    if arguments.only is not None:
        return _show(plan, arguments.only)
    progress = Progress(plan)
    result = run(plan, progress)
    print(*table(plan, result, progress.seconds), sep="\n", flush=True)
    for line in keep_findings(plan, result.disagreements, arguments.found):
        print(line)
    failures = errors(plan, result)
    print(*failures, sep="\n", end="\n" if failures else "")
    total = plan.cases * len(plan.programs)
    print(f"{total:,} cases, seed {plan.seed}: {len(result.disagreements)} disagreements")
    return 1 if failures else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=100_000, help="of each program (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="(default: %(default)s)")
    parser.add_argument("--program", choices=PROGRAMS, default="all", help="(default: %(default)s)")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: one per CPU)"
    )
    parser.add_argument(
        "--found", type=Path, default=FOUND, help="where disagreements are kept (default: %(default)s)"
    )
    parser.add_argument("--only", type=int, metavar="INDEX", help="show one case instead")
    return parser.parse_args()


def _show(plan: Plan, index: int) -> int:
    with Twins() as twins:
        agree = True
        for program in plan.programs:
            state, case = case_of(program, plan.seed, index)
            expected, seen = Minimiser(twins).both(state, case)
            agree = agree and expected == seen
            print(*describe(state, case, expected, seen), sep="\n")
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
