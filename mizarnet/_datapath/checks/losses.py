# SPDX-License-Identifier: Apache-2.0
"""What grows among the counters of losses: findings of their own, and evidence of others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import attrs

from mizarnet._datapath.tunnel_device import TunnelDevice
from mizarnet._model.finding import Finding, FindingKind
from mizarnet._model.stats import LOSSES

_EVIDENCE: Mapping[FindingKind, tuple[str, ...]] = {
    FindingKind.NO_ROUTE: ("tx_carrier_errors", "Ip.OutNoRoutes", "Ip6.OutNoRoutes"),
    FindingKind.NEIGHBOUR_FAILED: ("tx_carrier_errors", "tx_dropped"),
    FindingKind.NEIGHBOURS_FULL: ("tx_carrier_errors", "tx_dropped"),
    FindingKind.UNDERLAY_GONE: ("tx_carrier_errors", "Ip.OutNoRoutes", "Ip6.OutNoRoutes"),
    FindingKind.UNDERLAY_DOWN: ("tx_carrier_errors", "Ip.OutNoRoutes", "Ip6.OutNoRoutes"),
    FindingKind.UNDERLAY_MTU: ("Ip.FragFails", "Ip6.FragFails", "tx_errors", "rx_dropped"),
    FindingKind.UNDERLAY_ADDRESS: ("tx_carrier_errors", "Ip.InAddrErrors", "Ip6.InAddrErrors"),
    FindingKind.TUNNEL_DOWN: ("Udp.NoPorts", "Udp6.NoPorts"),
    FindingKind.LEADS_HERE: ("tx_errors", "collisions"),
    FindingKind.DEVICE_GONE: ("rx_otherhost_dropped",),
    FindingKind.DEVICE_DOWN: ("rx_otherhost_dropped",),
    FindingKind.MAC_DIFFERS: ("rx_otherhost_dropped",),
    FindingKind.NAMESPACE_GONE: ("rx_otherhost_dropped",),
}
"""Counters that say the same as a finding, of the namespace or, by their last part, of any device of ours."""


def loss_findings(devices: Iterable[TunnelDevice], rates: Mapping[str, float]) -> Iterator[Finding]:
    """A finding for each counter of a tunnel's device that grew.

    Counters of the namespace are none by themselves: whatever else the host does is counted there, too.
    """
    for device in devices:
        for name, meaning in LOSSES.items():
            rate = rates.get(f"{device.name}.{name}")
            if rate is not None:
                text = f"{rate:.3g} packets a second are lost after the verdict: {meaning} ({name})"
                remedy = (
                    "Host.check() names the cause, if it is to be seen from here, and is no VM that is off"
                )
                yield device.finding(FindingKind.LOSS, f"no {name}", rate, text, remedy)


def with_evidence(findings: Iterable[Finding], rates: Mapping[str, float]) -> list[Finding]:
    """Findings with the counters that say the same."""
    return [attrs.evolve(each, evidence=_evidence(each.kind, rates)) for each in findings]


def _evidence(kind: FindingKind, rates: Mapping[str, float]) -> dict[str, float]:
    wanted = _EVIDENCE.get(kind, ())
    return {name: rate for name, rate in rates.items() if name in wanted or name.rpartition(".")[2] in wanted}
