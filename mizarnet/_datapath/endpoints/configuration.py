# SPDX-License-Identifier: Apache-2.0
"""What an endpoint's device is to have in its namespace: addresses, routes, MTU; reading it and giving it back.

The namespace belongs to the container, and whoever configures it there may have taken something away, or put another in
its place, which stays. Device and addresses are seen from the host's namespace; routes only from inside, which takes a
name of the namespace. How many addresses and routes there are is up to the container, so they are looked at without a
lock that others wait for: at most with that of the endpoint's own name.
"""

from __future__ import annotations

import errno
from collections import defaultdict
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from ipaddress import IPv4Network, IPv6Interface, IPv6Network, collapse_addresses, ip_interface

import attrs

from mizarnet._datapath.tunnel_hooks import TunnelHooks
from mizarnet._kernel import netlink
from mizarnet._kernel.netlink import (
    DEFAULTS,
    SAME_NAMESPACE,
    Address,
    Link,
    NetnsHandle,
    Session,
    add_address,
    add_route,
    delete_address,
    delete_route,
    get_link,
    list_addresses,
    list_routes,
    resolve,
    routed_prefixes,
    set_link,
    wait_for_address,
    write_sysctl,
)
from mizarnet._model.arguments import IPAddress, IPInterface, IPNetwork
from mizarnet._model.codec import Record
from mizarnet._model.finding import Finding, FindingKind, Subject, messages
from mizarnet._model.layout import checked
from mizarnet._model.log import log
from mizarnet._model.specs import EndpointSpec, Kind, MacAddress, Route
from mizarnet.errors import ExistsError, KernelError, NetlinkError, NetnsNotFoundError


@attrs.frozen
class Configuration:
    """What a device has, without what the kernel adds to any device: link-local ones that are not the endpoint's own.

    Attributes:
        link: The device.
        mtu: MTU that the device is to have, in bytes.
        addresses: Addresses of the device, in the kernel's order.
        routes: Unicast routes of the main table through the device; None: the namespace is out of reach.
        elsewhere: Prefixes that the namespace has other routes to, of those that endpoints there have none to.
    """

    link: Link
    mtu: int
    addresses: tuple[IPInterface, ...]
    routes: tuple[Route, ...] | None
    elsewhere: frozenset[IPNetwork] = frozenset()


def read(record: Record, link: Link, tunnel: TunnelHooks, *, netns: str | None = None) -> Configuration:
    """What an endpoint's device has now.

    Args:
        record: Record of the endpoint.
        link: The device.
        tunnel: Hooks of the tunnel that the device is on.
        netns: A name of the namespace; None: the one in the record.

    Raises:
        NetnsNotFoundError: The namespace has ended, or is ending.
    """
    addresses = list_addresses(tunnel.host, ifindex=link.ifindex, nsid=record.nsid)
    found = _configuration(record, link, tunnel, addresses)
    with suppress(NetnsNotFoundError), inside(record, tunnel.host, netns) as session:
        ((_, found),) = _with_routes(session, [(record, found)], list_routes(session, ifindex=link.ifindex))
    return found


def read_all(
    records: Iterable[Record], links: Mapping[int, Link], tunnel: TunnelHooks
) -> dict[int, Configuration]:
    """What the devices of endpoints have now, by the endpoint's instance, from a few messages for each namespace.

    Args:
        records: Records of endpoints.
        links: Their devices, by the endpoint's instance; an endpoint without one is left out.
        tunnel: Hooks of the tunnel that the devices are on.
    """
    together: defaultdict[int, list[Record]] = defaultdict(list)
    for record in records:
        if record.instance in links:
            together[record.nsid].append(record)
    found: dict[int, Configuration] = {}
    for each in together.values():
        with suppress(NetnsNotFoundError):  # the namespace ends just now
            found.update(_read_together(each, links, tunnel))
    return found


def _read_together(
    records: list[Record], links: Mapping[int, Link], tunnel: TunnelHooks
) -> dict[int, Configuration]:
    addresses: defaultdict[int, list[Address]] = defaultdict(list)
    for address in list_addresses(tunnel.host, nsid=records[0].nsid):
        addresses[address.ifindex].append(address)
    of_link = ((record, links[record.instance]) for record in records)
    found = [
        (record, _configuration(record, link, tunnel, addresses[link.ifindex])) for record, link in of_link
    ]
    with suppress(NetnsNotFoundError), inside(records[0], tunnel.host) as session:
        found = [*_with_routes(session, found, list_routes(session))]
    return {record.instance: each for record, each in found}


def _configuration(
    record: Record, link: Link, tunnel: TunnelHooks, addresses: Iterable[Address]
) -> Configuration:
    """All but the routes."""
    return Configuration(
        link=link, mtu=_mtu(record, link, tunnel), addresses=tuple(_addresses(record, addresses)), routes=None
    )


def _with_routes(
    session: Session, found: Iterable[tuple[Record, Configuration]], listed: Iterable[netlink.Route]
) -> Iterator[tuple[Record, Configuration]]:
    """Configurations of one namespace, with their routes out of those that are listed there."""
    through: defaultdict[int, list[netlink.Route]] = defaultdict(list)
    for route in listed:
        for ifindex in set(route.through):
            through[ifindex].append(route)
    own = [
        (record, each, tuple(_routes(record, each.link, through[each.link.ifindex])))
        for record, each in found
    ]
    missing = {route.prefix for record, _, routes in own for route in _missing_routes(record, routes)}
    elsewhere = routed_prefixes(session, missing)
    for record, each, routes in own:
        yield record, attrs.evolve(each, routes=routes, elsewhere=elsewhere)


# Objects of the record's own addresses and networks are there already, and making one takes as long as all the rest.


def _addresses(record: Record, found: Iterable[Address]) -> Iterator[IPInterface]:
    own = {(each.packed, each.network.prefixlen): each for each in record.spec.ip}
    asked = {each.packed for each in record.spec.ip}
    for address in found:
        known = own.get((address.packed, address.prefix_length))
        if known is not None:
            yield known
        elif not address.is_link_local or address.packed in asked:
            yield address.interface


def _routes(record: Record, link: Link, found: Iterable[netlink.Route]) -> Iterator[Route]:
    """Routes through the device, one for each next hop: whatever the container made, also what nobody may ask for."""
    networks = (address.network for address in record.spec.ip)
    own = {(each.network_address.packed, each.prefixlen): each for each in networks}
    for route in found:
        prefix = own.get((route.packed, route.prefix_length))
        if prefix is None:
            prefix = route.destination
            if prefix.is_link_local:
                continue
        for hop in route.hops:
            if hop.ifindex == link.ifindex:
                yield checked(Route, prefix=prefix, gateway=hop.gateway)


def _mtu(record: Record, link: Link, tunnel: TunnelHooks) -> int:
    """The MTU that a device can have: its own, unless the tunnel's was lowered since."""
    if link.mtu == record.mtu:
        return record.mtu
    below = get_link(tunnel.host, ifindex=tunnel.ifindex)
    return record.mtu if below is None else min(record.mtu, below.mtu)


def inside(record: Record, host: Session, netns: str | None = None) -> Session:
    """A session of the endpoint's namespace; raises ``NetnsNotFoundError`` if its name does not lead there."""
    if record.nsid != SAME_NAMESPACE:
        return inside_named(record, netns)
    with host.open_netns() as found:
        return _entered(record, found)


def inside_named(record: Record, netns: str | None = None) -> Session:
    """The same for an endpoint that does not live in the namespace of the host."""
    with resolve(netns or record.spec.netns or "") as found:
        return _entered(record, found)


def _entered(record: Record, found: NetnsHandle) -> Session:
    session = Session.open(found)
    # The file of a namespace that ended may be given to another; its cookie never is.
    if (session.identity, session.cookie) != (record.netns_id, record.netns_cookie):
        session.close()
        raise NetnsNotFoundError(f"namespace {found.netns.path or 'of the host'} is another one by now")
    return session


def findings(record: Record, found: Configuration, *, tunnel: str) -> list[Finding]:
    """What a device lacks of its record's specification; routes out of reach are taken to be there.

    A MACVTAP has no addresses here, since the VM has them, and is up while a process has it open.

    Args:
        record: Record of the endpoint.
        found: What its device has.
        tunnel: Name of the tunnel that the endpoint is on.
    """
    return [
        Finding(
            kind,
            Subject("endpoint", record.spec.name),
            wanted,
            there,
            text,
            tunnel=tunnel,
            instance=record.instance,
        )
        for kind, wanted, there, text in _differences(record, found)
    ]


def _differences(record: Record, found: Configuration) -> Iterator[tuple[FindingKind, object, object, str]]:
    """Kind, what is wanted, what is there, and the sentence, of each difference."""
    spec, name = record.spec, found.link.name
    if found.link.mtu != found.mtu:
        text = f"the MTU of {name} is {found.link.mtu}, not {found.mtu}"
        yield FindingKind.MTU_DIFFERS, found.mtu, found.link.mtu, text
    if spec.kind is Kind.MACVTAP:
        return
    if not found.link.up:
        yield FindingKind.DEVICE_DOWN, "up", "down", f"{name} is down"
    for address in _lost_addresses(record, found):
        text = f"{name} has lost the address {address}"
        yield FindingKind.ADDRESS_LOST, address, None, text
    for route in _lost_routes(record, found):
        text = f"{name} has lost its route to {route.prefix}"
        yield FindingKind.ROUTE_LOST, route, None, text


def _lost_addresses(record: Record, found: Configuration) -> list[IPInterface]:
    there = {address.ip for address in found.addresses}
    return [address for address in record.spec.ip if address.ip not in there]


def _lost_routes(record: Record, found: Configuration) -> list[Route]:
    """Routes that the device had, to prefixes that nobody has put another route to in their place."""
    if found.routes is None:
        return []
    missing = _missing_routes(record, found.routes)
    return [route for route in missing if route.prefix not in found.elsewhere]


def _missing_routes(record: Record, routes: Iterable[Route]) -> list[Route]:
    """Routes that the device had, to prefixes that it has none to; a VM's are its own affair."""
    if record.spec.kind is Kind.MACVTAP:
        return []
    there = {route.prefix for route in routes}
    return [
        route
        for route in dict.fromkeys(_made_routes(record))
        if not (route.prefix in there or _is_covered(route.prefix, there))
    ]


def _is_covered(prefix: IPNetwork, there: Iterable[IPNetwork]) -> bool:
    """Whether routes to its parts make one to the whole of a prefix."""
    if isinstance(prefix, IPv4Network):
        parts = [each for each in there if isinstance(each, IPv4Network) and each.subnet_of(prefix)]
        return [*collapse_addresses(parts)] == [prefix]
    six = [each for each in there if isinstance(each, IPv6Network) and each.subnet_of(prefix)]
    return [*collapse_addresses(six)] == [prefix]


def _made_routes(record: Record) -> Iterator[Route]:
    for address in record.spec.ip:
        network = address.network
        # The kernel makes none to a prefix of IPv4 that begins at 0.0.0.0.
        if network.prefixlen < network.max_prefixlen and (
            network.version == 6 or int(network.network_address)
        ):
            yield Route(network, None)
    yield from in_order_of_making(record.spec.routes)
    for gateway in record.spec.gateway or ():
        if gateway.version in record.routed:
            yield Route(DEFAULTS[gateway.version], gateway)


def lacks(record: Record, link: Link, tunnel: TunnelHooks, *, netns: str | None) -> bool:
    """Whether :func:`complete`, with the same arguments, would give a device anything."""
    if record.spec.kind is Kind.MACVTAP and link.mtu == record.mtu:
        return False
    return bool(findings(record, read(record, link, tunnel, netns=netns), tunnel=tunnel.name))


def complete(record: Record, link: Link, tunnel: TunnelHooks, *, netns: str | None) -> None:
    """Give a device back what it lacks; the caller holds the lock of the endpoint's name.

    Args:
        record: Record of the endpoint.
        link: The device.
        tunnel: Hooks of the tunnel that the device is on.
        netns: A name of the namespace; None: the one in the record.

    Raises:
        NetnsNotFoundError: Something is missing, and the namespace is out of reach.
        ExistsError: Another device took the MAC while this one was down.
        KernelError: The kernel refused it.
    """
    found = read(record, link, tunnel, netns=netns)
    lost = findings(record, found, tunnel=tunnel.name)
    if not lost:
        return
    with inside(record, tunnel.host, netns) as session:
        if link.mtu != found.mtu:
            set_link(session, link.ifindex, mtu=found.mtu)
        if record.spec.kind is Kind.MACVLAN:
            _configure(record, session, found)
    log.info("endpoint %r completed: %s", record.spec.name, messages(lost))


def _configure(record: Record, session: Session, found: Configuration) -> None:
    if not found.link.up:
        if needs_link_local(record):
            give_link_local(session, found.link, record.mac)
        bring_up(session, found.link, record)
    for address in _lost_addresses(record, found):
        with _unless_there():
            give_addresses(session, found.link, [address])
    # With the addresses came their routes.
    routes = tuple(_routes(record, found.link, list_routes(session, ifindex=found.link.ifindex)))
    now = attrs.evolve(found, routes=routes)
    for route in _lost_routes(record, now):
        with _unless_there():
            if route.prefix.prefixlen:
                give_route(session, found.link, record.spec, route)
            elif route.gateway is not None:
                give_default_route(session, found.link, record.spec, route.gateway)


@contextmanager
def _unless_there() -> Generator[None, None, None]:
    """Leave what the container has put in the place of what is missing."""
    try:
        yield
    except NetlinkError as refused:
        if refused.errno != errno.EEXIST:
            raise


def bring_up(session: Session, link: Link, record: Record) -> None:
    """Set a device up.

    Raises:
        ExistsError: Another device took the MAC while this one was down.
    """
    try:
        set_link(session, link.ifindex, up=True)
    except NetlinkError as refused:
        if refused.errno != errno.EADDRINUSE:
            raise
        raise ExistsError(
            f"another device on the tunnel took MAC {record.mac} while endpoint {record.spec.name!r} was down",
            holder=str(record.mac),
            hint="it takes CAP_NET_ADMIN over an endpoint's namespace to do that: delete that endpoint",
        ) from refused


def in_order_of_making(routes: Iterable[Route]) -> list[Route]:
    """Routes in an order in which each gateway has its on-link route before."""
    return sorted(routes, key=lambda route: route.gateway is not None)


def give_route(
    session: Session, link: Link, spec: EndpointSpec, route: Route, *, replace: bool = False
) -> None:
    """Add a route of an endpoint to its namespace, or put it into the place of another one to the same prefix."""
    gateway = route.gateway
    # The kernel takes link-local gateways of IPv6 as they are.
    onlink = (
        gateway is not None
        and not spec.covers(gateway)
        and not (gateway.version == 6 and gateway.is_link_local)
    )
    add_route(session, route.prefix, gateway, ifindex=link.ifindex, onlink=onlink, replace=replace)


def give_default_route(session: Session, link: Link, spec: EndpointSpec, gateway: IPAddress) -> bool:
    """Add the default route of the gateway's IP version; False: the namespace has one, of any metric, which stays."""
    if routed_prefixes(session, [DEFAULTS[gateway.version]]):
        return False
    try:
        give_route(session, link, spec, Route(DEFAULTS[gateway.version], gateway))
    except NetlinkError as refused:
        if refused.errno != errno.EEXIST:
            raise
        return False
    return True


def give_addresses(session: Session, link: Link, addresses: Iterable[IPInterface]) -> None:
    """Give a device that is up addresses that can be used at once, with IPv6 switched on for it if it was off.

    Raises:
        KernelError: The kernel refused one of them.
    """
    given = list(addresses)
    for address in given:
        _give_address(session, link, address)
    for address in given:
        if address.version == 6:
            wait_for_address(session, address)


def _give_address(session: Session, link: Link, address: IPInterface) -> None:
    try:
        _add_address(session, link, address)
    except NetlinkError as refused:
        if refused.errno != errno.EACCES:  # IPv6 is off on the device
            raise
        _switch_ipv6_on(session, link)
        _add_address(session, link, address)


def _add_address(session: Session, link: Link, address: IPInterface) -> None:
    try:
        add_address(session, link.ifindex, address, dad=False)
    except NetlinkError as refused:
        # A link-local one may have been given before the device was up, or be the kernel's own.
        if refused.errno != errno.EEXIST or address.version == 4 or not address.is_link_local:
            raise


def needs_link_local(record: Record) -> bool:
    """Whether a device is given its link-local address, before it is up.

    If the endpoint may pass on IPv6 packets of others: the kernel asks for neighbours in that address's name for what
    the namespace only passes on, and in no name at all while DAD is at it. A router's first packets would wait for two
    seconds, and be lost on a busy machine. And if the address was asked for: the kernel's own, of which there can only
    be one, would not be usable while DAD is at it.
    """
    spec = record.spec
    routes = spec.forwarding and any(each.version == 6 for each in spec.ip)
    return routes or _link_local(record.mac).ip in (each.ip for each in spec.ip)


def give_link_local(session: Session, link: Link, mac: MacAddress) -> None:
    """Give a device that is down the IPv6 link-local address that the kernel would make of its MAC, without DAD.

    Raises:
        KernelError: The kernel refused.
    """
    _give_address(session, link, _link_local(mac))


def _link_local(mac: MacAddress) -> IPInterface:
    """With modified EUI-64 (RFC 4291, appendix A)."""
    octets = mac.packed
    identifier = bytes([octets[0] ^ 0x02]) + octets[1:3] + b"\xff\xfe" + octets[3:]
    return IPv6Interface((b"\xfe\x80" + bytes(6) + identifier, 64))


def give_new_addresses(session: Session, link: Link, addresses: Iterable[IPInterface]) -> None:
    """Give a device addresses that can be used at once; those that the container has put there stay."""
    there = {address.interface for address in list_addresses(session, ifindex=link.ifindex)}
    # The kernel has one IPv6 address once, whatever its prefix.
    ips = {address.ip for address in there if address.version == 6}
    coming = (address for address in addresses if address not in there and address.ip not in ips)
    give_addresses(session, link, coming)


def take_routes(session: Session, link: Link, record: Record, routes: Iterable[Route]) -> None:
    """Take routes from a namespace, as far as they are there; one of the endpoint's to the same prefix comes back."""
    own = {route.prefix: route for route in _made_routes(record)}
    found = (each for each in list_routes(session, ifindex=link.ifindex) if len(each.hops) == 1)
    there = {*_routes(record, link, found)}
    for route in routes:
        if route not in there:
            continue
        if route.prefix in own:
            give_route(session, link, record.spec, own[route.prefix], replace=True)
        else:
            with _if_there(errno.ESRCH):
                delete_route(session, route.prefix, route.gateway, ifindex=link.ifindex)


def take_addresses(session: Session, link: Link, record: Record, addresses: Iterable[IPInterface]) -> None:
    """Take addresses from a device, as far as they are there, and nothing from those that stay, not for a moment.

    With a primary IPv4 address the kernel takes the secondary ones of its prefix, or their routes for a moment. So
    these are primary ones, too, of a prefix of their own, while it goes. The link-local address that the device has
    from the kernel, whoever asks for it, stays.
    """
    there = list_addresses(session, ifindex=link.ifindex)
    found = {address.interface for address in there}
    own = [each for each in record.spec.ip if each.version == 4]
    stand_ins = [each for each in own if _alone(each) in found - {each}]
    if stand_ins:  # a process died between the two
        _put_back(session, link, stand_ins)
        there = list_addresses(session, ifindex=link.ifindex)
    leaving = {*addresses} - {_link_local(record.mac)}
    gone = [address for address in there if address.interface in leaving]
    for address in sorted(gone, key=lambda each: not each.secondary):
        prefix = address.interface.network
        stay = [
            each.interface
            for each in there
            if each not in gone and each.secondary and each.interface.network == prefix
        ]
        with _kept(session, link, [] if address.secondary else stay), _if_there(errno.EADDRNOTAVAIL):
            delete_address(session, link.ifindex, address.interface)


_LOWER_RANK = 1 << 16
"""Metric of the routes that stand in for others for a moment."""


@contextmanager
def _kept(session: Session, link: Link, secondary: list[IPInterface]) -> Generator[None, None, None]:
    """Keep secondary addresses of one prefix, and what is reached by it, while their primary one goes."""
    for each in secondary:
        with _unless_there():
            add_address(session, link.ifindex, _alone(each))
    for prefix in {each.network for each in secondary}:
        with _unless_there():
            add_route(session, prefix, None, ifindex=link.ifindex, metric=_LOWER_RANK)
    yield
    _put_back(session, link, secondary)


def _put_back(session: Session, link: Link, addresses: Sequence[IPInterface]) -> None:
    """Put addresses in the place of what stands in for them; the last of that goes last, since it is found by that."""
    for each in addresses:
        with _unless_there():  # it was made the primary one
            add_address(session, link.ifindex, each)
    for prefix in {each.network for each in addresses}:
        with _if_there(errno.ESRCH):
            delete_route(session, prefix, None, ifindex=link.ifindex, metric=_LOWER_RANK)
    for each in addresses:
        with _if_there(errno.EADDRNOTAVAIL):
            delete_address(session, link.ifindex, _alone(each))


def _alone(address: IPInterface) -> IPInterface:
    """The same address with a prefix of its own."""
    return ip_interface(address.ip)


@contextmanager
def _if_there(missing: int) -> Generator[None, None, None]:
    """Ignore that something is gone already."""
    try:
        yield
    except NetlinkError as refused:
        if refused.errno != missing:
            raise


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
