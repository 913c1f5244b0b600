# SPDX-License-Identifier: Apache-2.0
"""The way out of a VNI by a gateway of this host, behind the gateway's own namespace."""

from __future__ import annotations

from mizarnet._datapath.checks.gateways import gateway_findings, rules_findings
from mizarnet._datapath.gateway_notes import Noted
from mizarnet._datapath.gateways import Gateways
from mizarnet._datapath.walk.firewall import Packet, pass_through
from mizarnet._datapath.walk.inside import Inside
from mizarnet._kernel.netlink import get_link, look_up_ways
from mizarnet._model import codec
from mizarnet._model.arguments import IPAddress
from mizarnet._model.finding import FindingKind, Severity, worst_first

_HOOKS = ("prerouting", "forward", "postrouting")
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
    egress = _by_egress(inside, noted, destination)
    remarks = "; ".join(each.text for each in found)
    trail.note("gateway", f"the host sends it on by {egress}", remark=remarks)
    translated = bytearray(packet)
    translated[_SOURCE[destination.version]] = noted.note.address(destination.version, inside=True).ip.packed
    passing = Packet(bytes(translated), into=noted.link.name, out=egress)
    pass_through(trail, trail.host, passing, _HOOKS, "the host")


def _by_egress(inside: Inside, noted: Noted, destination: IPAddress) -> str:
    """Name of the egress device, by which the host's routes must lead; else what leaves is dropped."""
    trail = inside.trail
    way = look_up_ways(trail.host, [destination], source=None, port=0)[destination]
    if way is None:
        trail.end("gateway", f"the host has no route to {destination}", remedy="add a route on the host")
    link, egress = get_link(trail.host, ifindex=way.ifindex), get_link(trail.host, ifindex=noted.note.egress)
    name = egress.name if egress else f"device {noted.note.egress}"
    if way.ifindex != noted.note.egress and not way.local:
        other = link.name if link else f"device {way.ifindex}"
        text = (
            f"the host's route to {destination} leaves by {other}, and the gateway lets out by {name} alone"
        )
        trail.end("gateway", text, remedy=f"ip route get {destination}; correct the route, or give egress=")
    return name
