# SPDX-License-Identifier: Apache-2.0
"""Whether the stack of a namespace takes a packet by the address that it comes from."""

from __future__ import annotations

import attrs

from mizarnet._datapath.walk.trail import Trail
from mizarnet._kernel.netlink import (
    Link,
    Session,
    Way,
    get_link,
    list_addresses,
    list_routes,
    look_up_ways,
    read_sysctl,
)
from mizarnet._model.arguments import IPAddress

_STRICT = 1
"""Value of ``rp_filter`` with which a packet must come in by the device that leads back to its source."""
_BROADCAST = b"\xff" * 4


@attrs.frozen
class Coming:
    """A packet that comes into a namespace.

    Attributes:
        source: Address that it comes from.
        destination: Address of the namespace that it goes to; None: it is sent on.
        link: Device that it comes in by.
        where: The namespace, in words.
        step: What its source is looked at as.
        is_sure: Whether it cannot come in by another device.
    """

    source: IPAddress
    destination: IPAddress | None
    link: Link
    where: str
    step: str
    is_sure: bool = True


def look_at(trail: Trail, session: Session, coming: Coming) -> None:
    """Whether the namespace takes a packet from its source; if not, its way ends."""
    source, where = coming.source, coming.where
    if _is_no_source(session, coming):
        text = f"no packet may come from {source}, and {where} drops it"
        trail.end(coming.step, text, remedy="send it from an address of its sender")
    if source.version == 6:  # of which the kernel validates no source by its routes
        return
    way = look_up_ways(session, [source], source=coming.destination, port=0)[source]
    # Of 127.0.0.0/8, all of which leads to lo, the kernel takes the addresses alone for its own.
    is_own = way is not None and way.local and (not source.is_loopback or _leading(session, source, way))
    if is_own and not _setting(session, coming, "accept_local"):
        text = f"{source}, which it comes from, is an address of {where} itself, which drops it"
        trail.end(coming.step, text, remedy=f"ip route get {source}, there; take the address away")
    _filter(trail, session, coming, way)


def _is_no_source(session: Session, coming: Coming) -> bool:
    """Whether the kernel drops what comes from an address, whoever has it."""
    source = coming.source
    if source.is_multicast:
        return True
    if source.version == 6:
        return source.is_loopback
    if source.is_loopback:
        return not _setting(session, coming, "route_localnet")
    return source.is_unspecified or source.packed == _BROADCAST


def _filter(trail: Trail, session: Session, coming: Coming, way: Way | None) -> None:
    """What ``rp_filter`` does with a packet, by the way back to its source."""
    level, link, source = _setting(session, coming, "rp_filter"), coming.link, coming.source
    if not level or link.ifindex in _leading(session, source, way):
        return
    addresses = list_addresses(session, ifindex=link.ifindex)
    # By a device without an address a packet comes in as if there was no way back.
    has_address = any(each.interface.version == source.version for each in addresses)
    if way is not None and has_address and level != _STRICT:
        return
    other = get_link(session, ifindex=way.ifindex) if way is not None else None
    back = f"goes by {other.name}, and not by {link.name}" if other is not None else "is not there"
    text = (
        f"the way back to {source} {back}, and rp_filter of {coming.where} is {level}, which drops the packet"
    )
    remedy = f"ip route get {source}, there; correct the route, or set rp_filter of all and {link.name} to 0"
    if coming.is_sure and not _may_go_back(session, coming):
        trail.end(coming.step, text, remedy=remedy)
    trail.unknown(coming.step, f"{text}, unless another device, route or mark is chosen", remedy=remedy)


def _leading(session: Session, source: IPAddress, way: Way | None) -> set[int]:
    """Indexes of the devices that lead back to a source."""
    if way is None:
        return set()
    if not way.local:
        return {way.ifindex}
    return {each.ifindex for each in list_addresses(session) if each.interface.ip == source}


def _may_go_back(session: Session, coming: Coming) -> bool:
    """Whether a way that was not looked up may lead back: by a mark of the packet, or one of several next hops."""
    if _setting(session, coming, "src_valid_mark"):
        return True
    routes = list_routes(session, ifindex=coming.link.ifindex)
    return any(len(each.through) > 1 and coming.source in each.destination for each in routes)


def _setting(session: Session, coming: Coming, name: str) -> int:
    """A setting of IPv4 as it is for a device: the highest value of what all devices and that one have."""
    keys = (f"ipv4/conf/{which}/{name}" for which in ("all", coming.link.name))
    return max(int(read_sysctl(session, key)) for key in keys)
