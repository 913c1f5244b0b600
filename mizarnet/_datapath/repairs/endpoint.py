# SPDX-License-Identifier: Apache-2.0
"""Mending endpoints: entries first, then the device, in place; a device that is gone is made again."""

from __future__ import annotations

from collections.abc import Iterable

from mizarnet._datapath.checks import endpoint_findings
from mizarnet._datapath.datapath import DataPath
from mizarnet._datapath.endpoints import LocalEndpoints, configuration, entries
from mizarnet._datapath.endpoints.making import make_device_again
from mizarnet._datapath.lock import endpoint_writer
from mizarnet._datapath.repairs.tally import Tally
from mizarnet._kernel.netlink import set_link, set_macvlan_mode
from mizarnet._model.codec import Record
from mizarnet._model.finding import Finding, FindingKind

_OF_DEVICE = {FindingKind.MODE_DIFFERS, FindingKind.MAC_DIFFERS}
_OF_NAMESPACE = {
    FindingKind.DEVICE_GONE,
    FindingKind.DEVICE_DOWN,
    FindingKind.MTU_DIFFERS,
    FindingKind.ADDRESS_LOST,
    FindingKind.ROUTE_LOST,
}


MENDED = {FindingKind.ENTRY_DIFFERS, *_OF_DEVICE, *_OF_NAMESPACE}
"""What is mended of an endpoint, in that order."""


def mend_endpoint(datapath: DataPath, findings: list[Finding], tally: Tally) -> None:
    """Mend findings about one endpoint that still hold; the lock of its name is held meanwhile."""
    name, asked = findings[0].object.name, {each.key for each in findings}
    with tally.trying(*findings):
        with datapath.writing(*endpoint_writer(name)) as maps:
            endpoints = LocalEndpoints(datapath, maps)
            record = endpoints.named(name)
            if record is None:
                return
            kinds = {each.kind for each in endpoint_findings(endpoints, record) if each.key in asked}
            if FindingKind.ENTRY_DIFFERS in kinds:
                record = endpoints.settle(record)
                entries.complete(maps, record)
            if FindingKind.DEVICE_GONE in kinds:
                record = make_device_again(datapath, maps, record)
            if kinds & _OF_DEVICE:
                _mend_device(endpoints, record, kinds)
        # Addresses and routes are up to the container: no lock that others wait for is held meanwhile.
        if kinds & _OF_NAMESPACE:
            LocalEndpoints.of(datapath).complete_device(record)


def _mend_device(endpoints: LocalEndpoints, record: Record, kinds: Iterable[FindingKind]) -> None:
    with configuration.inside(record, endpoints.host) as target:
        if FindingKind.MODE_DIFFERS in kinds:
            set_macvlan_mode(target, record.ifindex, kind=record.spec.kind.value, mode="private")
        if FindingKind.MAC_DIFFERS in kinds:
            set_link(target, record.ifindex, mac=str(record.mac))
