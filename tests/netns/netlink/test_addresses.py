# SPDX-License-Identifier: Apache-2.0
"""Addresses, routes and the prefixes of a link."""

from __future__ import annotations

import errno
import importlib
import ipaddress
import socket
import struct
import subprocess
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import pytest

from mizarnet._kernel.netlink import (
    DEFAULTS,
    Address,
    Link,
    Session,
    add_address,
    add_route,
    create_veth,
    delete_address,
    list_addresses,
    list_routes,
    on_link_prefixes,
    primary_address,
    set_link,
    write_sysctl,
)
from mizarnet._kernel.netlink.addresses import decode_address
from mizarnet._kernel.netlink.routes import decode_route
from mizarnet._kernel.rtnetlink import HEADER_BYTES, Rtm, attribute, number
from mizarnet._model.arguments import IPAddress
from mizarnet.errors import NetlinkError

_DST, _OIF, _MULTIPATH, _ENCAP = 1, 4, 9, 22  # RTA_*


@pytest.fixture
def link(session: Session) -> Link:
    """Return a link that is up and running."""
    near = create_veth(session, "v0", peer="v1")
    assert near.parent_ifindex is not None
    set_link(session, near.ifindex, up=True)
    set_link(session, near.parent_ifindex, up=True)
    return near


def global_ones(session: Session, link: Link) -> list[str]:
    found = list_addresses(session, ifindex=link.ifindex)
    return [str(address.interface) for address in found if not address.scope]


def ip(session: Session, *argv: str) -> str:
    done = session.run(subprocess.run, ["ip", *argv], check=True, capture_output=True, text=True, timeout=30)
    return done.stdout


def test_both_versions(session: Session, link: Link) -> None:
    add_address(session, link.ifindex, ip_interface("10.0.0.5/24"))
    add_address(session, link.ifindex, ip_interface("fd00::5/64"), dad=False)
    assert global_ones(session, link) == ["10.0.0.5/24", "fd00::5/64"]
    assert not any(a.tentative for a in list_addresses(session, ifindex=link.ifindex) if not a.scope)
    assert primary_address(session, link.ifindex, version=4) == ip_interface("10.0.0.5/24")
    assert primary_address(session, link.ifindex, version=6) == ip_interface("fd00::5/64")
    delete_address(session, link.ifindex, ip_interface("10.0.0.5/24"))
    assert global_ones(session, link) == ["fd00::5/64"]
    assert primary_address(session, link.ifindex, version=4) is None


def test_duplicate_address_detection_is_the_callers_choice(session: Session, link: Link) -> None:
    add_address(session, link.ifindex, ip_interface("fd00::5/64"))
    (address,) = [
        a for a in list_addresses(session, ifindex=link.ifindex) if a.interface.ip in ip_network("fd00::/8")
    ]
    assert address.tentative
    assert primary_address(session, link.ifindex, version=6) is None


def test_refusals(session: Session, link: Link) -> None:
    add_address(session, link.ifindex, ip_interface("10.0.0.5/24"))
    with pytest.raises(NetlinkError) as again:
        add_address(session, link.ifindex, ip_interface("10.0.0.5/24"))
    assert again.value.errno == errno.EEXIST
    with pytest.raises(NetlinkError) as absent:
        delete_address(session, link.ifindex, ip_interface("10.0.0.6/24"))
    assert absent.value.errno == errno.EADDRNOTAVAIL
    with pytest.raises(NetlinkError) as nowhere:
        list_addresses(session, ifindex=999)
    assert nowhere.value.errno == errno.ENODEV
    write_sysctl(session, "ipv6/conf/v0/disable_ipv6", "1")
    with pytest.raises(NetlinkError) as off:
        add_address(session, link.ifindex, ip_interface("fd00::5/64"))
    assert off.value.errno == errno.EACCES


def test_the_first_lasting_address_is_primary(session: Session, link: Link) -> None:
    for text in ("10.0.0.5/24", "10.0.0.6/24", "192.0.2.1/32"):
        add_address(session, link.ifindex, ip_interface(text))
    ip(session, "addr", "add", "169.254.1.1/16", "dev", "v0", "scope", "link")
    assert primary_address(session, link.ifindex, version=4) == ip_interface("10.0.0.5/24")


def as_pyroute2_says(data: bytes) -> Address:
    message = importlib.import_module("pyroute2.netlink.rtnl.ifaddrmsg").ifaddrmsg(data)
    message.decode()
    text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
    return Address(
        packed=ip_address(text).packed,
        prefix_length=message["prefixlen"],
        ifindex=message["index"],
        scope=message["scope"],
        flags=message.get_attr("IFA_FLAGS"),
    )


def test_every_field_is_as_pyroute2_says(session: Session, link: Link) -> None:
    add_address(session, link.ifindex, ip_interface("10.0.0.5/24"))
    add_address(session, link.ifindex, ip_interface("fd00::5/64"))
    for argv in (
        "10.0.0.6/24 dev v0 label v0:label",
        "192.0.2.1 peer 192.0.2.2/32 dev v0",
        "2001:db8::1 peer 2001:db8::2/128 dev v0",
        "169.254.1.1/16 dev v0 scope link",
        "fd00::9/64 dev v1 nodad mngtmpaddr noprefixroute preferred_lft 0",
        "fd00::a/64 dev v1 nodad valid_lft 1000 preferred_lft 500",
    ):
        ip(session, "addr", "add", *argv.split())
    said = session.request_all("list addresses", Rtm.GETADDR, bytes(8))
    found = list(map(decode_address, said))
    assert found == list(map(as_pyroute2_says, said))
    assert len(found) >= 10  # with those of lo; IPv6's own come in their own time
    assert len({address.flags for address in found}) > 4
    assert {address.scope for address in found} == {0, 253, 254}
    assert {str(address.interface.ip) for address in found} >= {"192.0.2.1", "2001:db8::1", "127.0.0.1"}
    assert {address.ifindex for address in found} == {1, link.ifindex, link.parent_ifindex}
    interfaces = [address.interface for address in found]
    assert [(each.packed, each.network.prefixlen) for each in interfaces] == [
        (address.packed, address.prefix_length) for address in found
    ]
    assert [each.is_link_local for each in interfaces] == [address.is_link_local for address in found]
    assert {address.is_link_local for address in found} == {False, True}


def test_point_to_point_shows_the_near_end(session: Session, link: Link) -> None:
    ip(session, "addr", "add", "192.0.2.1", "peer", "192.0.2.2/32", "dev", "v0")
    assert global_ones(session, link) == ["192.0.2.1/32"]
    assert on_link_prefixes(session, link.ifindex) == [ip_network("192.0.2.2/32")]


def test_default_routes(session: Session, link: Link) -> None:
    add_address(session, link.ifindex, ip_interface("10.0.0.5/24"))
    add_address(session, link.ifindex, ip_interface("fd00::5/64"), dad=False)
    add_route(session, DEFAULTS[4], ip_address("10.0.0.1"), ifindex=link.ifindex)
    add_route(session, DEFAULTS[6], ip_address("fd00::1"), ifindex=link.ifindex)
    defaults = {r.gateway for r in list_routes(session, ifindex=link.ifindex) if not r.destination.prefixlen}
    assert defaults == {ip_address("10.0.0.1"), ip_address("fd00::1")}
    assert "default via 10.0.0.1 dev v0 proto static" in ip(session, "route", "show")
    assert "default via fd00::1 dev v0 proto static" in ip(session, "-6", "route", "show")
    with pytest.raises(NetlinkError) as again:
        add_route(session, DEFAULTS[4], ip_address("10.0.0.1"), ifindex=link.ifindex)
    assert again.value.errno == errno.EEXIST


def test_a_gateway_off_the_link_needs_onlink(session: Session, link: Link) -> None:
    add_address(session, link.ifindex, ip_interface("10.0.0.5/32"))
    gateway = ip_address("10.9.9.1")
    with pytest.raises(NetlinkError) as caught:
        add_route(session, DEFAULTS[4], gateway, ifindex=link.ifindex)
    assert caught.value.errno == errno.ENETUNREACH
    assert caught.value.kernel_message
    add_route(session, DEFAULTS[4], gateway, ifindex=link.ifindex, onlink=True)


def test_on_link_prefixes_are_those_of_the_link(session: Session, link: Link) -> None:
    assert link.parent_ifindex is not None
    for ifindex, text in ((link.ifindex, "10.0.0.5/24"), (link.parent_ifindex, "10.1.0.5/24")):
        add_address(session, ifindex, ip_interface(text))
    add_address(session, link.ifindex, ip_interface("fd00::5/64"), dad=False)
    add_route(session, DEFAULTS[4], ip_address("10.0.0.1"), ifindex=link.ifindex)
    ip(session, "route", "add", "198.51.100.0/24", "via", "10.0.0.1")
    ip(session, "route", "add", "203.0.113.0/24", "dev", "v0")
    prefixes: set[ipaddress.IPv4Network | ipaddress.IPv6Network] = set(
        on_link_prefixes(session, link.ifindex)
    )
    assert prefixes == {ip_network("10.0.0.0/24"), ip_network("203.0.113.0/24"), ip_network("fd00::/64")}


def test_what_is_behind_a_router_is_on_no_link(session: Session, link: Link) -> None:
    add_address(session, link.ifindex, ip_interface("10.0.0.5/24"))
    add_address(session, link.ifindex, ip_interface("fd00::5/64"), dad=False)
    ip(session, "nexthop", "add", "id", "1", "via", "10.0.0.1", "dev", "v0")
    ip(session, "nexthop", "add", "id", "2", "via", "10.0.0.2", "dev", "v0")
    ip(session, "nexthop", "add", "id", "3", "dev", "v0")
    ip(session, "nexthop", "add", "id", "9", "group", "1/2")
    for route in (
        "10.1.0.0/16 nexthop via 10.0.0.1 dev v0 nexthop via 10.0.0.2 dev v0",
        "10.2.0.0/16 via inet6 fd00::1 dev v0",
        "10.3.0.0/16 nexthop via inet6 fd00::1 dev v0 nexthop dev v0",
        "10.4.0.0/16 nhid 1",
        "10.5.0.0/16 nhid 9",
        "10.6.0.0/16 nexthop dev v0 nexthop via 10.0.0.1 dev v0",
        "fd01::/64 nexthop via fd00::1 dev v0 nexthop via fd00::2 dev v0",
        "203.0.113.0/24 nhid 3",
        "203.0.114.0/24 nexthop dev v0 nexthop dev v0",
    ):
        ip(session, *(["-6"] if route.startswith("fd") else []), "route", "add", *route.split())
    here = {ip_network("10.0.0.0/24"), ip_network("fd00::/64")}
    further = {ip_network("203.0.113.0/24"), ip_network("203.0.114.0/24")}
    assert set(on_link_prefixes(session, link.ifindex)) == here | further
    # A host that names its next hops by their ids says no more of 203.0.113.0/24.
    write_sysctl(session, "ipv4/nexthop_compat_mode", "0")
    assert set(on_link_prefixes(session, link.ifindex)) == here | {ip_network("203.0.114.0/24")}


def test_what_something_is_put_around_is_on_no_link() -> None:
    def route(*members: bytes) -> bytes:
        body = struct.pack("=BBBBBBBBI", socket.AF_INET, 16, 0, 0, 254, 4, 253, 1, 0)
        return bytes(HEADER_BYTES) + body + attribute(_DST, bytes([10, 7, 0, 0])) + b"".join(members)

    def hop(*members: bytes) -> bytes:
        rest = b"".join(members)
        return struct.pack("=HBBi", 8 + len(rest), 0, 0, 3) + rest

    around = attribute(_ENCAP, b"")
    assert decode_route(route(number(_OIF, 3))).on_link
    assert not decode_route(route(number(_OIF, 3), around)).on_link
    assert decode_route(route(attribute(_MULTIPATH, hop() + hop()))).on_link
    assert not decode_route(route(attribute(_MULTIPATH, hop() + hop(around)))).on_link


def test_every_route_is_as_pyroute2_says(session: Session, link: Link) -> None:
    add_address(session, link.ifindex, ip_interface("10.0.0.5/24"))
    add_address(session, link.ifindex, ip_interface("fd00::5/64"), dad=False)
    add_route(session, DEFAULTS[4], ip_address("10.0.0.1"), ifindex=link.ifindex)
    add_route(session, DEFAULTS[6], ip_address("fd00::1"), ifindex=link.ifindex)
    for route in (
        "198.51.100.0/24 via 10.0.0.1",
        "203.0.113.7/32 dev v0",
        "203.0.113.0/24 via inet6 fe80::1 dev v0",
    ):
        ip(session, "route", "add", *route.split())
    ip(session, "route", "add", "192.0.2.0/24", "nexthop", "via", "10.0.0.1", "nexthop", "via", "10.0.0.2")
    ip(session, "route", "add", "unreachable", "100.64.0.0/10")
    ip(session, "route", "add", "100.65.0.0/16", "via", "10.0.0.1", "table", "100")
    codec = importlib.import_module("pyroute2.netlink.rtnl.rtmsg").rtmsg

    def next_hop(message: Any) -> IPAddress | None:
        gateway, via = message.get_attr("RTA_GATEWAY"), message.get_attr("RTA_VIA")
        text = gateway or (via and via["addr"])
        return ip_address(text) if text else None

    wanted = []
    for version, family in ((4, socket.AF_INET), (6, socket.AF_INET6)):
        for data in session.request_all("list routes", Rtm.GETROUTE, bytes([family]) + bytes(11)):
            message = codec(data)
            message.decode()
            if (message["table"], message["type"]) == (254, 1):
                nowhere = "0.0.0.0" if version == 4 else "::"
                text = f"{message.get_attr('RTA_DST') or nowhere}/{message['dst_len']}"
                several = message.get_attr("RTA_MULTIPATH") or []
                hops = [(hop["oif"], next_hop(hop)) for hop in several]
                hops = hops or [(message.get_attr("RTA_OIF"), next_hop(message))]
                wanted.append((ip_network(text), tuple(hops)))
    found = list_routes(session)
    assert [(each.destination, each.hops) for each in found] == wanted
    assert (link.ifindex, link.ifindex) in {each.through for each in found}
    own = [each for each in found if link.ifindex in each.through]
    assert own == list_routes(session, ifindex=link.ifindex)
