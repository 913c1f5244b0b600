# SPDX-License-Identifier: Apache-2.0
"""Mending gateways: each is completed as a second ``create()`` would, and the host's rules are written anew."""

from __future__ import annotations

from mizarnet._datapath.checks import found_datapath
from mizarnet._datapath.checks.gateways import gateway_findings, rules_findings
from mizarnet._datapath.datapath import DataPath
from mizarnet._datapath.gateways import Gateways, clear_ownerless, rules
from mizarnet._datapath.host import Host
from mizarnet._datapath.repairs.tally import Tally
from mizarnet._datapath.tunnel_device import TunnelDevice
from mizarnet._model.finding import Finding, FindingKind

MENDED = {
    FindingKind.RULES_DIFFER,
    FindingKind.FORWARDING_OFF,
    FindingKind.DEVICE_DOWN,
    FindingKind.ADDRESS_LOST,
    FindingKind.ROUTE_LOST,
    FindingKind.ENTRY_DIFFERS,
}
"""What is mended of a gateway."""


def mend_gateway(host: Host, findings: list[Finding], tally: Tally) -> None:
    """Mend findings about one gateway that still hold; the host is held alone meanwhile."""
    asked = {each.key for each in findings}
    with (
        tally.trying(*findings),
        found_datapath(TunnelDevice.open(host, findings[0].tunnel)) as found,
    ):
        if not isinstance(found, DataPath):
            return
        with found.writing() as maps:
            gateways = Gateways(found, maps)
            noted = gateways.find(int(findings[0].object.name))
            if noted is not None and asked & {each.key for each in gateway_findings(gateways, noted)}:
                gateways.complete(noted)


def mend_rules(host: Host, findings: list[Finding], tally: Tally) -> None:
    """Write the host's rules for gateways anew, if they still differ."""
    asked = {each.key for each in findings}
    with tally.trying(*findings), host.locked():
        if asked & {each.key for each in rules_findings(host)}:
            rules.write_host(host)


def collect_gateway(host: Host, finding: Finding) -> None:
    """Remove a gateway that is begun, ending or left."""
    if not finding.tunnel:
        with host.locked():
            clear_ownerless(host)
        return
    with found_datapath(TunnelDevice.open(host, finding.tunnel)) as found:
        if not isinstance(found, DataPath):
            return
        with found.writing() as maps:
            gateways = Gateways(found, maps)
            vni = int(finding.object.name)
            noted = gateways.find(vni)
            if noted is None:
                gateways.remove_bereft(vni)
            elif finding.key in {each.key for each in gateway_findings(gateways, noted)}:
                gateways.remove(noted)
