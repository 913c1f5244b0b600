# SPDX-License-Identifier: Apache-2.0
"""What ``import mizarnet`` takes beyond attrs and ipaddress: by itself, and with every public name.

``python tests/bench/import_time.py [ROUNDS]`` runs fresh interpreters in turn, all on one core, and prints the median
of each in milliseconds.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys

STATEMENTS = ("import mizarnet", "from mizarnet import EndpointSpec, MizarnetError", "from mizarnet import *")
CODE = """
import attrs, ipaddress, time
start = time.perf_counter()
{statement}
print((time.perf_counter() - start) * 1e3)
"""


def main(rounds: int) -> int:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    taken: dict[str, list[float]] = {statement: [] for statement in STATEMENTS}
    for _ in range(rounds):
        for statement, values in taken.items():
            code = CODE.format(statement=statement)
            done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True)
            values.append(float(done.stdout))
    for statement, values in taken.items():
        print(f"{statement:50} {statistics.median(values):7.1f} ms  (least {min(values):.1f})")
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 20))
