# SPDX-License-Identifier: Apache-2.0
"""A next hop: an endpoint that sends on what is for others."""

from __future__ import annotations

from mizarnet._datapath.self_test import packets
from mizarnet._datapath.walk import hints, outside
from mizarnet._datapath.walk.firewall import Packet, pass_through
from mizarnet._datapath.walk.flow import Flow, addresses_in
from mizarnet._datapath.walk.inside import Inside
from mizarnet._datapath.walk.programs import run_agent
from mizarnet._kernel.netlink import Link, Way, get_link, look_up_ways
from mizarnet._model.arguments import IPAddress
from mizarnet._model.question import Upper

_ETHERNET = 14
_TCP = 6
_HOPS = {4: 8, 6: 7}
"""Where TTL or hop limit stands in a packet, by the version of IP."""
_DONT_FRAGMENT = 0x40  # in byte 6 of IPv4


def send_on(inside: Inside, frame: bytes, *, is_given: bool) -> None:
    """What a next hop does with a frame that is for another.

    Args:
        inside: The endpoint.
        frame: The frame.
        is_given: Whether the caller gave the frame: else its sender's stack chooses whether it may be fragmented.
    """
    found = addresses_in(frame)
    if inside.session is None or found is None:
        return
    trail, packet, destination = inside.trail, frame[_ETHERNET:], found.destination
    way = look_up_ways(inside.session, [destination], source=None, port=0)[destination]
    is_own = way is not None and way.local
    if not is_own:
        _expect_forwarding(inside, destination)
    if way is None:
        text = f"{inside.name} is the next hop, and has no route to {destination} in {inside.where}"
        trail.end("router", text, remedy="add a route there")
    link = get_link(inside.session, ifindex=way.ifindex)
    name = link.name if link else f"device {way.ifindex}"
    if not is_own and (link is None or not link.up or not link.has_carrier):
        text = f"{inside.name} is the next hop, and {name}, by which it sends on, is down or without carrier"
        trail.end("router", text, remedy=f"ip link set {name} up in {inside.where}, or look at its other end")
    remark = "" if is_own or link is None else _limits(inside, packet, way, link, is_given=is_given)
    trail.note(
        "router", f"{inside.name} sends it on {'to itself' if is_own else f'by {name}'}", remark=remark
    )
    hooks = ("prerouting", "input") if is_own else ("prerouting", "forward", "postrouting")
    passing = Packet(packet, into=inside.link.name, out="" if is_own else name)
    pass_through(trail, inside.session, passing, hooks, inside.where)
    if not is_own and way.ifindex == inside.link.ifindex:
        _send_back(inside, packet, way.gateway or destination)
    outside.leave(inside, destination, packet)


def _expect_forwarding(inside: Inside, destination: IPAddress) -> None:
    """Whether the namespace forwards; if not, the way ends."""
    version, device = destination.version, inside.link.name
    if inside.forwards(version) is not False:
        return
    key = f"net.ipv4.conf.{device}.forwarding" if version == 4 else "net.ipv6.conf.all.forwarding"
    remedy = f"sysctl -w {key}=1 there"
    if version == 6:
        remedy += f", or from Linux 6.17 on net.ipv6.conf.{device}.force_forwarding=1"
    text = f"{inside.name} is the next hop for {destination}, and {inside.where} does not forward: {key} is 0"
    inside.trail.end("router", text, remedy=remedy)


def _limits(inside: Inside, packet: bytes, way: Way, link: Link, *, is_given: bool) -> str:
    """A remark about the length of a packet that is sent on; one that is too long, or has no hop left, ends its way."""
    trail, seen = inside.trail, Packet(packet)
    if packet[_HOPS[seen.version]] <= 1:
        text = f"{inside.name} is the next hop, and the hops of the packet are used up"
        trail.end("router", text, remedy="send it with a larger TTL")
    # A packet of TCP that is longer than its sender's device takes stands for segments that are not.
    length = min(len(packet), inside.link.mtu) if seen.protocol == _TCP else len(packet)
    takes = min(way.mtu or link.mtu, link.mtu)
    if length <= takes:
        return ""
    text = f"{link.name}, by which {inside.name} sends on, takes {takes} bytes, and the packet has {length}"
    remedy = f"ip link set {link.name} mtu {length} in {inside.where}, or send shorter packets"
    is_whole = seen.version == 6 or bool(packet[6] & _DONT_FRAGMENT)
    if is_whole and length > link.mtu:
        trail.end("router", text, remedy=remedy)
    if is_whole:  # what the kernel learnt of a way does not hold for what it forwards, and may stand there
        trail.unknown("router", f"{text}: dropped, if that is the MTU of the route itself")
        return ""
    if not is_given:
        text = f"{text}: sent in fragments, or dropped if these are not allowed"
        trail.unknown("router", text, remedy=remedy)
        return ""
    return f"{text}: sent in fragments"


def _send_back(inside: Inside, packet: bytes, hop: IPAddress) -> None:
    """A packet that a next hop sends back into its VNI: the agent judges it like all that leaves by its device."""
    spec, at = inside.record.spec, _HOPS[packet[0] >> 4]
    own = [each.ip for each in spec.ip if each.version == hop.version]
    mac = inside.known_neighbour(hop)
    if mac is None and own:
        mac = inside.ask(Flow(spec.vni, own[0], hop, Upper.UDP, 0, len(packet)), hop)
    passed = packet[:at] + bytes([packet[at] - 1]) + packet[at + 1 :]
    frame = packets.ethernet(mac or bytes(6), inside.sender.mac, passed)
    outcome = run_agent(inside.trail, inside.sender, frame)
    back = f"{inside.name} sends it back by {inside.link.name}, which it came in by"
    if outcome.verdict.dropped:
        text, _ = hints.of_agent(inside.trail, outcome.verdict, frame, inside.record, inside.sender.mac)
        remedy = f"add a route in {inside.where} to what is behind {inside.name}"
        inside.trail.end("agent", f"{back}: {text}", verdict=outcome.verdict, remedy=remedy)
    inside.trail.unknown("agent", f"{back}: {outcome.verdict.name.lower()}, and not looked at further")
