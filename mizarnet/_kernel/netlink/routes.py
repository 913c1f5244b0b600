# SPDX-License-Identifier: Apache-2.0
"""Routes of a network namespace."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence

import attrs

from mizarnet._kernel.netlink._messages import Attribute, Reply, Request
from mizarnet._kernel.netlink.addresses import FAMILIES
from mizarnet._kernel.netlink.session import Session
from mizarnet._kernel.rtnetlink import HEADER_BYTES, Flag, Rtm
from mizarnet._model.arguments import IPAddress, IPNetwork

_RT_TABLE_MAIN = 254
_RT_SCOPE_LINK = 253
_RTN_UNICAST = 1
_DECIDING = {_RTN_UNICAST, 6, 7, 8}  # RTN_BLACKHOLE, RTN_UNREACHABLE, RTN_PROHIBIT
_RTPROT_STATIC = 4
_RTNH_F_ONLINK = 4


@attrs.frozen
class Route:
    """A unicast route of the main table.

    Attributes:
        destination: Prefix that it leads to.
        gateway: Next hop; None when the destination is on the link.
        ifindex: Index of the link that it leaves through; None for a route with several next hops.
    """

    destination: IPNetwork
    gateway: IPAddress | None
    ifindex: int | None


def add_default_route(session: Session, gateway: IPAddress, *, ifindex: int, onlink: bool = False) -> None:
    """Add the default route of the gateway's IP version.

    Args:
        session: Session of the namespace.
        gateway: Next hop.
        ifindex: Index of the link to leave through, which must be up.
        onlink: Take the gateway for a neighbour although no address of the link covers it.

    Raises:
        NetlinkError: The kernel refused (EEXIST: there is one; ENETUNREACH: the gateway is not on the link).
    """
    fields = {"family": FAMILIES[gateway.version], "flags": _RTNH_F_ONLINK if onlink else 0}
    attributes: list[Attribute] = [("RTA_GATEWAY", str(gateway)), ("RTA_OIF", ifindex)]
    _add(session, f"add default route via {gateway}", fields, attributes)


def add_on_link_route(session: Session, prefix: IPNetwork, *, ifindex: int) -> None:
    """Add the route to a prefix whose hosts are neighbours on a link.

    Args:
        session: Session of the namespace.
        prefix: Prefix that the route leads to.
        ifindex: Index of the link, which must be up.

    Raises:
        NetlinkError: The kernel refused (EEXIST: there is one).
    """
    fields = {"family": FAMILIES[prefix.version], "dst_len": prefix.prefixlen, "scope": _RT_SCOPE_LINK}
    attributes: list[Attribute] = [("RTA_DST", str(prefix.network_address)), ("RTA_OIF", ifindex)]
    _add(session, f"add the route to {prefix}", fields, attributes)


def _add(
    session: Session, operation: str, fields: Mapping[str, int], attributes: Sequence[Attribute]
) -> None:
    common = {"table": _RT_TABLE_MAIN, "proto": _RTPROT_STATIC, "type": _RTN_UNICAST}
    flags = Flag.CREATE | Flag.EXCLUSIVE
    session.request(
        operation, Request(Rtm.NEWROUTE, fields={**common, **fields}, attributes=attributes, flags=flags)
    )


def list_routes(session: Session, *, ifindex: int) -> list[Route]:
    """The main table's unicast routes through one link, of both IP versions.

    Raises:
        NetlinkError: The kernel refused (ENODEV: no such link).
    """
    return session.run(_list_routes, session, ifindex)


def _list_routes(session: Session, ifindex: int) -> list[Route]:
    routes: list[Route] = []
    through: list[Attribute] = [("RTA_OIF", ifindex)]
    for version, family in FAMILIES.items():
        request = Request(Rtm.GETROUTE, fields={"family": family}, attributes=through, flags=Flag.DUMP)
        replies = session.request(f"list IPv{version} routes", request)
        routes += [_route(reply, version) for reply in replies if _is_main_unicast(reply)]
    return routes


def has_default_route(session: Session, version: int) -> bool:
    """Whether the main table has a default route of an IP version, of any metric and type: unreachable ones, too.

    Only the fixed headers are read: a namespace may have a hundred thousand routes.
    """
    request = Request(Rtm.GETROUTE, fields={"family": FAMILIES[version]}, flags=Flag.DUMP)
    return session.request_any(f"list IPv{version} routes", request, _is_default)


def _is_default(message: bytes) -> bool:
    _, destination_bits, _, _, table, _, _, kind = message[HEADER_BYTES : HEADER_BYTES + 8]
    return destination_bits == 0 and table == _RT_TABLE_MAIN and kind in _DECIDING


def on_link_prefixes(session: Session, ifindex: int) -> list[IPNetwork]:
    """The prefixes whose hosts are neighbours on a link; link-local ones and ``/0`` are left out."""
    routes = list_routes(session, ifindex=ifindex)
    on_link = [route.destination for route in routes if route.gateway is None]
    return [prefix for prefix in on_link if prefix.prefixlen and not prefix.is_link_local]


def _is_main_unicast(reply: Reply) -> bool:
    table = reply.number("RTA_TABLE") or reply.field("table")
    return table == _RT_TABLE_MAIN and reply.field("type") == _RTN_UNICAST


def _route(reply: Reply, version: int) -> Route:
    unspecified = "0.0.0.0" if version == 4 else "::"
    destination = reply.text("RTA_DST") or unspecified
    gateway = reply.text("RTA_GATEWAY")
    return Route(
        destination=ipaddress.ip_network(f"{destination}/{reply.field('dst_len')}"),
        gateway=None if gateway is None else ipaddress.ip_address(gateway),
        ifindex=reply.number("RTA_OIF"),
    )
