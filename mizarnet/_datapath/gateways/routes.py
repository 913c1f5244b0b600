# SPDX-License-Identifier: Apache-2.0
"""The routes to a VNI's prefixes: in the gateway's namespace and, where addresses are not translated, on the host.

Networks may be added and deleted while there is a gateway, so what routes there should be is asked each time.
"""

from __future__ import annotations

from collections.abc import Sequence

from mizarnet._datapath.gateway_notes import Note
from mizarnet._datapath.gateways.ruleset import INSIDE
from mizarnet._kernel.netlink import Session, add_route, delete_route, get_link, list_routes
from mizarnet._model.arguments import IPAddress, IPNetwork


def lacking_inside(inside: Session, prefixes: Sequence[IPNetwork]) -> list[IPNetwork]:
    """Prefixes that a gateway's namespace has no route to; none while the device is gone or down, as others tell."""
    link = get_link(inside, INSIDE)
    if link is None or not link.up:
        return []
    there = {route.destination for route in list_routes(inside, ifindex=link.ifindex)}
    return [each for each in prefixes if each not in there]


def complete_inside(inside: Session, prefixes: Sequence[IPNetwork]) -> None:
    """Add what a gateway's namespace lacks."""
    for each in lacking_inside(inside, prefixes):
        link = get_link(inside, INSIDE)
        if link is not None:
            add_route(inside, each, None, ifindex=link.ifindex, replace=True)


def lacking_outside(
    host: Session, note: Note, ifindex: int, prefixes: Sequence[IPNetwork]
) -> dict[IPNetwork, IPNetwork | None]:
    """Prefixes that a host does not reach by a gateway, with the route of the host that is in the way of one.

    Args:
        host: Session of the host.
        note: Note of the gateway.
        ifindex: Index of the device that leads to it.
        prefixes: The prefixes that it shall reach so.
    """
    own, found = _own(host, note, ifindex), list_routes(host)
    others = [each.destination for each in found if each.prefix_length and each.through != (ifindex,)]
    return {
        prefix: next((each for each in others if _overlap(each, prefix)), None)
        for prefix in prefixes
        if prefix not in own
    }


def follow_outside(host: Session, note: Note, ifindex: int, prefixes: Sequence[IPNetwork]) -> None:
    """Make a host reach by a gateway just these prefixes, but for those that the host's own routes lead to.

    Arguments as for :func:`lacking_outside`.
    """
    for each, gateway in _own(host, note, ifindex).items():
        if each not in prefixes:
            delete_route(host, each, gateway, ifindex=ifindex)
    for each, other in lacking_outside(host, note, ifindex, prefixes).items():
        if other is None:
            add_route(host, each, note.address(each.version, inside=True).ip, ifindex=ifindex)


def _own(host: Session, note: Note, ifindex: int) -> dict[IPNetwork, IPAddress | None]:
    gateways = {note.address(version, inside=True).ip for version in (4, 6)}
    found = list_routes(host, ifindex=ifindex)
    return {each.destination: each.gateway for each in found if each.gateway in gateways}


def _overlap(one: IPNetwork, other: IPNetwork) -> bool:
    return one.version == other.version and one.overlaps(other)
