# SPDX-License-Identifier: Apache-2.0
"""What takes no clock: system calls of each verb, and calls of helpers in each program, beside what they were.

``python -m tests.bench.counts`` prints both, as root; ``--write`` writes ``counts.json`` anew.
``tests/netns/test_counts.py`` fails where a verb or a program takes more than that file says. What the verifier makes
of the programs is in ``docs/verifier.md``.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from mizarnet._kernel.bpf import Program
from mizarnet._kernel.netlink import LOOPBACK_IFINDEX, Session, set_link
from mizarnet.agent import datapath_of
from tests.crash.attempt import Attempt
from tests.crash.ground import Ground
from tests.crash.verbs import VERBS
from tests.support.calls import helper_calls
from tests.support.injector import Calls, Fault, Injector
from tests.support.isolation import isolate

BASELINE = Path(__file__).with_suffix(".json")
COUNTED = (
    "Tunnel.create",
    "TransitAgent.attach",
    "TransitSwitch.attach",
    "Endpoint.create MACVLAN",
    "Endpoint.create again",
    "Endpoint.update",
    "Endpoint.delete MACVLAN",
    "endpoints.update",
    "networks.update",
    "peers.update",
)
"""Verbs of ``tests/crash/verbs.py``: one of each kind."""
Counts = Mapping[str, int]


def counted(injector: Injector) -> dict[str, Counts]:
    """Counts of verbs and programs, by their names, on a host that is made for it."""
    with Ground(injector, Path("none")) as ground:
        return {**dict(_of_verbs(ground)), **dict(_of_programs(ground))}


def _of_verbs(ground: Ground) -> Iterator[tuple[str, Counts]]:
    for name in COUNTED:
        verb = VERBS[name]
        listed: list[str] = []
        for _ in range(2):  # the first call imports, and notes what is noted once for ever
            verb.before(ground)
            with Attempt(ground, verb, Fault(0, Calls.CHANGING | Calls.ASKING)) as attempt:
                found = attempt.outcome()
                assert found is not None, f"{name} died"
                assert found.error is None, f"{name}: {found.text}"
                listed = attempt.told()
            verb.undo(ground)
        yield name, _by_kind(listed)


def _by_kind(listed: list[str]) -> Counts:
    """All calls but those that only wait, and those of them that are of one kind."""
    return {
        "system calls": len(listed),
        "bpf": sum(each.startswith("bpf ") for each in listed),
        "netlink datagrams": sum(each.startswith("netlink ") for each in listed),
    }


def _of_programs(ground: Ground) -> Iterator[tuple[str, Counts]]:
    """Calls of helpers that stand in each program, as the kernel runs it."""
    for place, standing in datapath_of(ground.agent).survey().standing.items():
        program = Program.open_id(standing.program_id)
        assert program is not None
        with program:
            yield place.program, {"helper calls": len(helper_calls(program))}


def more(found: Mapping[str, Counts], known: Mapping[str, Counts]) -> list[str]:
    """What takes more than it did, in words. A call that meets another one may take a few more."""
    return [
        f"{name}: {count} {what}, not {known[name][what]}"
        for name, counts in found.items()
        for what, count in counts.items()
        if count > known[name][what] + max(3, known[name][what] // 20)
    ]


def committed() -> dict[str, Counts] | None:
    """The counts that are kept; None: they are of another kernel."""
    kept = json.loads(BASELINE.read_text())
    counts: dict[str, Counts] = kept["counts"]
    return counts if kept["kernel"] == _kernel() else None


def _kernel() -> str:
    return ".".join(os.uname().release.split(".")[:2])


def main() -> int:
    """Print, compare, and write if asked to."""
    isolate()
    with Session.open() as session:
        set_link(session, LOOPBACK_IFINDEX, up=True)
    with tempfile.TemporaryDirectory() as directory:
        found = counted(Injector.build(Path(directory)))
    known = committed() or {}
    for name, counts in found.items():
        before = known.get(name, {})
        print(
            f"{name:26}", *(f"{what} {count} ({before.get(what, '-')})  " for what, count in counts.items())
        )
    if "--write" in sys.argv:
        BASELINE.write_text(json.dumps({"kernel": _kernel(), "counts": found}, indent=1) + "\n")
        return 0
    return 1 if known and more(found, known) else 0


if __name__ == "__main__":
    sys.exit(main())
