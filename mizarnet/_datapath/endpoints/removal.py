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

from mizarnet._datapath.endpoints import configuration, device, entries, items
from mizarnet._datapath.maps import Maps
from mizarnet._datapath.tunnel_hooks import TunnelHooks
from mizarnet._kernel.bpf import UpdateMode
from mizarnet._kernel.netlink import (
    SAME_NAMESPACE,
    Link,
    Session,
    delete_link,
    delete_links,
    delete_netns,
    get_link,
    read_links,
    side_by_side,
)
from mizarnet._model import codec
from mizarnet._model.codec import Record
from mizarnet._model.log import log
from mizarnet._model.specs import EndpointSpec
from mizarnet.errors import ExistsError, KernelError, MizarnetError, NetnsNotFoundError, PrivilegeError


@attrs.frozen
class _Device:
    """The device of an endpoint, in the endpoint's namespace."""

    record: Record
    ifindex: int

    def is_like(self, link: Link | None, tunnel_ifindex: int) -> bool:
        """Whether a device of that namespace is this one still; which namespace that is, is known."""
        wanted = (self.record.spec.kind.value, str(self.record.mac), tunnel_ifindex)
        return link is not None and (link.kind, link.mac, link.parent_ifindex) == wanted


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
        try:
            links = device.find_all(records, self.hooks, partial(entries.owner_of, self.maps))
            together: defaultdict[int, list[_Device]] = defaultdict(list)
            for record in records:
                if record.instance in links:
                    together[record.nsid].append(_Device(record, links[record.instance].ifindex))
            side_by_side(self.hooks.host, [partial(self._end_together, each) for each in together.values()])
        except MizarnetError as error:
            self.failed.update({record.spec.name: error for record in records})

    def _end_together(self, devices: list[_Device], session: Session) -> None:
        """End the devices of one namespace, from inside it where its name leads there.

        Since the look at them their namespace may have ended, and another have got its id, with devices of the same
        indexes. Whoever is inside keeps the namespace; from outside each device is looked at again right before.
        """
        first = devices[0].record
        try:
            if first.nsid == SAME_NAMESPACE:
                self._end_inside(devices, session)
                return
            target = _entered(first, session)
            if target is not None:
                with target:
                    self._end_inside(devices, target)
                return
            for each in devices:
                link = get_link(session, ifindex=each.ifindex, nsid=first.nsid)
                if link is not None and device.is_of(link, each.record, self.hooks):
                    delete_link(session, each.ifindex, nsid=first.nsid)
        except MizarnetError as error:
            self.failed.update({each.record.spec.name: error for each in devices})

    def _end_inside(self, devices: list[_Device], target: Session) -> None:
        links = read_links(target, [(SAME_NAMESPACE, each.ifindex) for each in devices])
        delete_links(
            target,
            [
                each.ifindex
                for each in devices
                if each.is_like(links.get((SAME_NAMESPACE, each.ifindex)), self.hooks.ifindex)
            ],
        )

    def _forget(self, record: Record) -> Record | None:
        """Remove what is left of an endpoint; its record if another process changed that meanwhile, else None."""
        if record.private:
            delete_netns(record.spec.netns or "")
        # A maker that does not see the lock may have written some of it again.
        entries.give_up_addresses(self.maps, record)
        entries.give_up_slot(self.maps, record)
        taken = entries.take_record(self.maps, record)
        if taken is not None:
            log.info("endpoint %r deleted: %s", record.spec.name, text_of(record.spec))
        again = None if taken is None else items.of(self.maps, taken)
        if taken is None or again is None or again.changed == record.changed:
            return None
        with suppress(ExistsError):
            self.maps.records.update(codec.record_key(record.spec.name), taken, mode=UpdateMode.NOEXIST)
        return again


def _entered(record: Record, host: Session) -> Session | None:
    """A session of an endpoint's namespace; None where no name leads there, or nothing is left to enter it with."""
    with suppress(NetnsNotFoundError, PrivilegeError, KernelError):
        return configuration.inside(record, host)
    return None


def text_of(spec: EndpointSpec) -> str:
    """Addresses and place of an endpoint, for the log."""
    addresses = ", ".join(map(str, spec.ip))
    return f"{addresses} of VNI {spec.vni} in {spec.netns or 'the namespace of the host'}"
