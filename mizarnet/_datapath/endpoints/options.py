# SPDX-License-Identifier: Apache-2.0
"""What a live endpoint has besides addresses and routes, changed in place: MTU, name of the device, rights, labels.

The record is written first, and the entries and the device follow it: what is left of a change that was cut off, the
next look at the endpoint finds, and every ``create`` and ``update`` finishes.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Any

import attrs

from mizarnet._datapath.datapath import DataPath
from mizarnet._datapath.endpoints import configuration, device, entries
from mizarnet._datapath.endpoints.making import largest_mtu, refuse_unfit_mtu
from mizarnet._datapath.maps import Maps
from mizarnet._kernel.netlink import Link, get_link, set_link
from mizarnet._model.codec import Record
from mizarnet._model.log import log
from mizarnet.errors import ExistsError, NetlinkError, UnsupportedError

OPTIONS = ("mtu", "ifname", "forwarding", "trust_user_namespace", "labels")
"""Fields of a specification that are changed here."""


@attrs.frozen
class Options:
    """A change of one endpoint, whose name the caller holds the lock of.

    Attributes:
        datapath: Data path that the endpoint is on.
        maps: Maps of the data path.
        link: The endpoint's device.
    """

    datapath: DataPath
    maps: Maps
    link: Link

    def wanted(self, record: Record, given: Mapping[str, Any]) -> Record:
        """The record with new values; raises what forbids them, before anything is done."""
        values = {name: value for name, value in given.items() if name in OPTIONS}
        own_mtu = record.own_mtu
        if "mtu" in values:
            own_mtu = values["mtu"] is not None
            largest = largest_mtu(self.datapath, self.maps)
            values["mtu"] = largest if values["mtu"] is None else values["mtu"]
            refuse_unfit_mtu(attrs.evolve(record.spec, mtu=None), values["mtu"], largest)
        spec = attrs.evolve(record.spec, **values)
        if (
            values.get("trust_user_namespace") is False
            and record.spec.netns is not None
            and not record.private
        ):
            device.open_namespace(spec, self.datapath.host).close()
        if spec.ifname != self.link.name:
            self._refuse_taken(record, spec.ifname)
        return attrs.evolve(record, spec=spec, own_mtu=own_mtu)

    def _refuse_taken(self, record: Record, ifname: str) -> None:
        if get_link(self.datapath.host, ifname, nsid=record.nsid) is not None:
            raise ExistsError(
                f"the namespace of endpoint {record.spec.name!r} has a device {ifname}",
                holder=ifname,
                hint="give another ifname=",
            )

    def apply(self, record: Record, wanted: Record) -> Record:
        """Make the endpoint as ``wanted`` says; the record as it is now."""
        if wanted != record:
            entries.rewrite(self.maps, attrs.evolve(wanted, changed=0))
        entries.complete(self.maps, wanted)
        if self.link.name != wanted.spec.ifname:
            try:
                self._rename(wanted)
            except BaseException:
                entries.rewrite(self.maps, attrs.evolve(record, changed=0))
                entries.complete(self.maps, record)
                raise
        if wanted != record:
            log.info("endpoint %r changed", wanted.spec.name)
        return wanted

    def _rename(self, wanted: Record) -> None:
        try:
            with configuration.inside(wanted, self.datapath.host) as session:
                set_link(session, self.link.ifindex, name=wanted.spec.ifname)
        except NetlinkError as refused:
            if refused.errno == errno.EBUSY:
                raise UnsupportedError(
                    "this kernel renames no device that is up",
                    feature="renaming",
                    hint="set the endpoint's device down first, or delete and create the endpoint",
                ) from None
            raise
