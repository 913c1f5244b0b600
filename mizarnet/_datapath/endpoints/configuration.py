# SPDX-License-Identifier: Apache-2.0
"""What an endpoint's device is to have in its namespace: addresses, routes, MTU; reading it and giving it back.

The namespace belongs to the container, and whoever configures it there may have taken something away. Device and
addresses are seen from the host's namespace; routes only from inside, which takes the namespace's name.
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterator
from contextlib import suppress
from ipaddress import IPv4Network, IPv6Network

import attrs

from mizarnet._datapath.host import Host
from mizarnet._datapath.tunnel_hooks import TunnelHooks
from mizarnet._kernel.netlink import (
    SAME_NAMESPACE,
    Link,
    Session,
    add_address,
    add_default_route,
    add_on_link_route,
    get_link,
    list_addresses,
    list_routes,
    resolve,
    set_link,
    wait_for_address,
    write_sysctl,
)
from mizarnet._model.arguments import IPInterface, IPNetwork
from mizarnet._model.codec import Record
from mizarnet._model.finding import Finding, FindingKind, Subject, messages
from mizarnet._model.log import log
from mizarnet._model.specs import DefaultRoute, EndpointSpec, Kind, Route
from mizarnet.errors import KernelError, NetlinkError, NetnsNotFoundError


@attrs.frozen
class Configuration:
    """What a device has.

    Attributes:
        link: The device.
        mtu: MTU that the device is to have, in bytes.
        addresses: Addresses of the device; link-local ones are left out.
        routes: Unicast routes of the main table through the device; None: the namespace is out of reach.
        defaults: IP versions of the namespace's default routes.
    """

    link: Link
    mtu: int
    addresses: tuple[IPInterface, ...]
    routes: tuple[Route, ...] | None
    defaults: frozenset[int]


def read(record: Record, link: Link, tunnel: TunnelHooks) -> Configuration:
    """What an endpoint's device has now; the namespace is found by the name in the record."""
    found = list_addresses(tunnel.host, ifindex=link.ifindex, nsid=record.nsid)
    addresses = tuple(address.interface for address in found if address.is_global)
    there = Configuration(link, _mtu(record, link, tunnel), addresses, None, frozenset())
    with suppress(NetnsNotFoundError), _inside(record, tunnel.host) as session:
        return _routes(record, session, there)
    return there


def _mtu(record: Record, link: Link, tunnel: TunnelHooks) -> int:
    """The MTU that a device can have: its own, unless the tunnel's was lowered since."""
    if link.mtu == record.mtu:
        return record.mtu
    below = get_link(tunnel.host, ifindex=tunnel.ifindex)
    return record.mtu if below is None else min(record.mtu, below.mtu)


def _routes(record: Record, session: Session, there: Configuration) -> Configuration:
    """The same configuration with the routes of now."""
    found = list_routes(session, ifindex=there.link.ifindex)
    own = tuple(Route(each.destination, each.gateway) for each in found if not each.destination.is_link_local)
    return attrs.evolve(there, routes=own, defaults=_default_versions(record, session, own))


def _default_versions(record: Record, session: Session, own: Collection[Route]) -> frozenset[int]:
    """IP versions of the namespace's default routes; the device's own are enough where it has all that it needs."""
    here = frozenset(route.prefix.version for route in own if not route.prefix.prefixlen)
    if here.issuperset(gateway.version for gateway in record.spec.gateway or ()):
        return here
    prefixes = [route.destination for route in list_routes(session)]
    return frozenset(prefix.version for prefix in prefixes if not prefix.prefixlen)


def _inside(record: Record, host: Host) -> Session:
    """A session of the endpoint's namespace; raises ``NetnsNotFoundError`` if its name does not lead there."""
    with host.open_netns() if record.nsid == SAME_NAMESPACE else resolve(record.spec.netns or "") as found:
        if found.netns.identity != record.netns_id:
            raise NetnsNotFoundError(f"namespace {record.spec.netns} is another one by now")
        return Session.open(found)


def findings(record: Record, found: Configuration) -> list[Finding]:
    """What a device lacks of its record's specification; routes out of reach are taken to be there.

    A MACVTAP has no addresses here, since the VM has them, and is up while a process has it open.
    """
    return list(_findings(record, found))


def _findings(record: Record, found: Configuration) -> Iterator[Finding]:
    subject, spec, name = Subject("endpoint", record.spec.name), record.spec, record.spec.ifname
    if found.link.mtu != found.mtu:
        text = f"the MTU of {name} is {found.link.mtu}, not {found.mtu}"
        yield Finding(FindingKind.MTU_DIFFERS, subject, found.mtu, found.link.mtu, text)
    if spec.kind is Kind.MACVTAP:
        return
    if not found.link.up:
        yield Finding(FindingKind.DEVICE_DOWN, subject, "up", "down", f"{name} is down")
    for address in spec.ip:
        if address not in found.addresses:
            text = f"{name} has lost the address {address}"
            yield Finding(FindingKind.ADDRESS_LOST, subject, address, None, text)
    for route in _wanted(spec, found):
        if found.routes is not None and route not in found.routes:
            text = f"{name} has lost its route to {route.prefix}"
            yield Finding(FindingKind.ROUTE_LOST, subject, route, None, text)


def _wanted(spec: EndpointSpec, found: Configuration) -> Iterator[Route]:
    """The routes that a device needs. Another device's default route of that IP version was there first."""
    for address in spec.ip:
        if address.network.prefixlen < address.network.max_prefixlen:
            yield Route(address.network, None)
    if spec.default_route is not DefaultRoute.NEVER:
        for gateway in spec.gateway or ():
            if gateway.version not in found.defaults:
                yield Route(_DEFAULTS[gateway.version], gateway)


_DEFAULTS: dict[int, IPNetwork] = {4: IPv4Network("0.0.0.0/0"), 6: IPv6Network("::/0")}


def complete(record: Record, found: Configuration, tunnel: TunnelHooks) -> None:
    """Give a device back what it lacks.

    Raises:
        NetnsNotFoundError: Something is missing, and the namespace is out of reach.
        KernelError: The kernel refused it.
    """
    lost = findings(record, found)
    if not lost:
        return
    with _inside(record, tunnel.host) as session:
        if found.link.mtu != found.mtu:
            set_link(session, found.link.ifindex, mtu=found.mtu)
        if record.spec.kind is Kind.MACVLAN:
            _configure(record, session, found)
    log.info("endpoint %r completed: %s", record.spec.name, messages(lost))


def _configure(record: Record, session: Session, found: Configuration) -> None:
    ifindex = found.link.ifindex
    set_link(session, ifindex, up=True)
    for address in record.spec.ip:
        if address not in found.addresses:
            give_address(session, found.link, address)
    now = _routes(record, session, found)  # with the addresses came their routes
    for route in _wanted(record.spec, now):
        if route in (now.routes or ()):
            continue
        if route.gateway is None:
            add_on_link_route(session, route.prefix, ifindex=ifindex)
        else:
            add_default_route(session, route.gateway, ifindex=ifindex)


def give_address(session: Session, link: Link, address: IPInterface) -> None:
    """Give a device an address that can be used at once, with IPv6 switched on for this device if it was off.

    Raises:
        KernelError: The kernel refused it.
    """
    try:
        add_address(session, link.ifindex, address, dad=False)
    except NetlinkError as refused:
        if refused.errno != errno.EACCES:  # IPv6 is off on the device
            raise
        _switch_ipv6_on(session, link)
        add_address(session, link.ifindex, address, dad=False)
    if address.version == 6 and link.up:
        wait_for_address(session, address)


def _switch_ipv6_on(session: Session, link: Link) -> None:
    """Switch IPv6 on for the endpoint's device alone, in a namespace whose new devices have none (as in Docker)."""
    try:
        write_sysctl(session, f"ipv6/conf/{link.name}/disable_ipv6", "0")
    except KernelError as refused:
        raise KernelError(
            refused.operation,
            errno=refused.errno,
            hint="new devices there have no IPv6: set net.ipv6.conf.default.disable_ipv6=0 in that namespace first, "
            "or give IPv4 addresses only",
        ) from None
