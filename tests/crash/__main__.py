# SPDX-License-Identifier: Apache-2.0
"""Lets something happen at every system call of every public verb: ``python -m tests.crash``.

``--share 10`` takes a tenth, which the seed chooses. ``--verb NAME --mode MODE --point N`` repeats one trial.
"""

from __future__ import annotations

import argparse
import errno
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mizarnet as mz
from mizarnet._kernel.netlink import LOOPBACK_IFINDEX, Session, set_link
from tests.crash import tools
from tests.crash.ground import Ground
from tests.crash.judge import Judge
from tests.crash.plan import MODES, SPARSE, Trial, chosen
from tests.crash.report import Tally
from tests.crash.verbs import VERBS, Verb
from tests.support.injector import Injector
from tests.support.isolation import isolate

JOBS = 2 * (os.cpu_count() or 1)  # many trials wait


def main() -> int:
    arguments = _arguments()
    if arguments.tools is None:
        with tempfile.TemporaryDirectory() as directory:
            arguments.tools = tools.build(Path(directory))
            return _run(arguments)
    return _run(arguments)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument(
        "--share", type=int, default=1, metavar="N", help="one trial of N, chosen by the seed"
    )
    today = int(time.time()) // 86400
    parser.add_argument("--seed", type=int, default=today, help="(default: the day's, %(default)s)")
    parser.add_argument("--verb", choices=VERBS, action="append", help="only this one (may be given again)")
    parser.add_argument("--mode", choices=MODES, action="append", help="only this one (may be given again)")
    parser.add_argument("--every", action="store_true", help="leave out no trial of any mode")
    parser.add_argument("--point", type=int, help="only at this call")
    parser.add_argument("--errno", help="only with this error, such as ENOMEM")
    parser.add_argument("--way", help="only this way on")
    parser.add_argument("--jobs", type=int, default=JOBS, help="verbs at once (default: %(default)s)")
    parser.add_argument("--tools", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _run(arguments: argparse.Namespace) -> int:
    names = arguments.verb or [*VERBS]
    if len(names) == 1:
        return _one(arguments, VERBS[names[0]])
    with ThreadPoolExecutor(arguments.jobs) as pool:
        statuses = [*pool.map(lambda name: _apart(arguments, name), names)]
    wrong = [name for name, status in zip(names, statuses, strict=True) if status]
    print(f"{len(names)} verbs, seed {arguments.seed}: {len(wrong)} with violations")
    return 1 if wrong else 0


def _apart(arguments: argparse.Namespace, verb: str) -> int:
    """A verb in a process of its own, with file systems of its own."""
    command = [sys.executable, "-m", "tests.crash", "--verb", verb, "--tools", str(arguments.tools)]
    command += ["--share", str(arguments.share), "--seed", str(arguments.seed)]
    command += ["--every"] if arguments.every else []
    for mode in arguments.mode or ():
        command += ["--mode", mode]
    command += ["--way", arguments.way] if arguments.way else []
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    print(done.stdout, end="", flush=True)
    return done.returncode


def _one(arguments: argparse.Namespace, verb: Verb) -> int:
    warnings.simplefilter("ignore", mz.OutdatedWarning)  # an upgrade begins with one
    isolate()
    with Session.open() as session:
        set_link(session, LOOPBACK_IFINDEX, up=True)
    tally = Tally(verb.name, arguments.seed)
    tools = arguments.tools
    judge = Judge(
        lambda: Ground(
            Injector(tools / "injector"), tools / "second.bpf.o", rules=verb.name.startswith("Gateway.")
        ),
        verb,
        tally,
        str(arguments.seed),
    )
    try:
        judge.try_all([*_trials(arguments, verb, judge)])
    finally:
        judge.close()
    print(*tally.lines(), sep="\n", flush=True)
    return 1 if tally.violations else 0


def _trials(arguments: argparse.Namespace, verb: Verb, judge: Judge) -> Iterator[Trial]:
    for mode in arguments.mode or MODES:
        made = [*MODES[mode](judge.reference.listed, [*verb.again])]
        wanted = [each for each in made if _is_wanted(each, arguments)]
        if wanted:
            sparse = 1 if arguments.every else SPARSE.get(mode, 1) * verb.sparse
            yield from chosen(wanted, arguments.share * sparse, f"{arguments.seed} {verb.name} {mode}")


def _is_wanted(trial: Trial, arguments: argparse.Namespace) -> bool:
    number = errno.errorcode[trial.fault.errno] if trial.fault and trial.fault.errno else None
    return (
        arguments.point in (None, trial.point)
        and arguments.errno in (None, number)
        and arguments.way in (None, trial.way)
    )


if __name__ == "__main__":
    sys.exit(main())
