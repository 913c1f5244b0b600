# SPDX-License-Identifier: Apache-2.0
"""Whether a host works, at a cost that does not depend on what lives on it, but for counting the keys of its tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from mizarnet._datapath.checks import found_datapath, look_at_tunnel
from mizarnet._datapath.checks.agent import agent_findings, is_being_changed
from mizarnet._datapath.checks.confirm import confirmed
from mizarnet._datapath.checks.losses import loss_findings, with_evidence
from mizarnet._datapath.checks.underlay import NEARLY
from mizarnet._datapath.datapath import DataPath
from mizarnet._datapath.maps import Maps
from mizarnet._datapath.tunnel_device import TunnelDevice
from mizarnet._kernel.bpf import Map
from mizarnet._model.finding import Finding, FindingKind, Health, Subject, worst_first


def of(devices: Sequence[TunnelDevice], rates: Mapping[str, float]) -> Health:
    """Health of tunnels and their agents.

    Args:
        devices: The tunnels.
        rates: Counters that grew since the last look, as events per second.
    """
    filled: dict[str, float] = {}

    def look() -> list[Finding]:
        return [finding for device in devices for finding in _look(device, filled)]

    found = with_evidence(confirmed(look), rates)
    return Health(tuple(worst_first([*found, *loss_findings(devices, rates)])), dict(rates), filled)


def _look(device: TunnelDevice, filled: dict[str, float]) -> Iterator[Finding]:
    with found_datapath(device) as found:
        if isinstance(found, Finding):
            yield found
        elif found is None:
            yield from look_at_tunnel(device, None)
        elif not is_being_changed(found):
            yield from look_at_tunnel(device, found)
            yield from agent_findings(found)
            yield from _fill(found, filled)


def _fill(datapath: DataPath, filled: dict[str, float]) -> Iterator[Finding]:
    for table in _limited(datapath.maps):
        used = table.count()
        share = used / table.max_entries
        filled[f"{datapath.name}.{table.name}"] = share
        if share >= NEARLY:
            yield Finding(
                FindingKind.TABLE_NEARLY_FULL,
                Subject("table", f"{table.name} of {datapath.name}"),
                f"fewer than {table.max_entries}",
                used,
                f"{used} of {table.max_entries} entries are used",
                "remove what nobody needs, or attach the agent with more room",
                datapath.name,
                datapath.meta_id,
            )


def _limited(maps: Maps) -> Iterator[Map]:
    yield from (maps.endpoints, maps.records, maps.networks, maps.peers)
