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
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import attrs

from mizarnet import EndpointStats, LayoutError, NetnsNotFoundError, Stats, TransitAgent, Verdict
from mizarnet._datapath.endpoints import counters
from mizarnet._datapath.maps import Maps
from mizarnet._datapath.survey import Standing
from mizarnet._kernel import bpf
from mizarnet._kernel.netlink import Session, get_link
from mizarnet._model.codec import Head
from mizarnet._model.enumerations import Program
from mizarnet._model.stats import unpack_stats
from tests.support.calls import BPF_SYSCALL
from tests.support.standing import data_paths
from tests.support.wait import wait_until

ENABLE_STATS, RUN_TIME = 32, 0  # enum bpf_cmd, enum bpf_stats_type
REDIRECTED = (
    Verdict.DELIVERED_LOCALLY,
    Verdict.NEIGHBOUR_ANSWERED,
    Verdict.GATEWAY_ANSWERED,
    Verdict.OVERSIZED_ANSWERED,
)
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

    Without `counting_runs`, as in a benchmark, nothing is known of the runs; nor of those of programs that others
    were there before.
    """

    head: Head
    runs: Mapping[Program, int]
    stats: Stats
    endpoints: Mapping[str, EndpointStats]

    def errors(self) -> Iterator[str]:
        """What does not add up."""
        for program, runs in self.runs.items():
            counted = sum(counter.packets for counter in getattr(self.stats, program.name.lower()).values())
            # Whenever it is switched on again, another program begins to count its runs.
            if counted < runs or (counted > runs and program is not Program.SHORTCUT):
                yield f"the {program.name.lower()} ran {runs} times and counted {counted} verdicts"
        agent, guard = self.stats.agent, self.stats.guard
        redirected = sum(agent[verdict].packets for verdict in REDIRECTED)
        redirected += self.stats.shortcut[Verdict.ACCEPTED].packets
        lost = redirected - guard[Verdict.ACCEPTED_LOCALLY].packets
        if lost and not 0 < lost <= dropped_by_tunnel(self.head):
            yield f"of {redirected} frames that agent and shortcut redirected the guard accepted {redirected - lost}"
        yield from self._reasons()
        # Nothing is lost here: the frame goes from the one program to the other within one call.
        bounced, admitted = guard[Verdict.BOUNCED].packets, agent[Verdict.BOUNCE_ADMITTED].packets
        if bounced != admitted:
            yield f"of {bounced} frames that the guard bounced the agent admitted {admitted}"

    def _reasons(self) -> Iterator[str]:
        """What was dropped of an endpoint has its reasons, and the programs counted at least as much of each."""
        together: Counter[Verdict] = Counter()
        for name, each in self.endpoints.items():
            together.update({reason: counter.packets for reason, counter in each.reasons.items()})
            refused = each.dropped.packets + each.undelivered.packets
            explained = sum(counter.packets for counter in each.reasons.values())
            if explained != refused:
                yield f"of {refused} frames of {name} that were refused {explained} have a reason"
        for reason, packets in together.items():
            if packets > self.stats.verdicts[reason].packets:
                yield f"endpoints have {packets} drops for {reason.name}, the programs fewer"


def accounts() -> Iterator[tuple[Head, Account | None]]:
    """The accounts of all agents of this machine; None where frames came meanwhile, or the agent went."""
    for programs in data_paths().values():
        yield next(iter(programs.values())).head, account(programs)


def account(programs: Mapping[int, Standing]) -> Account | None:
    """The account of the agent that these programs, by id, are of; None if it cannot be had, as of another build's."""
    with ExitStack() as stack, suppress(LayoutError):
        maps = Maps.open(next(iter(programs.values())).map_ids)
        if maps is None:
            return None
        stack.callback(maps.close)
        before = maps.verdicts.sum_words()
        replaced = maps.read_meta().generation
        runs = {} if replaced or not _counting else dict(_runs(programs, stack))
        if Program.SWITCH in runs and maps.read_switching().generation > 1:
            del runs[Program.SWITCH]
        endpoints = {each.name: stats for each, stats in counters.read_all(maps)}
        if maps.verdicts.sum_words() == before:
            head = next(iter(programs.values())).head
            return Account(head, runs, unpack_stats(before[1]), endpoints)
    return None


def account_of(agent: TransitAgent) -> Account | None:
    """The account of one agent."""
    return account(data_paths()[agent._datapath.meta_id])


def _runs(programs: Mapping[int, Standing], stack: ExitStack) -> Iterator[tuple[Program, int]]:
    for number in programs:
        program = bpf.Program.open_id(number)
        if program is not None:
            stack.callback(program.close)
            yield Program[program.name.removeprefix("mzn_").upper()], program.run_count


def host_of(head: Head) -> str | None:
    """Name of the namespace that an agent is the agent of, among those of this run."""
    for name in os.listdir("/run/netns"):
        with suppress(NetnsNotFoundError), Session.open(name) as host:
            if host.cookie == head.netns_cookie:
                return name
    return None


def dropped_by_tunnel(head: Head) -> float:
    """How many frames the kernel may have lost between redirect and guard.

    A redirect to ingress drops a frame when the device is down or the backlog of the CPU is full, and counts it in the
    device's ``rx_dropped``. Without the device that is not known: its backlog went with it.
    """
    name = host_of(head)
    if name is None:
        return math.inf
    with suppress(NetnsNotFoundError), Session.open(name) as host:
        link = get_link(host, ifindex=head.ifindex)
        lines = host.run(Path("/proc/thread-self/net/dev").read_text).splitlines()[2:]
        dropped = {
            device.strip(): int(facts.split()[3]) for device, facts in (line.split(":") for line in lines)
        }
        return math.inf if link is None else dropped.get(link.name, math.inf)
    return math.inf


def assert_accounts_add_up() -> None:
    """Every agent's account must add up; while frames are under way it may take a moment."""
    errors: list[str] = []

    def add_up() -> bool:
        errors[:] = _errors()
        return not errors

    wait_until(add_up, lambda: "; ".join(errors))


def _errors() -> Iterator[str]:
    for head, found in accounts():
        errors = ["frames kept coming"] if found is None else list(found.errors())
        # Other runs of the tests have agents, too, and theirs are none of this one's business.
        host = host_of(head) if errors else None
        yield from (f"interface {head.ifindex} of host {host}: {error}" for error in errors if host)
