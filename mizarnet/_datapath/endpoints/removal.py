# SPDX-License-Identifier: Apache-2.0
"""Removing endpoints: many of them wait for the kernel's grace periods together.

An endpoint is made unreachable first, then unable to send; from then on its addresses are free for others. Its record
says from the beginning that its end has begun, and is removed last: if this process dies, whoever comes next finds by
it what is left.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import attrs

from mizarnet._datapath.endpoints import configuration, device, entries
from mizarnet._datapath.maps import Maps
from mizarnet._datapath.tunnel_hooks import TunnelHooks
from mizarnet._kernel.bpf import UpdateMode
from mizarnet._kernel.netlink import (
    SAME_NAMESPACE,
    Session,
    delete_link,
    delete_links,
    delete_netns,
    side_by_side,
)
from mizarnet._model import codec
from mizarnet._model.codec import Record
from mizarnet._model.log import log
from mizarnet._model.specs import EndpointSpec
from mizarnet.errors import ExistsError, MizarnetError, NetnsNotFoundError


@attrs.frozen
class Removal:
    """One removal of endpoints, whose names the caller holds the locks of.

    Attributes:
        hooks: Hooks of the tunnel that the endpoints are on.
        maps: Maps of the data path.
        failed: Errors of endpoints that could not be removed, by name; they keep their records.
    """

    hooks: TunnelHooks
    maps: Maps
    failed: dict[str, MizarnetError] = attrs.field(factory=dict[str, MizarnetError], init=False)

    def run(self, records: list[Record]) -> None:
        """Remove endpoints whose records were just read; parts that are gone already are no error.

        A maker that does not see the caller's lock also writes the record last: if it did so meanwhile, there is more
        to remove.
        """
        left = records
        while left:
            doomed = self._each(left, self._silence)
            self._end_devices(doomed)
            left = self._each([each for each in doomed if each.spec.name not in self.failed], self._forget)

    def _each(self, records: list[Record], step: Callable[[Record], Record | None]) -> list[Record]:
        """Take a step for each endpoint; the records of those that the step leaves something of."""
        left: list[Record] = []
        for record in records:
            try:
                again = step(record)
            except MizarnetError as error:
                self.failed[record.spec.name] = error
            else:
                left += [] if again is None else [again]
        return left

    def _silence(self, record: Record) -> Record:
        doomed = entries.begin_deletion(self.maps, record, self.hooks.host.lock_id)
        entries.give_up_addresses(self.maps, doomed)
        return doomed

    def _end_devices(self, records: list[Record]) -> None:
        """End the devices of endpoints, those of a namespace together and namespaces side by side.

        The end of a device takes the kernel a grace period. So it is waited for on other threads than the host's own.
        """
        links = device.find_all(records, self.hooks)
        together: defaultdict[int, list[Record]] = defaultdict(list)
        for record in records:
            if record.instance in links:
                together[record.nsid].append(record)
        works = [
            partial(self._end_together, each, [links[record.instance].ifindex for record in each])
            for each in together.values()
        ]
        side_by_side(self.hooks.host, works)

    def _end_together(self, records: list[Record], ifindexes: list[int], session: Session) -> None:
        """End the devices of one namespace: from inside it, where its name leads there, since a group takes that."""
        try:
            if records[0].nsid == SAME_NAMESPACE:
                delete_links(session, ifindexes)
                return
            if len(records) > 1:
                with suppress(NetnsNotFoundError), configuration.inside(records[0], session) as target:
                    delete_links(target, ifindexes)
                    return
            for ifindex in ifindexes:
                delete_link(session, ifindex, nsid=records[0].nsid)
        except MizarnetError as error:
            self.failed.update({record.spec.name: error for record in records})

    def _forget(self, record: Record) -> Record | None:
        """Remove what is left of an endpoint; its record if another process changed that meanwhile, else None."""
        if record.private:
            delete_netns(record.spec.netns or "")
        entries.give_up_addresses(
            self.maps, record
        )  # a maker that does not see the lock may have written them again
        entries.give_up_slot(self.maps, record)
        taken = entries.take_record(self.maps, record)
        if taken is not None:
            log.info("endpoint %r deleted: %s", record.spec.name, text_of(record.spec))
        if taken is None or Record.unpack(taken).changed == record.changed:
            return None
        with suppress(ExistsError):
            self.maps.records.update(codec.record_key(record.spec.name), taken, mode=UpdateMode.NOEXIST)
        return Record.unpack(taken)


def text_of(spec: EndpointSpec) -> str:
    """Addresses and place of an endpoint, for the log."""
    addresses = ", ".join(map(str, spec.ip))
    return f"{addresses} of VNI {spec.vni} in {spec.netns or 'the namespace of the host'}"
