# SPDX-License-Identifier: Apache-2.0
"""From one host to another, below the tunnel."""

from __future__ import annotations

import attrs

from mizarnet._datapath.checks import is_cut_off, neighbour_findings
from mizarnet._datapath.host import Host
from mizarnet._datapath.self_test import packets
from mizarnet._datapath.walk.firewall import Packet, pass_through
from mizarnet._datapath.walk.trail import Trail
from mizarnet._kernel.netlink import (
    Link,
    Neighbour,
    Way,
    get_link,
    list_addresses,
    list_neighbours,
    look_up_ways,
)
from mizarnet._model.arguments import IPAddress
from mizarnet._model.explanation import Crossing

_SOURCE_PORT = range(2)
"""Where a UDP header has its source port, which is the hash of a flow."""
_LATELY = 30.0
"""Time in seconds after which a neighbour that did not answer may be back: the kernel asks when somebody sends."""


@attrs.frozen
class _Hop:
    """The neighbour that a packet is sent to.

    Attributes:
        text: What is known of it.
        mac: Its MAC address; None: not known.
    """

    text: str
    mac: str | None


@attrs.frozen
class Load:
    """An encapsulated frame.

    Attributes:
        vni: VNI of the packet.
        frame: The inner frame.
        length: Bytes of the inner IP packet, or of each of its segments.
        ttl: TTL or hop limit of the outer packet.
        answered: Whether an answer of that length is waited for.
    """

    vni: int
    frame: bytes
    length: int
    ttl: int = 64
    answered: bool = False


def send(trail: Trail, host: IPAddress, load: Load) -> None:
    """What the kernel does with an encapsulated frame; notes it as having left for ``host``."""
    device = trail.device
    _own_side(trail, host)
    way = look_up_ways(trail.host, [host], source=device.local, port=device.port)[host]
    if way is None:
        remedy = f"ip route get {host} from {device.local}; add a route"
        trail.end("underlay", f"no route to {host}", remedy=remedy)
    link = get_link(trail.host, ifindex=way.ifindex)
    if way.ifindex == device.ifindex:
        text = f"the route to {host} leads into {device.name} itself, which drops its own packets"
        trail.end("underlay", text, remedy=f"ip route get {host}; take that route away")
    if link is None or not link.up or not link.has_carrier:
        name = link.name if link else f"device {way.ifindex}"
        text = f"{name}, which leads to {host}, is down or without carrier"
        trail.end("underlay", text, remedy=f"ip link set {name} up")
    hop = _neighbour(trail, way, link, host)
    outer = load.length + device.encap.overhead(host.version)
    remark, remedy = _length(trail, way, link, outer, load)
    takes = way.mtu or link.mtu
    text = f"via {way.gateway or link.name}, mtu {takes} {'takes' if outer <= takes else 'does not take'} {outer}"
    # Of one that is known by now it does not matter how many others there are.
    crowded = "" if hop.mac else "; ".join(each.text for each in neighbour_findings(trail.host))
    trail.note("underlay", f"{text}, {hop.text}", remark=remark or crowded, remedy=remedy)
    crossing = Crossing(
        encap=device.encap.value,
        port=device.port,
        source=device.local,
        destination=host,
        vni=load.vni,
        length=outer,
        ttl=load.ttl,
        macs=() if way.gateway or hop.mac is None else (hop.mac,),
        frame=load.frame.hex(),
    )
    leaving = outer_packet(crossing, out=link.name)
    pass_through(trail, trail.host, leaving, ("output", "postrouting"), "the host")
    trail.left = crossing


def outer_packet(crossing: Crossing, *, into: str = "", out: str = "") -> Packet:
    """The beginning of a tunnel packet, as a host's firewall sees it."""
    packet = packets.ip(
        crossing.source,
        crossing.destination,
        packets.udp(0, crossing.port, bytes(8)),
        hops=crossing.ttl,
    )
    return Packet(packet, into, out, unknown=_SOURCE_PORT)


def _length(trail: Trail, way: Way, link: Link, outer: int, load: Load) -> tuple[str, str]:
    """A remark about the length of an outer packet, and its remedy.

    The kernel makes fragments of a tunnel packet that is too long for IPv4, and drops it for IPv6. A device that takes
    less than the tunnel needs does not let the other host's packets in, either.
    """
    takes, remedy = (
        way.mtu or link.mtu,
        f"ip link set {link.name} mtu {outer}, or a tunnel with a smaller mtu=",
    )
    if outer <= takes:
        return "", ""
    if trail.datapath.local.version == 6:
        text = f"mtu {takes} of {link.name} does not take {outer}, and over IPv6 the kernel makes no fragments of it"
        trail.end("underlay", text, remedy=remedy)
    if load.answered and outer > link.mtu:
        text = f"mtu {link.mtu} of {link.name} does not take {outer}: sent in fragments, and no answer so long comes in"
        trail.end("underlay", text, remedy=remedy)
    return f"{outer} bytes do not fit {takes}: sent in fragments, which not every way lets through", remedy


def _own_side(trail: Trail, host: IPAddress) -> None:
    """What must be so whatever the other host is."""
    device = trail.device
    own_link(trail)
    own = [each for each in list_addresses(trail.host) if each.interface.ip in (device.local, host)]
    if any(each.interface.ip == host for each in own):
        text = f"{host} is an address of this host, so its packets do not leave it"
        trail.end(
            "underlay", text, remedy="agent.endpoints.update() with the address of the other host's tunnel"
        )
    if all(each.failed or each.tentative for each in own):
        remedy = f"ip address add {device.local} dev {device.underlay}"
        trail.end(
            "underlay", f"this host cannot use {device.local}, which its packets come from", remedy=remedy
        )


def own_link(trail: Trail) -> Link:
    """The underlay's device. If it is down, and the tunnel's address with it, the way ends."""
    device = trail.device
    link = device.find_underlay()
    if link is None:
        state, remedy = "is gone", "bring it back"
    elif not is_cut_off(device, link):
        return link
    elif link.up:
        state, remedy = "has no carrier", "look at the cable, or at the other end"
    else:
        state, remedy = "is down", f"ip link set {link.name} up"
    trail.end("underlay", f"{device.underlay} {state}", remedy=remedy)


def _neighbour(trail: Trail, way: Way, link: Link, host: IPAddress) -> _Hop:
    ip = way.gateway or host
    found = next((each for each in list_neighbours(trail.host, link.ifindex) if each.ip == ip), None)
    if found is None:
        return _Hop(f"neighbour {ip} is asked for when something is sent", None)
    if _is_silent(found):
        text = f"neighbour {ip} does not answer on {link.name}"
        trail.end("underlay", text, remedy=f"see whether that host is up, and whether {host} is right")
    if found.mac is None:
        return _Hop(f"neighbour {ip} did not answer {found.age:.0f} s ago, and is asked again", None)
    return _Hop(f"neighbour {ip} is {found.mac}", found.mac)


def _is_silent(found: Neighbour) -> bool:
    """Whether it was asked just now, and did not answer, or has not yet."""
    return found.mac is None and not (found.failed and found.age >= _LATELY)


def macs_of(host: Host, ip: IPAddress) -> tuple[str, ...]:
    """MAC addresses of the devices of a host that have an address."""
    indexes = {each.ifindex for each in list_addresses(host) if each.interface.ip == ip}
    links = (get_link(host, ifindex=ifindex) for ifindex in indexes)
    return tuple(sorted(link.mac for link in links if link is not None and link.mac is not None))
