# SPDX-License-Identifier: Apache-2.0
"""What the counters of every agent must add up to, whatever a test did.

The kernel counts how often each program ran, and each program counts its verdicts: one for each run. A frame that one
program hands to the other is counted by both.
"""

from __future__ import annotations

import ctypes
import math
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import attrs

from mizarnet import NetnsNotFoundError, NotFoundError, Stats, Verdict, bpf
from mizarnet.netlink import Session
from mizarnet.numbers import Program
from mizarnet.store import ROOT
from tests.support.calls import BPF_SYSCALL
from tests.support.wait import wait_until

ENABLE_STATS, RUN_TIME = 32, 0  # enum bpf_cmd, enum bpf_stats_type
REDIRECTED = (Verdict.DELIVERED_LOCALLY, Verdict.NEIGHBOUR_ANSWERED, Verdict.GATEWAY_ANSWERED)
"""What the agent hands to the tunnel's own ingress, under its mark: frames for neighbours, and its answers."""
_libc = ctypes.CDLL(None, use_errno=True)
_counting: list[int] = []


@contextmanager
def counting_runs() -> Iterator[None]:
    """Let the kernel count the runs of programs.

    It does so while anybody holds such a descriptor, or has written 1 to the sysctl: another run of the tests that
    ends takes away no more than its own, and the kernel takes this one back however the process ends.
    """
    attributes = struct.pack("=I", RUN_TIME)
    descriptor = _libc.syscall(BPF_SYSCALL[os.uname().machine], ENABLE_STATS, attributes, len(attributes))
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), "let the kernel count the runs of programs")
    _counting.append(descriptor)
    try:
        yield
    finally:
        os.close(_counting.pop())


@attrs.frozen
class Account:
    """What the kernel and the programs of one agent counted, at a moment between two frames.

    Without `counting_runs`, as in a benchmark, nothing is known of the runs.
    """

    pins: Path
    runs: Mapping[Program, int]
    stats: Stats

    def errors(self) -> Iterator[str]:
        """What does not add up."""
        for program, runs in self.runs.items():
            counted = sum(counter.packets for counter in getattr(self.stats, program.name.lower()).values())
            if counted != runs:
                yield f"the {program.name.lower()} ran {runs} times and counted {counted} verdicts"
        agent, guard = self.stats.agent, self.stats.guard
        redirected = sum(agent[verdict].packets for verdict in REDIRECTED)
        lost = redirected - guard[Verdict.ACCEPTED_LOCALLY].packets
        if lost and not 0 < lost <= dropped_by_tunnel(self.pins):
            yield f"of {redirected} frames that the agent redirected the guard accepted {redirected - lost}"
        # Nothing is lost here: the frame goes from the one program to the other within one call.
        bounced, admitted = guard[Verdict.BOUNCED].packets, agent[Verdict.BOUNCE_ADMITTED].packets
        if bounced != admitted:
            yield f"of {bounced} frames that the guard bounced the agent admitted {admitted}"


def agents() -> list[Path]:
    """Directories of the pins of every agent of this run."""
    return sorted(path.parent for path in ROOT.glob("*/*/verdicts"))


def account(pins: Path) -> Account | None:
    """The account of an agent; None if frames came meanwhile, or the agent went."""
    with ExitStack() as stack, suppress(NotFoundError):
        verdicts = stack.enter_context(bpf.Map.open_pinned(str(pins / "verdicts")))
        before = verdicts.sum_words()
        runs = {program: program_of.run_count for program, program_of in _programs(pins, stack)}
        if verdicts.sum_words() == before:
            return Account(pins, runs, Stats.from_words(before[1]))
    return None


def _programs(pins: Path, stack: ExitStack) -> Iterator[tuple[Program, bpf.Program]]:
    """Those that are pinned, a test may have taken some, and whose runs are counted."""
    for program in Program if _counting else ():
        with suppress(NotFoundError):
            pin = str(pins / f"transit_{program.name.lower()}")
            yield program, stack.enter_context(bpf.Program.open_pinned(pin))


def dropped_by_tunnel(pins: Path) -> float:
    """How many frames the kernel may have lost between redirect and guard.

    A redirect to ingress drops a frame when the device is down or the backlog of the CPU is full, and counts it in the
    device's ``rx_dropped``. Without the device that is not known: its backlog went with it.
    """
    for name in os.listdir("/run/netns"):
        with suppress(NetnsNotFoundError), Session.open(name) as host:
            if f"{host.cookie:x}" == pins.parent.name:
                lines = host.run(Path("/proc/thread-self/net/dev").read_text).splitlines()[2:]
                dropped = {
                    device.strip(): int(facts.split()[3])
                    for device, facts in (line.split(":") for line in lines)
                }
                return dropped.get(pins.name, math.inf)
    return math.inf


def assert_accounts_add_up() -> None:
    """Every agent's account must add up; while frames are under way it may take a moment."""
    errors: list[str] = []

    def add_up() -> bool:
        errors[:] = _errors()
        return not errors

    wait_until(add_up, lambda: "; ".join(errors))


def _errors() -> Iterator[str]:
    for pins in agents():
        found = account(pins)
        errors = ["frames kept coming"] if found is None else found.errors()
        yield from (f"{pins.name} of host {pins.parent.name}: {error}" for error in errors)
