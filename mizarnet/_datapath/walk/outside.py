# SPDX-License-Identifier: Apache-2.0
"""The way out of a VNI by a gateway of this host, behind the gateway's own namespace."""

from __future__ import annotations

import attrs

from mizarnet._datapath.checks import gateway_findings, rules_findings
from mizarnet._datapath.gateway_notes import Noted
from mizarnet._datapath.gateways import Gateways, rules, ruleset
from mizarnet._datapath.walk.firewall import Packet, pass_through
from mizarnet._datapath.walk.inside import Inside
from mizarnet._datapath.walk.trail import Trail
from mizarnet._kernel.netlink import Way, get_link, look_up_ways
from mizarnet._model import codec
from mizarnet._model.arguments import IPAddress
from mizarnet._model.finding import FindingKind, Severity, worst_first

_HOOKS = ("prerouting", "forward", "postrouting")
_WITH_PORTS = {6: "tcp", 17: "udp"}
_SOURCE = {4: slice(12, 16), 6: slice(8, 24)}
"""Where the source address stands in a packet, by the version of IP."""


def leave(inside: Inside, destination: IPAddress, packet: bytes) -> None:
    """What the host does with a packet that a gateway sends out; nothing if the endpoint is no gateway's.

    Args:
        inside: The endpoint that forwards.
        destination: Where the packet goes to.
        packet: The packet, from its IP header on.
    """
    trail = inside.trail
    gateways = Gateways.of(trail.datapath)
    key = codec.record_key(inside.name)
    noted = next((each for each in gateways.all() if each.note.key == key), None)
    if noted is None:
        return
    found = worst_first([*gateway_findings(gateways, noted), *rules_findings(trail.host)])
    for each in found:
        is_off = each.kind is FindingKind.FORWARDING_OFF and each.found == destination.version
        if is_off or each.severity in (Severity.CRITICAL, Severity.ERROR):
            trail.end("gateway", f"{each.object}: {each.text}", remedy=each.message.partition("; ")[2])
    remarks = "; ".join(each.text for each in found)
    _refuse_tunnel_port(trail, noted, packet)
    way = look_up_ways(trail.host, [destination], source=None, port=0)[destination]
    if way is None:
        trail.end("gateway", f"the host has no route to {destination}", remedy="add a route on the host")
    translated = bytearray(packet)
    translated[_SOURCE[destination.version]] = noted.note.address(destination.version, inside=True).ip.packed
    passing = Packet(bytes(translated), into=noted.link.name)
    if way.local:
        _to_host(trail, noted, destination, passing)
        return
    egress = _by_egress(trail, noted, destination, way)
    trail.note("gateway", f"the host sends it on by {egress}", remark=remarks)
    pass_through(trail, trail.host, attrs.evolve(passing, out=egress), _HOOKS, "the host")


def _refuse_tunnel_port(trail: Trail, noted: Noted, packet: bytes) -> None:
    """A datagram for a tunnel would be a frame of any VNI."""
    protocol, port = _service(Packet(packet))
    if protocol == "udp" and port in ruleset.tunnel_ports({noted.note.port, *rules.tunnel_ports(trail.host)}):
        text = f"no gateway lets out what is for UDP port {port}, which is a tunnel's"
        trail.end("gateway", text, remedy="use another port")


def _to_host(trail: Trail, noted: Noted, destination: IPAddress, packet: Packet) -> None:
    """What becomes of a packet for an address of the host itself."""
    protocol, port = _service(packet)
    published = (each for way in rules.ways(trail.host) for each in way.publish)
    if any(
        (each.protocol, each.port, each.ip.version) == (protocol, port, packet.version) for each in published
    ):
        trail.unknown("gateway", f"{protocol} port {port} is published: where it leads to is not looked at")
        return
    if not noted.note.host_access:
        text = f"{destination} is an address of the host, and the gateway lets nothing in to it"
        trail.end("gateway", text, remedy="gateway.update(host_access=True)")
    trail.note("gateway", f"{destination} is an address of the host, which the gateway lets in to")
    pass_through(trail, trail.host, packet, ("prerouting", "input"), "the host")


def _service(packet: Packet) -> tuple[str, int]:
    """Protocol and destination port of a packet; empty and 0 of one without ports."""
    name = _WITH_PORTS.get(packet.protocol, "")
    return name, int.from_bytes(packet.payload[2:4], "big") if name else 0


def _by_egress(trail: Trail, noted: Noted, destination: IPAddress, way: Way) -> str:
    """Name of the egress device, by which the host's routes must lead; else what leaves is dropped."""
    link, egress = get_link(trail.host, ifindex=way.ifindex), get_link(trail.host, ifindex=noted.note.egress)
    name = egress.name if egress else f"device {noted.note.egress}"
    if way.ifindex != noted.note.egress:
        other = link.name if link else f"device {way.ifindex}"
        text = (
            f"the host's route to {destination} leaves by {other}, and the gateway lets out by {name} alone"
        )
        trail.end("gateway", text, remedy=f"ip route get {destination}; correct the route, or give egress=")
    return name
