# SPDX-License-Identifier: Apache-2.0
"""Seeds one bug at a time into the programs and sees whether the tests notice: ``python -m tests.mutants``."""

from __future__ import annotations

import argparse
import random
import sys
import time

from tests.mutants.catalogue import Bug, bugs
from tests.mutants.hunt import Trace, hunt
from tests.support.fixtures import load_all


def main() -> int:
    arguments = _arguments()
    chosen = _share(bugs(), arguments.share, arguments.seed)
    print(f"{len(chosen)} seeded bugs, seed {arguments.seed}: fixtures that notice, and the first fuzz case")
    fixtures = load_all()
    traces: list[Trace] = []
    for bug in chosen:
        traces.append(hunt(bug, fixtures, arguments.seed))
        print(_line(traces[-1]), flush=True)
    missed = [trace.bug.name for trace in traces if not trace.caught]
    print(f"{len(traces) - len(missed)} of {len(traces)} noticed")
    if missed:
        again = f"python -m tests.mutants --share {arguments.share} --seed {arguments.seed}"
        print(*(f"NOT NOTICED: {name}" for name in missed), f"Again: {again}", sep="\n")
    return 1 if missed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument(
        "--share", type=int, default=1, metavar="N", help="every Nth only, chosen by the seed"
    )
    today = int(time.time()) // 86400
    parser.add_argument("--seed", type=int, default=today, help="(default: the day's, %(default)s)")
    return parser.parse_args()


def _share(all_of_them: list[Bug], share: int, seed: int) -> list[Bug]:
    chosen = random.Random(seed).sample(all_of_them, -(-len(all_of_them) // share))
    return [bug for bug in all_of_them if bug in chosen]


def _line(trace: Trace) -> str:
    fuzz = f"none of {trace.tried}" if trace.cases is None else f"{trace.cases}"
    return f"  {trace.bug.rule:4} {trace.bug.name:55} {len(trace.fixtures):4} {fuzz:>14}"


if __name__ == "__main__":
    sys.exit(main())
