# SPDX-License-Identifier: Apache-2.0
"""Changing the addresses, gateways and routes of a live endpoint, while it is in use.

What comes is made first, then the record is written, which is the moment at which the change holds, and then what left
is removed. Items tell what that is, whoever does it: this call, also after an error, or the next one after a death.
docs/design.md has the whole order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import attrs

from mizarnet._datapath.endpoints import company, configuration, device, entries, items
from mizarnet._datapath.maps import Maps, take_own
from mizarnet._datapath.tunnel_hooks import TunnelHooks
from mizarnet._kernel.netlink import DEFAULTS, SAME_NAMESPACE, Link, Session
from mizarnet._model import codec
from mizarnet._model.arguments import IPInterface
from mizarnet._model.codec import Item, Record
from mizarnet._model.log import log
from mizarnet._model.specs import DefaultRoute, EndpointSpec, Kind, Route
from mizarnet.errors import MizarnetError


@attrs.frozen
class Updating:
    """A change of one endpoint, whose name the caller holds the lock of.

    Attributes:
        hooks: Hooks of the tunnel that the endpoint is on.
        maps: Maps of the data path.
        link: The endpoint's device.
    """

    hooks: TunnelHooks
    maps: Maps
    link: Link

    def run(self, record: Record, wanted: EndpointSpec, *, gateways_given: bool) -> Record:
        """Change an endpoint that is settled; on an error it is as it was, or the same call finishes it.

        Args:
            record: Record of the endpoint, which was just read.
            wanted: Specification that it shall have, with the same name, MAC, MTU and place.
            gateways_given: Whether the caller named the gateways; else they are the networks'.

        Returns:
            The record as it is now.
        """
        coming = [address for address in wanted.ip if address not in record.spec.ip]
        if wanted.kind is Kind.MACVLAN:
            with configuration.inside(record, self.hooks.host) as session:
                company.refuse_same_subnet(self.maps, session, record, coming)
        changed = _changed(record, wanted)
        keys = [key for key in changed.pack_addresses() if key not in record.pack_addresses()]
        numbers = [at for at, item in changed.items.items() if record.items.get(at) != item]
        entries.refuse_unfit(self.maps, record, keys, [at for at in numbers if at not in record.items])
        begun = attrs.evolve(record, items=changed.items, changed=0)
        try:
            entries.rewrite(self.maps, begun)
            items.write(self.maps, changed, numbers)
            self._make_entries(record, changed)
            added = self._make_in_namespace(record, wanted, gateways_given=gateways_given)
            changed = attrs.evolve(changed, routed=_routed(record, wanted) | added)
            entries.rewrite(self.maps, changed)
        except BaseException as error:
            self._undo(begun, error)
            raise
        log.info("endpoint %r changed: %s", wanted.name, ", ".join(map(str, wanted.ip)))
        return self.settle(changed)

    def _undo(self, begun: Record, error: BaseException) -> None:
        """Take away what was made, as the next call would if this process died; the first error is the one to raise."""
        try:
            self.settle(items.read(self.maps, codec.record_key(begun.spec.name)) or begun)
        except MizarnetError as left:
            error.add_note(
                f"Some of what was added to endpoint {begun.spec.name!r} is still there, until the next call of "
                f"update(), create() or delete(): {left}"
            )

    # -- what comes

    def _make_entries(self, record: Record, changed: Record) -> None:
        """Claim new addresses, let others reach them, and let the endpoint speak from all that come or stay."""
        there = record.pack_addresses()
        for key, claim in changed.pack_addresses().items():
            if key not in there:
                entries.claim_address(self.maps, key, claim)
            elif claim != there[key]:  # with another prefix
                self.maps.addresses.update(key, claim)
        entries.write_endpoints(self.maps, changed)
        entries.write_sender(self.maps, record, record.pack_sender_until(changed))

    def _make_in_namespace(
        self, record: Record, wanted: EndpointSpec, *, gateways_given: bool
    ) -> frozenset[int]:
        """Give the device what comes; IP versions whose default route was added."""
        if wanted.kind is Kind.MACVTAP:
            return frozenset()
        with configuration.inside(record, self.hooks.host) as session:
            coming = [address for address in wanted.ip if address not in record.spec.ip]
            configuration.give_new_addresses(session, self.link, coming)
            company.refuse_same_subnet(self.maps, session, record, coming)
            old = {route.prefix for route in record.spec.routes}
            for route in configuration.in_order_of_making(wanted.routes):
                if route not in record.spec.routes:
                    with device.explained_route(session, route.prefix, route.gateway):
                        configuration.give_route(
                            session, self.link, wanted, route, replace=route.prefix in old
                        )
            return frozenset(self._give_default_routes(session, record, wanted, gateways_given))

    def _give_default_routes(
        self, session: Session, record: Record, wanted: EndpointSpec, gateways_given: bool
    ) -> Iterator[int]:
        if wanted.default_route is DefaultRoute.NEVER:
            return
        on_host = record.nsid == SAME_NAMESPACE
        optional = wanted.default_route is DefaultRoute.IF_NONE or not gateways_given
        for gateway in wanted.gateway or ():
            if gateway in (record.spec.gateway or ()):
                continue
            if gateway.version in _routed(record, wanted):
                route = Route(DEFAULTS[gateway.version], gateway)
                with device.explained_route(session, route.prefix, gateway):
                    configuration.give_route(session, self.link, wanted, route, replace=True)
                continue
            wanting = gateways_given or not on_host
            if wanting and device.add_default_route(session, self.link, wanted, gateway, optional=optional):
                yield gateway.version

    # -- what left

    def settle(self, record: Record) -> Record:
        """Finish or take back what a change left unfinished; the record as it is now.

        Raises:
            NetnsNotFoundError: Something is to be taken from the device, and no name that is known leads to it.
        """
        unsettled = record.unsettled
        if not unsettled and record.items_below <= record.first_free_number:
            return record
        entries.complete(self.maps, record)
        counting = {at: item for at, item in unsettled.items() if item.counts_in(record.generation)}
        kept = {at: attrs.evolve(item, until=0) for at, item in counting.items()}
        items.write(self.maps, attrs.evolve(record, items={**record.items, **kept}), kept)
        gone = {at: item.content for at, item in unsettled.items() if at not in kept}
        self._take_away(record, gone)
        items.remove(self.maps, record, gone)
        rest = {at: item for at, item in {**record.items, **kept}.items() if at not in gone}
        settled = attrs.evolve(record, items=rest, items_below=0, changed=0)
        entries.rewrite(self.maps, settled)
        return settled

    def _take_away(self, record: Record, gone: Mapping[int, IPInterface | Route]) -> None:
        """Remove addresses and routes that the endpoint has not, or no more."""
        spec = record.spec
        routes = [each for each in gone.values() if isinstance(each, Route) and each not in _all_routes(spec)]
        left = [each for each in gone.values() if not isinstance(each, Route) and each not in spec.ip]
        own = record.pack_addresses()
        keys = [key for key in map(record.address_key, left) if key not in own]
        for key in keys:
            take_own(self.maps.endpoints, key, record.is_endpoint)
        if (routes or left) and spec.kind is Kind.MACVLAN:
            with configuration.inside(record, self.hooks.host) as session:
                configuration.take_routes(session, self.link, record, routes)
                configuration.take_addresses(session, self.link, record, left)
        for key in keys:
            take_own(self.maps.addresses, key, record.is_claim)


def _default_routes(spec: EndpointSpec) -> list[Route]:
    return [Route(DEFAULTS[gateway.version], gateway) for gateway in spec.gateway or ()]


def _all_routes(spec: EndpointSpec) -> list[Route]:
    return [*spec.routes, *_default_routes(spec)]


def _routed(record: Record, wanted: EndpointSpec) -> frozenset[int]:
    """IP versions whose default route is the endpoint's, and stays so."""
    return record.routed & {gateway.version for gateway in wanted.gateway or ()}


def _changed(record: Record, wanted: EndpointSpec) -> Record:
    """The record of the next generation, with items for all that comes and all that leaves.

    What stands in the record and not among the items is found by an item, too, which counts in no generation.
    """
    following = record.generation + 1
    listed = {*wanted.further, *wanted.routes}
    held = {
        at: item if item.content in listed else attrs.evolve(item, until=following)
        for at, item in record.items.items()
    }
    there = {item.content for item in record.items.values()}
    new = [Item(content, following) for content in (*wanted.further, *wanted.routes) if content not in there]
    before, after = _default_routes(record.spec), _default_routes(wanted)
    traced = [
        *(each for each in record.spec.first if each not in wanted.ip),
        *(each for each in wanted.first if each not in record.spec.ip),
        *(each for each in before if each not in after and each.prefix.version in record.routed),
        *(each for each in after if each not in before),
    ]
    new += [Item(content, following, following) for content in traced]
    free = _free_numbers(held)
    return attrs.evolve(
        record,
        spec=wanted,
        generation=following,
        items={**held, **{next(free): item for item in new}},
        changed=0,
    )


def _free_numbers(taken: Iterable[int]) -> Iterator[int]:
    used = set(taken)
    number = 0
    while True:
        if number not in used:
            yield number
        number += 1
