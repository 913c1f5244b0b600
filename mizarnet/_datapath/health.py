# SPDX-License-Identifier: Apache-2.0
"""Whether a host works, at a cost that does not depend on what lives on it, but for counting the keys of its tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import attrs

from mizarnet._datapath.checks import agent_gone, found_datapath, look_at_tunnel, unless_it_went
from mizarnet._datapath.checks.agent import agent_findings, is_being_changed
from mizarnet._datapath.checks.confirm import confirmed
from mizarnet._datapath.checks.gateways import gateways_findings, left_gateways, rules_findings
from mizarnet._datapath.checks.losses import loss_findings, with_evidence
from mizarnet._datapath.checks.underlay import NEARLY
from mizarnet._datapath.datapath import DataPath
from mizarnet._datapath.gateways import Gateways
from mizarnet._datapath.host import Host
from mizarnet._datapath.tunnel_device import TunnelDevice
from mizarnet._kernel.bpf import Map
from mizarnet._model.finding import Finding, FindingKind, Health, Subject, worst_first
from mizarnet.errors import AgentNotFoundError, StaleHandleError


def of_host(host: Host, rates: Mapping[str, float]) -> Health:
    """Health of all tunnels of a host and their agents.

    Args:
        host: The host.
        rates: Counters that grew since the last look, as events per second.
    """
    fill = _Fill()

    def look() -> Iterator[Finding]:
        fill.clear()
        for device in TunnelDevice.all(host):
            with found_datapath(device) as found, unless_it_went(device):
                if isinstance(found, Finding):
                    yield found
                elif found is None:
                    yield from look_at_tunnel(device, None)
                elif not is_being_changed(found):
                    yield from _look(device, found, fill)
        yield from left_gateways(host)

    found = confirmed(lambda: [*look()])
    return _health(found, TunnelDevice.all(host), rates, fill)


def of_agent(device: TunnelDevice, datapath: DataPath, rates: Mapping[str, float]) -> Health:
    """Health of one agent and its tunnel, which may be gone."""
    fill = _Fill()

    def look() -> Iterator[Finding]:
        fill.clear()
        try:
            yield from _look(device, datapath, fill)
        except (StaleHandleError, AgentNotFoundError) as gone:
            yield agent_gone(datapath, gone)

    return _health(confirmed(lambda: [*look()]), [device], rates, fill)


def _health(
    found: Iterable[Finding],
    devices: Sequence[TunnelDevice],
    rates: Mapping[str, float],
    fill: _Fill,
) -> Health:
    told = [*with_evidence(found, rates), *loss_findings(devices, rates), *fill.findings]
    return Health(tuple(worst_first(told)), dict(rates), fill.shares)


def _look(device: TunnelDevice, datapath: DataPath, fill: _Fill) -> Iterator[Finding]:
    yield from look_at_tunnel(device, datapath)
    yield from agent_findings(datapath, near=True)
    yield from gateways_findings(Gateways.of(datapath))
    yield from rules_findings(datapath.host)
    fill.measure(datapath)


@attrs.frozen
class _Fill:
    """How full tables are. What is nearly full is no passing moment: it needs no second look.

    Attributes:
        shares: Used share of each table, 0 to 1.
        findings: Findings for tables that are nearly full.
    """

    shares: dict[str, float] = attrs.field(factory=dict[str, float])
    findings: list[Finding] = attrs.field(factory=list[Finding])

    def clear(self) -> None:
        """Begin anew."""
        self.shares.clear()
        self.findings.clear()

    def measure(self, datapath: DataPath) -> None:
        """Count the entries of a data path's tables."""
        maps = datapath.maps
        for table in (maps.endpoints, maps.records, maps.networks, maps.peers):
            used = table.count()
            share = self.shares[f"{datapath.name}.{table.name}"] = used / table.max_entries
            if share >= NEARLY:
                self.findings.append(_nearly_full(datapath, table, used))


def _nearly_full(datapath: DataPath, table: Map, used: int) -> Finding:
    return Finding(
        FindingKind.TABLE_NEARLY_FULL,
        Subject("table", f"{table.name} of {datapath.name}"),
        f"fewer than {table.max_entries}",
        used,
        f"{used} of {table.max_entries} entries are used",
        "remove what nobody needs, or attach the agent with more room",
        datapath.name,
        datapath.meta_id,
    )
