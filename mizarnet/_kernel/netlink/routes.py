# SPDX-License-Identifier: Apache-2.0
"""Routes of a network namespace."""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

import attrs

from mizarnet._kernel.netlink.addresses import FAMILIES
from mizarnet._kernel.netlink.session import Session
from mizarnet._kernel.rtnetlink import HEADER_BYTES, Flag, Rtm, attribute, attributes, number
from mizarnet._model.arguments import IPAddress, IPNetwork
from mizarnet._model.layout import read_number

_RT_TABLE_MAIN = 254
_RT_SCOPE_LINK = 253
_RTN_UNICAST = 1
_DECIDING = {_RTN_UNICAST, 6, 7, 8}  # RTN_BLACKHOLE, RTN_UNREACHABLE, RTN_PROHIBIT
_RTPROT_STATIC = 4
_RTNH_F_ONLINK = 4
_RTMSG = struct.Struct("=BBBBBBBBI")
"""``struct rtmsg``: family, bits of destination and source, TOS, table, protocol, scope, type and flags."""
_RTNEXTHOP = struct.Struct("=HBBi")
_RTA_DST, _RTA_SRC, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY = 1, 2, 4, 5, 6
_RTA_METRICS, _RTA_MULTIPATH = 8, 9
_RTA_VIA, _RTA_ENCAP, _RTA_IP_PROTO, _RTA_DPORT = 18, 22, 27, 29
_RTAX_MTU = 2
_RTN_LOCAL, _RTN_BROADCAST = 2, 3
_ROUTERS = {_RTA_GATEWAY, _RTA_VIA, _RTA_ENCAP}
_WANTED = {_RTA_DST, _RTA_OIF, _RTA_MULTIPATH, *_ROUTERS}
_NOWHERE = {int(socket.AF_INET): bytes(4), int(socket.AF_INET6): bytes(16)}
_NETWORKS: Mapping[int, Callable[[tuple[bytes, int]], IPNetwork]] = {
    4: ipaddress.IPv4Network,
    16: ipaddress.IPv6Network,
}
_ADDRESSES: Mapping[int, Callable[[bytes], IPAddress]] = {4: ipaddress.IPv4Address, 16: ipaddress.IPv6Address}


class Hop(NamedTuple):
    """A next hop of a route.

    Attributes:
        ifindex: Index of the link that it is on.
        gateway: Its address, of any IP version; None: the destination is on the link.
    """

    ifindex: int
    gateway: IPAddress | None


class Route(NamedTuple):
    """A unicast route of the main table.

    Attributes:
        packed: Address of the prefix that it leads to, in network byte order.
        prefix_length: Length of that prefix, in bits.
        hops: Next hops: none when a route names them by their ids alone.
        on_link: Whether all hosts of the prefix are neighbours: no next hop is a router, of any family, and nothing is
            put around the packets. False when a route names its next hops by their ids alone.
    """

    packed: bytes
    prefix_length: int
    hops: tuple[Hop, ...]
    on_link: bool

    @property
    def gateway(self) -> IPAddress | None:
        """Address of the next hop; None when the destination is on the link, or there are several."""
        return self.hops[0].gateway if len(self.hops) == 1 else None

    @property
    def through(self) -> tuple[int, ...]:
        """Indexes of the links that it leaves through: one for each next hop."""
        return tuple(hop.ifindex for hop in self.hops)

    @property
    def destination(self) -> IPNetwork:
        """Prefix that it leads to: made when asked for, since that takes longer than all the rest."""
        return _NETWORKS[len(self.packed)]((self.packed, self.prefix_length))


DEFAULTS: Mapping[int, IPNetwork] = {4: ipaddress.IPv4Network("0.0.0.0/0"), 6: ipaddress.IPv6Network("::/0")}
"""The prefix of the default route, by IP version."""


def add_route(
    session: Session,
    prefix: IPNetwork,
    gateway: IPAddress | None,
    *,
    ifindex: int,
    onlink: bool = False,
    metric: int | None = None,
    replace: bool = False,
) -> None:
    """Add a unicast route to the main table.

    Args:
        session: Session of the namespace.
        prefix: Prefix that the route leads to.
        gateway: Next hop; None: the hosts of the prefix are neighbours.
        ifindex: Index of the link to leave through, which must be up.
        onlink: Take the gateway for a neighbour although no address of the link covers it.
        metric: Rank among routes to that prefix, the lowest first; None: the kernel's.
        replace: Whether to take the place of a route to that prefix of the same rank, in one step.

    Raises:
        NetlinkError: The kernel refused (EEXIST: there is one; ENETUNREACH: the gateway is not on the link).
    """
    flags = Flag.CREATE | Flag.REPLACE if replace else Flag.NEW
    _change(session, Rtm.NEWROUTE, prefix, gateway, ifindex, onlink=onlink, metric=metric, flags=flags)


def delete_route(
    session: Session,
    prefix: IPNetwork,
    gateway: IPAddress | None,
    *,
    ifindex: int,
    metric: int | None = None,
) -> None:
    """Delete a unicast route from the main table; arguments as for :func:`add_route`.

    Raises:
        NetlinkError: The kernel refused (ESRCH: there is none).
    """
    _change(session, Rtm.DELROUTE, prefix, gateway, ifindex, onlink=False, metric=metric, flags=Flag.NONE)


def _change(
    session: Session,
    kind: Rtm,
    prefix: IPNetwork,
    gateway: IPAddress | None,
    ifindex: int,
    *,
    onlink: bool,
    metric: int | None,
    flags: Flag,
) -> None:
    body = _RTMSG.pack(
        FAMILIES[prefix.version],
        prefix.prefixlen,
        0,
        0,
        _RT_TABLE_MAIN,
        _RTPROT_STATIC if kind is Rtm.NEWROUTE else 0,
        _RT_SCOPE_LINK if gateway is None else 0,
        _RTN_UNICAST,
        _RTNH_F_ONLINK if onlink else 0,
    )
    body += number(_RTA_OIF, ifindex)
    if prefix.prefixlen:
        body += attribute(_RTA_DST, prefix.network_address.packed)
    if gateway is not None:
        body += attribute(_RTA_GATEWAY, gateway.packed)
    if metric is not None:
        body += number(_RTA_PRIORITY, metric)
    verb = "add" if kind is Rtm.NEWROUTE else "delete"
    text = f"{verb} the route to {prefix}" + (f" via {gateway}" if gateway else "")
    session.request(text, kind, body, flags)


def list_routes(session: Session, *, ifindex: int | None = None) -> list[Route]:
    """The main table's unicast routes through one link (filtered by the kernel) or all, of both IP versions.

    Args:
        session: Session of the namespace.
        ifindex: Index of the link; None: all links.

    Raises:
        NetlinkError: The kernel refused (ENODEV: no such link).
    """
    return session.run(_list_routes, session, ifindex)


def _list_routes(session: Session, ifindex: int | None) -> list[Route]:
    routes: list[Route] = []
    through = b"" if ifindex is None else number(_RTA_OIF, ifindex)
    for version, family in FAMILIES.items():
        # The kernel leaves out the other types: there are more of them than of these.
        body = _RTMSG.pack(family, 0, 0, 0, 0, 0, 0, _RTN_UNICAST, 0) + through
        replies = session.request_all(f"list IPv{version} routes", Rtm.GETROUTE, body)
        routes += map(decode_route, filter(_is_main_unicast, replies))
    return routes


@attrs.frozen
class Way:
    """How the kernel would send a packet to one destination.

    Attributes:
        ifindex: Index of the link that it would leave through.
        gateway: Next hop; None when the destination itself is.
        mtu: MTU of the route in bytes, as an administrator or path MTU discovery set it; None: that of the link.
        local: Whether the destination is an address of the namespace itself.
    """

    ifindex: int
    gateway: IPAddress | None
    mtu: int | None
    local: bool


def look_up_ways(
    session: Session,
    destinations: Sequence[IPAddress],
    *,
    source: IPAddress | None,
    port: int,
    protocol: int = socket.IPPROTO_UDP,
) -> dict[IPAddress, Way | None]:
    """How the kernel would send a packet to each of many destinations; None: it has no route there.

    One request each, many to a datagram.

    Args:
        session: Session of the namespace.
        destinations: Addresses, all of one IP version.
        source: Source address of the packets, one of the namespace; None: the kernel's choice.
        port: Port that they go to: rules of the namespace may look at it; 0: none.
        protocol: Number of their protocol: UDP, TCP or ICMP.

    Raises:
        NetlinkError: The socket failed.
    """
    answers = session.request_each(
        "look up routes",
        Rtm.GETROUTE,
        [_way_question(each, source, protocol, port) for each in destinations],
        reads=True,
    )
    return {
        destination: decode_way(answer) if isinstance(answer, bytes) else None
        for destination, answer in zip(destinations, answers, strict=True)
    }


def _way_question(destination: IPAddress, source: IPAddress | None, protocol: int, port: int) -> bytes:
    length = destination.max_prefixlen
    body = _RTMSG.pack(FAMILIES[destination.version], length, length if source else 0, 0, 0, 0, 0, 0, 0)
    body += attribute(_RTA_DST, destination.packed)
    body += attribute(_RTA_IP_PROTO, bytes([protocol]))
    if port:
        body += attribute(_RTA_DPORT, port.to_bytes(2, "big"))
    return body + (attribute(_RTA_SRC, source.packed) if source else b"")


def is_broadcast(session: Session, ip: IPAddress, ifindex: int) -> bool:
    """Whether an address is a broadcast address of a link, by the routes that the kernel has for that.

    Raises:
        NetlinkError: The socket failed.
    """
    question = _way_question(ip, None, socket.IPPROTO_UDP, 0)
    (answer,) = session.request_each("look up a route", Rtm.GETROUTE, [question], reads=True)
    if not isinstance(answer, bytes):
        return False
    *_, kind, _ = _RTMSG.unpack_from(answer, HEADER_BYTES)
    link = attributes(answer, at=HEADER_BYTES + _RTMSG.size).get(_RTA_OIF, b"")
    return kind == _RTN_BROADCAST and read_number(link) == ifindex


def decode_way(message: bytes) -> Way | None:
    """The way that the answer to one look-up, its header included, describes; None: an unreachable one."""
    *_, kind, _ = _RTMSG.unpack_from(message, HEADER_BYTES)
    found = attributes(message, at=HEADER_BYTES + _RTMSG.size)
    if kind not in (_RTN_UNICAST, _RTN_LOCAL) or _RTA_OIF not in found:
        return None
    mtu = attributes(found.get(_RTA_METRICS, b"")).get(_RTAX_MTU)
    return Way(
        ifindex=read_number(found[_RTA_OIF]),
        gateway=_gateway(found),
        mtu=None if mtu is None else read_number(mtu),
        local=kind == _RTN_LOCAL,
    )


def routed_prefixes(session: Session, prefixes: Collection[IPNetwork]) -> frozenset[IPNetwork]:
    """Those of some prefixes that the main table has a route to, of any metric and type: unreachable ones, too.

    Only the fixed headers of most are read: a namespace may have a hundred thousand routes.
    """
    wanted = {(each.version, each.prefixlen, each.network_address.packed): each for each in prefixes}
    found: set[IPNetwork | None] = set()
    for version in {each.version for each in prefixes}:
        body = _RTMSG.pack(FAMILIES[version], 0, 0, 0, 0, 0, 0, 0, 0)
        lengths = {length for other, length, _ in wanted if other == version}
        for message in session.request_all(f"list IPv{version} routes", Rtm.GETROUTE, body):
            family, length, _, _, table, _, _, kind = message[HEADER_BYTES : HEADER_BYTES + 8]
            if length in lengths and table == _RT_TABLE_MAIN and kind in _DECIDING:
                leads = attributes(message, {_RTA_DST}, at=HEADER_BYTES + _RTMSG.size)
                found.add(wanted.get((version, length, leads.get(_RTA_DST) or _NOWHERE[family])))
    return frozenset(each for each in found if each is not None)


def on_link_prefixes(session: Session, ifindex: int) -> list[IPNetwork]:
    """The prefixes whose hosts are neighbours on a link; link-local ones and ``/0`` are left out."""
    routes = list_routes(session, ifindex=ifindex)
    on_link = [route.destination for route in routes if route.on_link]
    return [prefix for prefix in on_link if prefix.prefixlen and not prefix.is_link_local]


def _is_main_unicast(message: bytes) -> bool:
    _, _, _, _, table, _, _, kind = message[HEADER_BYTES : HEADER_BYTES + 8]
    return (table, kind) == (_RT_TABLE_MAIN, _RTN_UNICAST)


def decode_route(message: bytes) -> Route:
    """The route that an RTM_NEWROUTE message, its header included, describes."""
    family, length, *_ = _RTMSG.unpack_from(message, HEADER_BYTES)
    found = attributes(message, _WANTED, at=HEADER_BYTES + _RTMSG.size)
    one = found.get(_RTA_OIF)
    several = _next_hops(found.get(_RTA_MULTIPATH, b""))
    hops = [*several] if one is None else [(read_number(one), found)]
    return Route(
        packed=found.get(_RTA_DST) or _NOWHERE[family],
        prefix_length=length,
        hops=tuple(Hop(ifindex, _gateway(members)) for ifindex, members in hops),
        on_link=bool(hops) and all(_ROUTERS.isdisjoint(members) for _, members in hops),
    )


def _next_hops(packed: bytes) -> Iterator[tuple[int, Mapping[int, bytes]]]:
    """The next hops in an attribute RTA_MULTIPATH: index of the link, and what makes it a router."""
    at = 0
    while at + _RTNEXTHOP.size <= len(packed):
        length, _, _, ifindex = _RTNEXTHOP.unpack_from(packed, at)
        yield ifindex, attributes(packed[at : at + length], _ROUTERS, at=_RTNEXTHOP.size)
        at += length + 3 & ~3


def _gateway(members: Mapping[int, bytes]) -> IPAddress | None:
    """The router among the attributes of a next hop or of a route with one."""
    packed = (
        members.get(_RTA_GATEWAY) or members.get(_RTA_VIA, b"")[2:]
    )  # RTA_VIA: the family, then the address
    return _ADDRESSES[len(packed)](packed) if packed else None
