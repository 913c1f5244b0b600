# SPDX-License-Identifier: Apache-2.0
"""What must be so below the tunnel, for its packets to reach other hosts and theirs to reach it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from ipaddress import ip_network

import attrs

from mizarnet._datapath.datapath import DataPath
from mizarnet._datapath.maps import Maps
from mizarnet._datapath.tunnel_device import TunnelDevice
from mizarnet._kernel.netlink import (
    Link,
    Session,
    Way,
    get_link,
    list_addresses,
    list_neighbours,
    look_up_ways,
    neighbour_tables,
)
from mizarnet._model import codec
from mizarnet._model.arguments import IPAddress
from mizarnet._model.finding import Finding, FindingKind, Subject

NEARLY = 0.9
"""Share of a table from which on it counts as nearly full."""


def underlay_findings(device: TunnelDevice) -> Iterator[Finding]:
    """Findings about the underlay of a tunnel, whatever the other hosts are; few messages to the kernel."""
    link = device.find_underlay()
    if link is None:
        text = f"the device that {device.name} leaves by is gone"
        remedy = "bring it back, or give tunnel.update(underlay=) another one"
        yield _of_underlay(device, FindingKind.UNDERLAY_GONE, device.underlay, None, text, remedy)
    else:
        yield from _of_device(device, link)
    yield from _own_address(device)
    yield from neighbour_findings(device.host)


def _of_device(device: TunnelDevice, link: Link) -> Iterator[Finding]:
    if is_cut_off(device, link):
        text = "it is up, and has no carrier" if link.up else "it is down"
        remedy = "look at the cable, or at the other end" if link.up else f"ip link set {link.name} up"
        found = "no carrier" if link.up else "down"
        yield _of_underlay(device, FindingKind.UNDERLAY_DOWN, "up", found, text, remedy)
    needed = _outer_mtu(device)
    if link.mtu < needed:
        text = f"its MTU is {link.mtu}, and full packets of {device.name} have {needed} bytes"
        remedy = f"ip link set {link.name} mtu {needed}, or tunnel.update(mtu=None) lowers the tunnel's"
        yield _of_underlay(device, FindingKind.UNDERLAY_MTU, needed, link.mtu, text, remedy)


def is_cut_off(device: TunnelDevice, link: Link | None) -> bool:
    """Whether the underlay is gone or down, and the tunnel's address with it: else packets may take another device."""
    if link is not None and link.up and link.has_carrier:
        return False
    own = [each for each in list_addresses(device.host) if each.interface.ip == device.local]
    return link is None or any(each.ifindex == link.ifindex for each in own)


def _own_address(device: TunnelDevice) -> Iterator[Finding]:
    own = [each for each in list_addresses(device.host) if each.interface.ip == device.local]
    if any(not each.failed and not each.tentative for each in own):
        return
    if own:
        found = "refused" if own[0].failed else "tentative"
        text = f"this host cannot use {device.local}: duplicate address detection has {found} it"
        remedy = "find the other host that has it"
    else:
        found = None
        text = f"this host no longer has {device.local}, which its packets come from"
        remedy = (
            f"ip address add {device.local} dev {device.underlay}, or tunnel.update(local=) takes another"
        )
    yield device.finding(FindingKind.UNDERLAY_ADDRESS, str(device.local), found, text, remedy)


def neighbour_findings(session: Session) -> Iterator[Finding]:
    """A finding for each of the kernel's tables of neighbours that is nearly full."""
    for table in neighbour_tables(session):
        used = table.entries
        if used >= NEARLY * table.limit:
            lasting = [each for each in list_neighbours(session) if each.lasting]
            used -= sum(each.ip.version == table.version for each in lasting)
        if used >= NEARLY * table.limit:
            name = f"net.ipv{table.version}.neigh.default.gc_thresh3"
            yield Finding(
                FindingKind.NEIGHBOURS_FULL,
                Subject("kernel", name),
                f"fewer than {table.limit}",
                used,
                f"all namespaces together know {used} neighbours of IPv{table.version}, and the kernel "
                f"keeps {table.limit}: packets to further ones are lost",
                f"sysctl -w {name}={4 * table.limit} in the initial namespace, gc_thresh2 too",
            )


# -- other hosts -----------------------------------------------------------------------------------------


@attrs.frozen
class Hosts:
    """The other hosts that the tables name.

    Attributes:
        homes: Hosts that entries of ``endpoints`` lead to.
        switches: Transit switches of networks, of which this host may be one.
    """

    homes: frozenset[IPAddress]
    switches: frozenset[IPAddress]

    @classmethod
    def read(cls, maps: Maps, endpoints: Collection[bytes]) -> Hosts:
        """Read them; ``endpoints`` are the packed values of that map."""
        switches = [
            each for _, value in maps.networks.items() for each in codec.unpack_network(value).switches
        ]
        return cls(frozenset(codec.remote_hosts(endpoints)), frozenset(switches))


def host_findings(device: TunnelDevice, datapath: DataPath, hosts: Hosts) -> Iterator[Finding]:
    """Findings about the ways to other hosts, and from them."""
    own = {each.interface.ip for each in list_addresses(device.host)}
    others = sorted((hosts.homes | hosts.switches) - own)
    source = device.local if device.local in own else None
    ways = look_up_ways(device.host, others, source=source, port=device.port)
    for host in sorted(hosts.homes):
        way = ways.get(host)
        if host in own or (way is not None and way.local):
            yield _leads_here(datapath, host)
    # Without an underlay, or an address, that is finding enough.
    if source is not None and not is_cut_off(device, device.find_underlay()):
        for host in others:
            if ways[host] is None:
                text = "this host has no route to it"
                remedy = f"ip route get {host} from {device.local}; add a route"
                yield _of_host(datapath, FindingKind.NO_ROUTE, host, "a route", None, text, remedy)
    peers = datapath.maps.peers
    for host in others:
        if peers.lookup(codec.pack_peer_key(ip_network(host))) is None:
            text = "entries lead to it, and no peer prefix contains it, so what it sends is dropped"
            remedy = f'agent.peers.add("{host}"), or the prefix of all hosts'
            yield _of_host(datapath, FindingKind.PEER_MISSING, host, str(host), None, text, remedy)
    yield from _of_ways(device, datapath, {host: way for host, way in ways.items() if way and not way.local})


_LATELY = 30.0
"""Time in seconds after which a neighbour that did not answer may be back: the kernel asks when somebody sends."""


def _of_ways(device: TunnelDevice, datapath: DataPath, ways: Mapping[IPAddress, Way]) -> Iterator[Finding]:
    """Findings about next hops that do not answer, and routes that take too little."""
    links = {
        ifindex: get_link(device.host, ifindex=ifindex) for ifindex in {way.ifindex for way in ways.values()}
    }
    failed = {
        (ifindex, neighbour.ip)
        for ifindex in links
        for neighbour in list_neighbours(device.host, ifindex)
        if neighbour.failed and neighbour.age < _LATELY
    }
    needed = _outer_mtu(device)
    for host, way in ways.items():
        link, hop = links[way.ifindex], way.gateway or host
        if link is not None and (way.ifindex, hop) in failed:
            text = f"{'it' if hop == host else f'its next hop {hop}'} does not answer on {link.name}"
            remedy = f"see whether that host is up: ip neighbour show {hop}"
            yield _of_host(datapath, FindingKind.NEIGHBOUR_FAILED, host, "reachable", "failed", text, remedy)
        mtu = way.mtu or (needed if link is None or way.ifindex == device.underlay_ifindex else link.mtu)
        if mtu < needed:
            text = f"the route to it takes {mtu} bytes, and full packets of {device.name} have {needed}"
            remedy = "raise the MTU on the way"
            yield _of_host(datapath, FindingKind.UNDERLAY_MTU, host, needed, mtu, text, remedy)


def _outer_mtu(device: TunnelDevice) -> int:
    """Size of the largest packets that the tunnel sends, in bytes."""
    link = device.find()
    return (device.mtu if link is None else link.mtu) + device.encap.overhead(device.local.version)


def _leads_here(datapath: DataPath, host: IPAddress) -> Finding:
    text = "entries lead to it, and it is an address of this host"
    remedy = "give the entries the tunnel's address of the host that the endpoint lives on"
    return _of_host(datapath, FindingKind.LEADS_HERE, host, "another host", "this host", text, remedy)


def _of_underlay(
    device: TunnelDevice, kind: FindingKind, wanted: object, found: object, text: str, remedy: str
) -> Finding:
    subject = Subject("underlay", device.underlay)
    return Finding(kind, subject, wanted, found, text, remedy, device.name, device.ifindex)


def _of_host(
    datapath: DataPath,
    kind: FindingKind,
    host: IPAddress,
    wanted: object,
    found: object,
    text: str,
    remedy: str,
) -> Finding:
    subject = Subject("host", str(host))
    return Finding(kind, subject, wanted, found, text, remedy, datapath.name, datapath.meta_id)
