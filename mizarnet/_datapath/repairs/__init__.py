# SPDX-License-Identifier: Apache-2.0
"""Mending what a check found, and removing what has no owner; what cannot be mended is said, never wiped.

Each finding is looked at again under the lock that whoever changes the object holds: what another process mended
meanwhile, or made anew, is left alone. Guard and agent come first, then the tunnel, then entries and devices.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import attrs

from mizarnet._datapath.checks import found_datapath, look_at_host
from mizarnet._datapath.checks.confirm import confirmed
from mizarnet._datapath.datapath import DataPath
from mizarnet._datapath.host import Host
from mizarnet._datapath.repairs.agent import mend_agent
from mizarnet._datapath.repairs.collection import RANK, collect
from mizarnet._datapath.repairs.endpoint import mend_endpoint
from mizarnet._datapath.repairs.gateway import mend_gateway, mend_rules
from mizarnet._datapath.repairs.tally import Tally
from mizarnet._datapath.tunnel_device import TunnelDevice
from mizarnet._model.finding import Change, Finding, Report

_ROUNDS = 3


def repair(host: Host, findings: Iterable[Finding]) -> Report:
    """Mend findings, those that no repair can mend stay; which of them still hold is seen by another look."""
    given, tally = [*findings], Tally()
    together: defaultdict[str, list[Finding]] = defaultdict(list)
    for each in given:
        if each.repairable:
            together[each.tunnel].append(each)
    for tunnel, own in together.items():
        if tally.goes_on:
            with tally.trying(*own):
                _mend(host, tunnel, own, tally)
    return tally.report(given, confirmed(lambda: look_at_host(host)) if given else ())


def repair_all(host: Host) -> Report:
    """Mend all that checks find: of what one repair brings to light, such as the MTUs on a tunnel, too."""
    done: list[Finding | Change] = []
    report = Report()
    for _ in range(_ROUNDS):
        report = repair(host, confirmed(lambda: look_at_host(host)))
        done += report.done
        if not report.done:
            break
    return attrs.evolve(report, done=tuple(done))


def _mend(host: Host, tunnel: str, findings: list[Finding], tally: Tally) -> None:
    of_rules = [each for each in findings if each.object.kind == "rules"]
    if of_rules:
        mend_rules(host, of_rules, tally)
    of_agent = [each for each in findings if each.object.kind not in ("endpoint", "gateway", "rules")]
    if of_agent:
        mend_agent(host, tunnel, of_agent, tally)
    of_endpoints = _by_name(findings, "endpoint")
    if of_endpoints:
        with found_datapath(TunnelDevice.open(host, tunnel)) as found:
            if isinstance(found, DataPath):
                for own in of_endpoints.values():
                    if tally.goes_on:
                        mend_endpoint(found, own, tally)
    for own in _by_name(findings, "gateway").values():
        if tally.goes_on:
            mend_gateway(host, own, tally)


def _by_name(findings: Iterable[Finding], kind: str) -> dict[str, list[Finding]]:
    """The findings about objects of a kind, by the object's name."""
    found: defaultdict[str, list[Finding]] = defaultdict(list)
    for each in findings:
        if each.object.kind == kind:
            found[each.object.name].append(each)
    return found


def collect_all(host: Host, findings: Iterable[Finding]) -> Report:
    """Remove what findings are about, of those that say so; which of them still hold is seen by another look."""
    given, tally = [each for each in findings if each.collectable], Tally()
    for each in sorted(given, key=lambda each: RANK[each.object.kind]):
        if tally.goes_on:
            with tally.trying(each):
                collect(host, each)
    return tally.report(given, confirmed(lambda: look_at_host(host)) if given else ())
