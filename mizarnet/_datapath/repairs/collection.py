# SPDX-License-Identifier: Apache-2.0
"""Removing what is ours and has no owner: each thing is looked at again under the lock that its makers hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mizarnet._datapath import install, private_netns, readers, shortcuts, switches
from mizarnet._datapath.checks import found_datapath
from mizarnet._datapath.checks.agent import agent_findings
from mizarnet._datapath.checks.endpoints import devices_above, endpoint_findings, identity_of, strangers
from mizarnet._datapath.checks.leftovers import left_tunnels
from mizarnet._datapath.datapath import DataPath
from mizarnet._datapath.endpoints import LocalEndpoints, entries
from mizarnet._datapath.host import Host
from mizarnet._datapath.lock import endpoint_writer
from mizarnet._datapath.repairs.gateway import collect_gateway
from mizarnet._datapath.tunnel_device import TunnelDevice
from mizarnet._kernel.netlink import delete_link, delete_netns, get_link
from mizarnet._model.finding import Finding, FindingKind
from mizarnet._model.log import log


def collect(host: Host, finding: Finding) -> None:
    """Remove what a finding is about, if it still holds."""
    _COLLECTORS[finding.object.kind](host, finding)


def _endpoint(host: Host, finding: Finding) -> None:
    device = TunnelDevice.open(host, finding.tunnel)
    with found_datapath(device) as found:
        if not isinstance(found, DataPath):
            return
        with found.writing(*endpoint_writer(finding.object.name)) as maps:
            endpoints = LocalEndpoints(found, maps)
            record = endpoints.named(finding.object.name)
            if record is not None and finding.key in {
                each.key for each in endpoint_findings(endpoints, record)
            }:
                endpoints.refuse_other_hands(record)
                endpoints.remove([record])


def _agent(host: Host, finding: Finding) -> None:
    """Finish the end of an agent, or undo one whose maker died, which has no endpoints: those of any other stay."""
    with host.locked():
        device = TunnelDevice.open(host, finding.tunnel)
        with found_datapath(device) as found:
            if isinstance(found, DataPath) and _holds(found, finding):
                install.remove(device, found, force=finding.kind is FindingKind.ENDING)


def _switch(host: Host, finding: Finding) -> None:
    with host.locked():
        for each in switches.find(host):
            if each.link.name == finding.object.name and not each.has_owner():
                each.remove()
        if finding.kind is FindingKind.UNFINISHED:
            with found_datapath(TunnelDevice.open(host, finding.tunnel)) as found:
                if isinstance(found, DataPath) and _holds(found, finding):
                    switches.clear(found)


def _shortcut(host: Host, finding: Finding) -> None:
    with host.locked():
        for each in shortcuts.find(host):
            if each.link.name == finding.object.name and not each.has_owner():
                each.remove()


def _holds(datapath: DataPath, finding: Finding) -> bool:
    return finding.key in {each.key for each in agent_findings(datapath)}


def _device(host: Host, finding: Finding) -> None:
    if finding.tunnel:
        _device_above(host, finding)
        return
    with host.locked():  # whoever makes a tunnel holds the lock
        if finding.key in {each.key for each in left_tunnels(host)}:
            delete_link(host, int(finding.found))
            log.info("%s removed: its maker died", finding.object.name)


def _device_above(host: Host, finding: Finding) -> None:
    with host.locked():
        tunnel = TunnelDevice.open(host, finding.tunnel)
        with found_datapath(tunnel) as found:
            if not isinstance(found, DataPath):
                return
            endpoints = LocalEndpoints.of(found)
            for each in strangers(endpoints, endpoints.recorded(), devices_above(endpoints)):
                if each.key == finding.key and each.found == finding.found:
                    _delete_stranger(host, each)


def _delete_stranger(host: Host, finding: Finding) -> None:
    """Delete a device, looked at right before: its namespace may end, and another may get its id."""
    nsid, ifindex, *_ = finding.found
    link = get_link(host, ifindex=ifindex, nsid=nsid)
    if (
        link is not None
        and identity_of(nsid, link) == finding.found
        and delete_link(host, ifindex, nsid=nsid)
    ):
        log.info("%s removed: a device of %s that is no endpoint's", finding.object.name, finding.tunnel)


def _namespace(host: Host, finding: Finding) -> None:
    with host.locked():
        left = private_netns.describe(finding.object.name)
        if left is not None and left.instance == finding.instance:
            delete_netns(finding.object.name)
            log.info("namespace %s removed: its endpoint is gone", finding.object.name)


def _table(host: Host, finding: Finding) -> None:
    with host.locked():
        device = TunnelDevice.open(host, finding.tunnel)
        with found_datapath(device) as found:
            if isinstance(found, DataPath):
                table, _, _ = finding.object.name.partition(" ")
                entries.drop_left(found.maps, table, bytes.fromhex(str(finding.found)))


def _reader(host: Host, finding: Finding) -> None:
    with found_datapath(TunnelDevice.open(host, finding.tunnel)) as found:
        if isinstance(found, DataPath):
            readers.collect(found, finding.instance)


_COLLECTORS: Mapping[str, Callable[[Host, Finding], None]] = {
    "gateway": collect_gateway,
    "endpoint": _endpoint,
    "table": _table,
    "device": _device,
    "namespace": _namespace,
    "agent": _agent,
    "switch": _switch,
    "shortcut": _shortcut,
    "reader": _reader,
}
"""How each kind of object is removed, in the order in which that is done."""
RANK = {kind: rank for rank, kind in enumerate(_COLLECTORS)}
