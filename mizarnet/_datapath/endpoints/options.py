# SPDX-License-Identifier: Apache-2.0
"""What a live endpoint has besides addresses and routes, changed in place: MTU, name of the device, rights, labels.

The record is written first, and the entries and the device follow it: what is left of a change that was cut off, the
next look at the endpoint finds, and every ``create`` and ``update`` finishes. A device's name, which a container may
have changed as well, is given by the same ``update`` only.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import attrs

from mizarnet._datapath.datapath import DataPath
from mizarnet._datapath.endpoints import company, configuration, device, entries
from mizarnet._datapath.endpoints.making import largest_mtu, refuse_unfit_mtu
from mizarnet._datapath.maps import Maps
from mizarnet._kernel.netlink import Link, Session, get_link, set_link
from mizarnet._model.codec import Record
from mizarnet._model.log import log
from mizarnet.errors import ExistsError, NetlinkError, NetnsNotFoundError, UnsupportedError

OPTIONS = ("mtu", "ifname", "forwarding", "trust_user_namespace", "labels")
"""Fields of a specification that are changed here."""


@attrs.frozen
class Options:
    """A change of one endpoint, whose name the caller holds the lock of.

    Attributes:
        datapath: Data path that the endpoint is on.
        maps: Maps of the data path.
        link: The endpoint's device.
        given: New values, by the names in ``OPTIONS``; what is left out stays.
    """

    datapath: DataPath
    maps: Maps
    link: Link
    given: Mapping[str, Any]

    def refuse_unfit(self, record: Record, ways: Mapping[str, Any]) -> None:
        """Raises what forbids the endpoint as it shall be in the end, before anything is done.

        Args:
            record: Record of the endpoint.
            ways: New addresses, gateways and routes, which others change.
        """
        spec = attrs.evolve(record.spec, **ways, **{**self.given, "mtu": None})
        if "mtu" in self.given:
            refuse_unfit_mtu(spec, self.mtu(record), largest_mtu(self.datapath, self.maps))
        attrs.evolve(spec, mtu=self.mtu(record))  # whether all of it fits together
        if (
            self.given.get("trust_user_namespace") is False
            and record.spec.netns is not None
            and not record.private
        ):
            device.open_namespace(spec, self.datapath.host).close()
        if self._is_renamed(spec.ifname):
            self._refuse_taken(record, spec.ifname)
        if record.spec.forwarding and not spec.forwarding:
            with suppress(NetnsNotFoundError), configuration.inside(record, self.datapath.host) as session:
                company.refuse_same_subnet(self.maps, session, attrs.evolve(record, spec=spec), spec.ip)

    def mtu(self, record: Record) -> int:
        """MTU that the endpoint shall have, in bytes."""
        mtu: int | None = self.given.get("mtu", record.mtu)
        return largest_mtu(self.datapath, self.maps) if mtu is None else mtu

    def _is_renamed(self, ifname: str) -> bool:
        """Whether the device gets another name: one that the container gave it stays unless a name is given."""
        return "ifname" in self.given and ifname != self.link.name

    def _refuse_taken(self, record: Record, ifname: str) -> None:
        if get_link(self.datapath.host, ifname, nsid=record.nsid) is not None:
            raise ExistsError(
                f"the namespace of endpoint {record.spec.name!r} has a device {ifname}",
                holder=ifname,
                hint="give another ifname=",
            )

    def apply(self, record: Record) -> Record:
        """Give the endpoint the new values; its record as it is now."""
        spec = attrs.evolve(record.spec, **{**self.given, "mtu": self.mtu(record)})
        own_mtu = self.given["mtu"] is not None if "mtu" in self.given else record.own_mtu
        wanted = attrs.evolve(record, spec=spec, own_mtu=own_mtu)
        if wanted != record:
            entries.rewrite(self.maps, attrs.evolve(wanted, changed=0))
        entries.complete(self.maps, wanted)
        try:
            self._change_device(wanted)
        except BaseException:
            entries.rewrite(self.maps, attrs.evolve(record, changed=0))
            entries.complete(self.maps, record)
            raise
        if wanted != record:
            log.info("endpoint %r changed", wanted.spec.name)
        return wanted

    def take_back(self, record: Record, before: Record) -> None:
        """Give the endpoint back the MTU that it and its device had ``before``, and leave what else it has."""
        spec = attrs.evolve(record.spec, mtu=before.mtu)
        entries.rewrite(self.maps, attrs.evolve(record, spec=spec, own_mtu=before.own_mtu, changed=0))
        with configuration.inside(record, self.datapath.host) as session:
            set_link(session, self.link.ifindex, mtu=self.link.mtu)

    def _change_device(self, wanted: Record) -> None:
        """Rename the device and give it another MTU: both, or neither."""
        renamed = self._is_renamed(wanted.spec.ifname)
        resized = "mtu" in self.given and wanted.mtu != self.link.mtu
        if not renamed and not resized:
            return
        with configuration.inside(wanted, self.datapath.host) as session:
            if renamed:
                self._rename(session, wanted.spec.ifname)
            if resized:
                try:
                    set_link(session, self.link.ifindex, mtu=wanted.mtu)
                except BaseException:
                    if renamed:
                        self._rename(session, self.link.name)
                    raise

    def _rename(self, session: Session, ifname: str) -> None:
        try:
            set_link(session, self.link.ifindex, name=ifname)
        except NetlinkError as refused:
            if refused.errno == errno.EBUSY:
                raise UnsupportedError(
                    "this kernel renames no device that is up",
                    feature="renaming",
                    hint="set the endpoint's device down first, or delete and create the endpoint",
                ) from None
            raise
