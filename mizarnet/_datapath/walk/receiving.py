# SPDX-License-Identifier: Apache-2.0
"""The half of a packet's way on the host of its receiver, and what an answer would meet there."""

from __future__ import annotations

import attrs

from mizarnet._datapath import shortcuts
from mizarnet._datapath.walk import hints, programs, router, sources, underlay
from mizarnet._datapath.walk.firewall import ESTABLISHED, Packet, pass_through
from mizarnet._datapath.walk.flow import Flow, addresses_in
from mizarnet._datapath.walk.inside import Inside, entered
from mizarnet._datapath.walk.sources import Coming
from mizarnet._datapath.walk.trail import Ended, Trail
from mizarnet._kernel.netlink import Link, list_addresses, look_up_ways, waiting_sockets
from mizarnet._model.arguments import IPAddress
from mizarnet._model.enumerations import Verdict
from mizarnet._model.explanation import Crossing
from mizarnet._model.question import Upper

_ETHERNET = 14
_BOUNCED_TTL = 8


def arrive(trail: Trail, crossing: Crossing, flow: Flow | None) -> None:
    """A packet that comes from another host.

    Args:
        trail: Way of the packet.
        crossing: The packet as that host sent it.
        flow: What it carries, if that was asked for; else the frame says it.
    """
    programs.tunnel(trail)
    device = trail.device
    trail.arrived = attrs.evolve(
        crossing,
        encap=device.encap.value,
        port=device.port,
        destination=trail.datapath.local,
        length=0,
        macs=underlay.macs_of(trail.host, crossing.destination),
    )
    outcome, looped = programs.judged_by_guard(trail, crossing), programs.has_own_mac(trail, crossing)
    shortened = not looped and programs.may_take_shortcut(trail, crossing, outcome)
    link = underlay.own_link(trail)
    is_switched = outcome.verdict is Verdict.BOUNCED and trail.datapath.maps.read_switching().ifindex
    if not _come_in(trail, crossing, link, shortened=shortened):
        go_up = _perhaps_go_up if is_switched else _go_up
        go_up(trail, crossing, link, looped=looped)
    programs.guard(trail, crossing, outcome)
    frame = outcome.frame or b""
    if outcome.verdict is Verdict.BOUNCED:
        inner = crossing.length - device.encap.overhead(crossing.source.version)
        ttl = min(crossing.ttl - 1, _BOUNCED_TTL)
        underlay.send(
            trail, programs.host_of(outcome.asked.key), underlay.Load(crossing.vni, frame, inner, ttl)
        )
        return
    # From one that only sent it on no answer is taken by.
    receive(trail, crossing.vni, frame, flow, crossing.source if crossing.ttl > _BOUNCED_TTL else None)


def _come_in(trail: Trail, crossing: Crossing, link: Link, *, shortened: bool) -> bool:
    """Whether the packet goes past the host's stack; ``shortened``: the shortcut would take it."""
    if not link.up or not link.has_carrier:
        text = f"{link.name} is down or without carrier: by which other device it comes in is not known here"
        trail.unknown("underlay", text, remedy=f"ip link set {link.name} up, or look at its other end")
        return False
    is_long = crossing.length > link.mtu
    remark = "longer than that: whether it comes in is up to the device, and to the way" if is_long else ""
    remedy = (
        f"ip link set {link.name} mtu {crossing.length}, or a smaller mtu= of the tunnels" if is_long else ""
    )
    # What is longer than its device takes comes in fragments, which are the kernel's to put together.
    shortcut = shortened and not is_long and shortcuts.look(trail.host, trail.datapath.maps, near=True).stands
    by = f"{link.name}, mtu {link.mtu}{', by the shortcut' if shortcut else ''}"
    trail.note("underlay", f"{crossing.length} bytes in by {by}", remark=remark, remedy=remedy)
    return shortcut


def _go_up(trail: Trail, crossing: Crossing, link: Link, *, looped: bool) -> None:
    """The host's stack, from the underlay's device to that of the tunnel; ``looped``: the frame has its MAC."""
    device, destination = trail.device, crossing.destination
    way = look_up_ways(trail.host, [destination], source=None, port=0)[destination]
    if way is None or not way.local:
        text = f"this host cannot use {destination}, which the packet is sent to"
        trail.end("underlay", text, remedy=f"ip address add {destination} dev {device.underlay}")
    own = list_addresses(trail.host, ifindex=link.ifindex)
    is_sure = any(each.interface.ip == destination for each in own)
    came = Coming(crossing.source, destination, link, "the host", "underlay", is_sure)
    sources.look_at(trail, trail.host, came)
    coming = underlay.outer_packet(crossing, into=link.name)
    pass_through(trail, trail.host, coming, ("prerouting", "input"), "the host")
    if looped:
        text = f"{device.name} drops a frame that comes from its own MAC, as if it had sent it itself"
        remedy = "make the endpoint that it comes from again, with another MAC: Endpoint.create(mac=)"
        trail.end("tunnel", text, remedy=remedy)


def _perhaps_go_up(trail: Trail, crossing: Crossing, link: Link, *, looped: bool) -> None:
    """The same on a transit switch: its program sends a packet on before the stack sees it, if it can."""
    aside = attrs.evolve(trail, steps=[])
    try:
        _go_up(aside, crossing, link, looped=looped)
    except Ended:
        end = aside.steps.pop()
        text = f"{end.matched}, unless the transit switch sends the packet on before"
        aside.unknown(end.looked_at, text, remedy=end.remedy)
    trail.steps += aside.steps


def receive(trail: Trail, vni: int, frame: bytes, flow: Flow | None, sent_by: IPAddress | None) -> None:
    """A frame on the tunnel's ingress, for the device that has its destination MAC.

    Args:
        trail: Way of the packet.
        vni: VNI of the packet.
        frame: The frame, as the guard lets it in.
        flow: What it carries, if that was asked for.
        sent_by: Host that it comes from; None: this one.
    """
    record, found = programs.receiver(trail, frame), addresses_in(frame)
    if record is None or found is None:
        text = f"no endpoint has the MAC {frame[:6].hex(':')}"
        trail.end("endpoint", text, remedy="Host.gc() removes entries without an endpoint")
    with entered(trail, record) as inside:
        inside.has_its_mac()
        inside.lets_in()
        own = {each.ip for each in record.spec.ip}
        is_forwarded = found.destination not in own and record.spec.forwarding
        if not is_forwarded:
            inside.address(found.destination)
        if inside.session is not None:
            to = None if is_forwarded else found.destination
            came = Coming(found.source, to, inside.link, inside.where, "source")
            sources.look_at(trail, inside.session, came)
        if is_forwarded:
            router.send_on(inside, frame, is_given=flow is None)
            if flow is not None:
                _answer(inside, attrs.evolve(flow, vni=vni).reply(), None)
            trail.unknown("router", "what is behind it is not looked at")
            return
        coming = Packet(frame[_ETHERNET:], into=inside.link.name)
        pass_through(trail, inside.session, coming, ("prerouting", "input"), inside.where)
        if flow is not None:
            _answer(inside, attrs.evolve(flow, vni=vni).reply(), sent_by)
            _look_for_socket(inside, flow)
        text = f"what the process in {inside.where} does with it is not looked at"
        trail.unknown("inside", text)


# -- the answer


def _answer(inside: Inside, reply: Flow, sent_by: IPAddress | None) -> None:
    """What an answer meets on this host. If nobody waits for one, what is in its way is a remark."""
    trail = inside.trail
    aside = Trail(trail.device, trail.datapath, trail.at)
    try:
        text = _way_back(attrs.evolve(inside, trail=aside), reply)
        trail.note("way back", text, remark=_remark(aside, sent_by))
        for each in aside.steps:
            if each.ok is None and each not in trail.steps:
                trail.unknown(each.looked_at, f"on the way back: {each.matched}", remedy=each.remedy)
    except Ended:
        end = aside.steps[-1]
        what = f"answers to {reply.destination} do not get there: {end.looked_at}: {end.matched}"
        if reply.wants_answer:
            trail.end("way back", what, verdict=end.verdict, remedy=end.remedy)
        trail.note("way back", f"to {reply.destination}", remark=what, remedy=end.remedy)


def _way_back(inside: Inside, reply: Flow) -> str:
    """The way of an answer, in words; raises ``Ended`` if it has none."""
    own = [each.ip for each in inside.record.spec.ip if each.version == reply.version]
    is_forwarded = reply.source not in own
    way = inside.way(reply, is_forwarded=is_forwarded)
    hop = reply.destination if way is None else way.gateway or reply.destination
    if way is not None and way.local:
        text = f"{reply.destination} is an address of {inside.where} itself"
        inside.trail.end(
            "route", text, remedy=f"ip route get {reply.destination}, there; take the address away"
        )
    asking = attrs.evolve(reply, source=own[0]) if is_forwarded and own else reply
    mac = inside.known_neighbour(hop) or inside.ask(asking, hop)
    frame = attrs.evolve(reply, size=min(reply.size, inside.link.mtu)).frame(by=inside.sender.mac, to=mac)
    if not is_forwarded:  # else it is translated by then, which nobody knows here
        leaving = Packet(frame[_ETHERNET:], out=inside.link.name, state=ESTABLISHED)
        pass_through(inside.trail, inside.session, leaving, ("output", "postrouting"), inside.where)
    outcome = programs.agent(inside.trail, inside.sender, frame)
    if outcome.verdict is not Verdict.ENCAPSULATED:
        return f"({reply.vni}, {reply.destination}): {outcome.verdict.name.lower()}"
    host = programs.host_of(outcome.asked.key)
    underlay.send(inside.trail, host, underlay.Load(reply.vni, frame, len(frame) - _ETHERNET))
    return f"{hints.entry(inside.trail, reply.vni, addresses_in(frame))} -> {host}"


def _remark(aside: Trail, sent_by: IPAddress | None) -> str:
    """What is not as it should be on the way of an answer that gets there."""
    found = [step.remark for step in aside.steps if step.remark]
    if sent_by is not None and aside.left is not None and aside.left.destination != sent_by:
        found.append(f"answers go to {aside.left.destination}, and not by {sent_by}, which sent it here")
    return "; ".join(found)


def _look_for_socket(inside: Inside, flow: Flow) -> None:
    """Whether somebody in the namespace of the receiver has the port, at the address that is asked."""
    if inside.session is None or not flow.port or not flow.upper.has_ports:
        return
    trail, what = inside.trail, f"in {inside.where} has {flow.upper.value} port {flow.port}"
    waiting = waiting_sockets(inside.session, flow.upper.value)
    ips = sorted((each.ip for each in waiting if each.port == flow.port), key=str)
    takes = {_takes(ip, flow.destination) for ip in ips}
    if True in takes:
        trail.note("socket", f"somebody {what}")
        return
    if None in takes:
        trail.unknown("socket", f"somebody {what} for IPv6: whether for IPv4, too, only the socket knows")
        return
    says = "a reset" if flow.upper is Upper.TCP else "port unreachable"
    elsewhere = f" at {flow.destination}, but at {', '.join(map(str, ips))}" if ips else ""
    trail.note("socket", f"nobody {what}{elsewhere}", remark=f"it is answered with {says}")


def _takes(own: IPAddress, to: IPAddress) -> bool | None:
    """Whether a socket takes what is for an address, by its own one; None: that hangs on an option of it."""
    if own.version == to.version:
        return own.is_unspecified or own == to
    return None if own.is_unspecified and own.version == 6 else False
