# SPDX-License-Identifier: Apache-2.0
"""Whether a gateway fits into what is there, judged before anything of it is made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import ip_interface

import attrs

from mizarnet._datapath import forwarding, gateway_notes, whole_host
from mizarnet._datapath.endpoints import LocalEndpoints
from mizarnet._datapath.gateway_notes import Note
from mizarnet._datapath.gateways import networks, rules, ruleset
from mizarnet._datapath.gateways.ruleset import Way
from mizarnet._datapath.host import Host
from mizarnet._kernel.netlink import DEFAULTS, Link, get_link, list_addresses, list_routes, waiting_ports
from mizarnet._model import codec
from mizarnet._model.arguments import IPAddress, IPInterface, IPNetwork
from mizarnet._model.codec import Record
from mizarnet._model.gateways import GatewaySpec, Publish
from mizarnet._model.specs import EndpointKey, Network
from mizarnet.errors import (
    CapacityError,
    ExistsError,
    InvalidValueError,
    UnderlayNotFoundError,
    UnsupportedError,
)


def with_prefixes(spec: GatewaySpec, there: Mapping[IPNetwork, Network]) -> GatewaySpec:
    """A specification whose addresses have on-link prefixes; those without one get that of their network.

    Raises:
        InvalidValueError: An address is in no network of the VNI that a gateway can be in.
    """
    return attrs.evolve(spec, ip=[_with_prefix(each, spec.vni, there) for each in spec.ip])


def _with_prefix(address: IPInterface, vni: int, there: Mapping[IPNetwork, Network]) -> IPInterface:
    if address.network.prefixlen < address.max_prefixlen:
        return address
    around = [
        prefix
        for prefix, network in there.items()
        if prefix.prefixlen and network.via is None and _contains(prefix, address.ip)
    ]
    if not around:
        raise InvalidValueError(
            f"{address.ip} is in no network of VNI {vni}",
            argument="ip",
            value=address,
            hint=f"give it with its prefix, such as {address.ip}/24, or add the network to agent.networks",
        )
    longest = max(around, key=lambda prefix: prefix.prefixlen)
    return ip_interface(f"{address.ip}/{longest.prefixlen}")


def prefixes(addresses: Iterable[IPInterface], there: Mapping[IPNetwork, Network]) -> list[IPNetwork]:
    """The prefixes of a VNI that a gateway's tenants are in: its own, and those of networks without a next hop."""
    own = [each.network for each in addresses]
    versions = {each.version for each in own}
    others = [
        prefix
        for prefix, network in there.items()
        if prefix.prefixlen and network.via is None and prefix.version in versions
    ]
    return [*dict.fromkeys([*own, *others])]


def refuse_unfit(host: Host, endpoints: LocalEndpoints, spec: GatewaySpec, *, own: Record | None) -> Link:
    """The egress device of a gateway that can be made.

    Args:
        host: Host of the gateway.
        endpoints: Endpoints of its data path.
        spec: What it shall be.
        own: Record of the gateway that goes for it; None: there is none.

    Raises:
        UnderlayNotFoundError: There is no such device.
        InvalidValueError: The device is none that leads out, or a published port leads out of the VNI.
        ExistsError: An address is taken, another way out of the VNI exists, or a published port is taken.
    """
    egress = _egress(host, endpoints, spec)
    there = networks.of_vni(endpoints.maps, spec.vni)
    _refuse_other_way(spec, there)
    for address in spec.ip:
        _refuse_taken(endpoints, spec.vni, address.ip, own)
    refuse_outside(spec, there)
    return egress


def _egress(host: Host, endpoints: LocalEndpoints, spec: GatewaySpec) -> Link:
    link = get_link(host, spec.egress)
    if link is None:
        raise UnderlayNotFoundError(
            f"there is no device {spec.egress!r} in this namespace to lead VNI {spec.vni} out",
            hint="egress= names the host's device that leads to the outside",
        )
    own = {endpoints.datapath.hooks.ifindex: "the tunnel", 1: "the loopback device"}
    what = own.get(link.ifindex) or (
        "the device of a gateway" if gateway_notes.Note.parse(link.alias) else ""
    )
    if link.external and not what:
        what = "a tunnel"
    if what:
        raise InvalidValueError(
            f"{spec.egress} is {what}: it leads VNI {spec.vni} nowhere", argument="egress", value=spec.egress
        )
    return link


def _refuse_other_way(spec: GatewaySpec, there: Mapping[IPNetwork, Network]) -> None:
    own = {key.prefix: network for key, network in networks.leading(spec.vni, spec.ip)}
    for version in spec.versions:
        other = there.get(DEFAULTS[version])
        if other not in (None, own[DEFAULTS[version]]):
            raise ExistsError(
                f"VNI {spec.vni} has a network {DEFAULTS[version]} already ({other})",
                holder=str(DEFAULTS[version]),
                hint="delete that entry of agent.networks first, or leave out the address of that IP version",
            )


def _refuse_taken(endpoints: LocalEndpoints, vni: int, ip: IPAddress, own: Record | None) -> None:
    entry = endpoints.maps.endpoints.lookup(codec.pack_endpoint_key(EndpointKey(vni, ip)))
    local = endpoints.at(vni, ip)
    if local is not None and own is not None and local.instance == own.instance:
        return
    if local is not None and endpoints.is_present(local):
        raise ExistsError(
            f"{ip} of VNI {vni} belongs to endpoint {local.spec.name!r}", holder=local.spec.name
        )
    if entry is not None and local is None:
        raise ExistsError(
            f"{ip} of VNI {vni} is an endpoint of another host",
            holder=str(ip),
            hint="give another address, or delete that entry of agent.endpoints",
        )


def refuse_outside(spec: GatewaySpec, there: Mapping[IPNetwork, Network]) -> None:
    """Raises ``InvalidValueError`` if a published port leads out of the VNI's prefixes, or to the gateway itself."""
    within = prefixes(spec.ip, there)
    for each in spec.publish:
        if not any(_contains(prefix, each.ip) for prefix in within):
            raise InvalidValueError(
                f"{each} leads to {each.ip}, which is in none of the prefixes of VNI {spec.vni}: "
                f"{', '.join(map(str, within))}",
                argument="publish",
                value=each,
            )
        if each.ip in {address.ip for address in spec.ip}:
            raise InvalidValueError(
                f"{each} leads to {each.ip}, which is the gateway itself", argument="publish", value=each
            )


def refuse_taken_ports(
    host: Host, ways: Iterable[Way], wanted: Iterable[Publish], *, port: int, tunnel: str
) -> None:
    """Raises if a port that is to be published is taken.

    Args:
        host: Host that publishes it.
        ways: The other gateways of the host.
        wanted: The ports, which are not published by the gateway yet.
        port: UDP port of the tunnel.
        tunnel: Name of the tunnel.

    Raises:
        ExistsError: Another gateway, a socket of the host or the tunnel has one of them.
        InvalidValueError: It is the port of other tunnels.
    """
    publishers = {each.key: way for way in ways for each in way.publish}
    closed = ruleset.tunnel_ports({port, *rules.tunnel_ports(host)})
    for each in wanted:
        if each.protocol == "udp" and each.port == port:
            raise ExistsError(f"{each} is the port of {tunnel}", holder=tunnel, hint="publish another port")
        if each.protocol == "udp" and each.port in closed:
            raise InvalidValueError(
                f"{each} is a port of tunnels, which nothing of a tenant may use",
                argument="publish",
                value=each,
                hint="publish another port",
            )
        other = publishers.get(each.key)
        if other is not None:
            raise ExistsError(
                f"{each} is published by the gateway of VNI {other.note.vni}",
                holder=f"gateway of VNI {other.note.vni}",
                hint="publish another port",
            )
        if each.port in waiting_ports(host, each.protocol):
            raise ExistsError(
                f"a socket of this host has {each}",
                holder=str(each),
                hint=f"publish another port, or stop that service (ss -lnp sport = :{each.port})",
            )


def refuse_closed_targets(host: Host, wanted: Iterable[Publish], *, port: int) -> None:
    """Raises ``InvalidValueError`` if a published port leads to one of tunnels: its answers would be dropped.

    Args:
        host: Host that publishes it.
        wanted: The ports.
        port: UDP port of the tunnel.
    """
    closed = ruleset.tunnel_ports({port, *rules.tunnel_ports(host)})
    for each in wanted:
        if each.protocol == "udp" and each.to_port in closed:
            raise InvalidValueError(
                f"{each} leads to port {each.to_port}, which is one of tunnels: nothing leaves from there",
                argument="publish",
                value=each,
                hint="let the service wait at another port",
            )


def refuse_routed(host: Host, wanted: Iterable[IPNetwork], vni: int, *, but: int | None = None) -> None:
    """Raises ``ExistsError`` if the host has routes to prefixes of a VNI, which it shall reach by the gateway.

    Args:
        host: The host.
        wanted: The prefixes.
        vni: VNI that they are of.
        but: Index of a device whose routes do not count; None: all do.
    """
    own = [] if but is None else [route.destination for route in list_routes(host, ifindex=but)]
    there = [route.destination for route in list_routes(host) if route.prefix_length]
    there = [each for each in there if each not in own]
    for prefix in wanted:
        for other in there:
            if prefix.version == other.version and prefix.overlaps(other):
                raise ExistsError(
                    f"this host has a route to {other}, where {prefix} of VNI {vni} would be",
                    holder=str(other),
                    hint="without translation the host must reach the VNI by its addresses: give nat=True",
                )


def refuse_unforwarded(host: Host, spec: GatewaySpec, egress: Link, note: Note) -> None:
    """Raises ``UnsupportedError`` if what comes in by an egress device cannot be forwarded.

    Args:
        host: The host.
        spec: What the gateway shall be.
        egress: Device that it leads to.
        note: Its note.
    """
    for version in spec.versions:
        forwarding.needed_by_router(host, egress.name, version, whole=spec.forward_all_ipv6)
    if 6 not in spec.versions or not forwarding.takes_whole_host(host, egress.name):
        return
    whole = whole_host.survey(host)
    if not attrs.evolve(note, whole=whole).fits:
        count = len(whole.advertised | whole.routers)
        raise UnsupportedError(
            f"{count} devices of this host live on router advertisements, or forward IPv6: too many to be put back",
            feature="force_forwarding",
            hint="turn it on for the host: net.ipv6.conf.all.forwarding=1, after accept_ra=2 on each device that has "
            "its addresses from advertisements",
        )


def free_number(host: Host) -> int:
    """Number for another gateway, whose addresses nobody has; raises ``CapacityError``."""
    used = {each.note.number for each in gateway_notes.read_all(host)}
    links = gateway_notes.LINKS
    for address in (each.interface for each in list_addresses(host)):
        prefix = links[address.version]
        if address.ip in prefix:
            used.add((int(address.ip) - int(prefix.network_address)) // 2)
    number = next((each for each in range(gateway_notes.MOST) if each not in used), None)
    if number is None:
        raise CapacityError(
            f"this host has {gateway_notes.MOST} gateways, and room for no more",
            table="gateways",
            capacity=gateway_notes.MOST,
            used=gateway_notes.MOST,
        )
    return number


def _contains(prefix: IPNetwork, ip: IPAddress) -> bool:
    return prefix.version == ip.version and ip in prefix
