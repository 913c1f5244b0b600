# SPDX-License-Identifier: Apache-2.0
"""The half of a packet's way on the host of its sender."""

from __future__ import annotations

import attrs

from mizarnet._datapath.dry_run import Outcome
from mizarnet._datapath.walk import hints, programs, receiving, underlay
from mizarnet._datapath.walk.firewall import Packet, pass_through
from mizarnet._datapath.walk.flow import SUPER_PACKET, Flow, addresses_in
from mizarnet._datapath.walk.inside import Inside, entered
from mizarnet._datapath.walk.trail import Trail
from mizarnet._kernel.netlink import is_broadcast
from mizarnet._model.arguments import IPAddress
from mizarnet._model.codec import Record
from mizarnet._model.enumerations import Verdict
from mizarnet._model.question import Upper

_ETHERNET = 14


def send(trail: Trail, record: Record, flow: Flow) -> None:
    """A packet that the stack of an endpoint makes."""
    with entered(trail, record) as inside:
        inside.address(flow.source)
        if flow.wants_answer or flow.upper.is_question:
            inside.lets_in()
        if flow.upper.is_question:
            programs.tunnel(trail)
            programs.agent(trail, inside.sender, flow.question(flow.destination, by=inside.sender.mac))
            trail.arrive()
        hop = _route(inside, flow)
        programs.tunnel(trail)
        mac = neighbour(inside, flow, hop)
        sender, packet, length = inside.sender, flow, flow.size
        if _is_segmented(inside, flow):
            length = inside.link.mtu
            sender = attrs.evolve(sender, gso_size=length - flow.upper.headers(flow.version))
            packet = attrs.evolve(flow, size=min(flow.size, SUPER_PACKET))
        frame = packet.frame(by=sender.mac, to=mac)
        leaving = Packet(frame[_ETHERNET:], out=inside.link.name)
        pass_through(trail, inside.session, leaving, ("output", "postrouting"), inside.where)
        outcome = programs.agent(trail, sender, frame)
    _go_on(trail, record.spec.vni, outcome, length, flow)


def send_frame(trail: Trail, record: Record, frame: bytes) -> None:
    """A frame that a process of an endpoint, or a VM, makes by itself."""
    with entered(trail, record) as inside:
        takes = inside.link.mtu + _ETHERNET
        if not inside.is_vm and len(frame) > takes:
            text = f"the frame has {len(frame)} bytes, and {inside.link.name} takes {takes}"
            trail.end("size", text, remedy="send shorter frames: the socket refuses longer ones (EMSGSIZE)")
        programs.tunnel(trail)
        outcome = programs.agent(trail, inside.sender, frame)
    _go_on(trail, record.spec.vni, outcome, len(frame) - _ETHERNET, None)


def _is_segmented(inside: Inside, flow: Flow) -> bool:
    """Whether the stack makes a packet that is longer than the device takes, and leaves the segments to it."""
    return flow.upper is Upper.TCP and flow.size > inside.link.mtu


def _route(inside: Inside, flow: Flow) -> IPAddress:
    """The neighbour that a packet is sent to by the routes of its namespace."""
    trail, link = inside.trail, inside.link
    _refuse_broadcast(inside, flow)
    way = inside.way(flow)
    if way is not None and way.local:
        trail.note(
            "route", f"{flow.destination} is an address of {inside.where} itself: the packet stays there"
        )
        trail.arrive()
    if flow.size > link.mtu and not _is_segmented(inside, flow):
        text = f"{link.name} takes {link.mtu} bytes, and the packet has {flow.size}"
        trail.end(
            "size", text, remedy="send smaller ones: the stack makes fragments, or refuses it (EMSGSIZE)"
        )
    if way is None:
        return _likely_hop(inside.record, flow)
    known = way.mtu is not None and flow.size > way.mtu and not _is_segmented(inside, flow)
    trail.note(
        "route",
        f"to {flow.destination}: {'on link' if way.gateway is None else f'via {way.gateway}'}",
        remark=f"the way is known to take {way.mtu} bytes: sent in fragments, or refused if these are not allowed"
        if known
        else "",
    )
    return way.gateway or flow.destination


def _refuse_broadcast(inside: Inside, flow: Flow) -> None:
    """End the way of a packet to all at once, which the agent drops, and TCP never sends."""
    ip = flow.destination
    if inside.session is None or ip.version == 6 or not is_broadcast(inside.session, ip, inside.link.ifindex):
        return
    text = f"{ip} is a broadcast address of {inside.link.name}, and a VNI carries no broadcast"
    verdict = None if flow.upper is Upper.TCP else Verdict.MULTICAST
    inside.trail.end("route", text, verdict=verdict, remedy="send it to each endpoint by itself")


def _likely_hop(record: Record, flow: Flow) -> IPAddress:
    """The neighbour that a packet is sent to by what the endpoint was made with."""
    if any(flow.destination in each.network for each in record.spec.ip):
        return flow.destination
    gateways = (each for each in record.spec.gateway or () if each.version == flow.version)
    return next(gateways, flow.destination)


def neighbour(inside: Inside, flow: Flow, hop: IPAddress) -> bytes:
    """The MAC address that a packet is sent to."""
    mac = inside.known_neighbour(hop)
    if mac is not None:
        inside.trail.note("neighbour", f"{hop} is {mac.hex(':')}, as the namespace knows")
        return mac
    mac = inside.ask(flow, hop)
    inside.trail.note("neighbour", f"{hop} is {mac.hex(':')}, as the agent answers")
    return mac


def _go_on(trail: Trail, vni: int, outcome: Outcome, length: int, flow: Flow | None) -> None:
    frame = outcome.frame or b""
    if outcome.verdict is Verdict.ENCAPSULATED:
        choices = hints.switches(trail, vni, addresses_in(frame))
        if len(choices) > 1:
            text = f"one of {', '.join(map(str, choices))}, by the hash of the flow, which is not known here"
            trail.unknown("switch", text)
        load = underlay.Load(vni, frame, length, answered=flow is not None and flow.wants_answer)
        underlay.send(trail, programs.host_of(outcome.asked.key), load)
    elif outcome.verdict is Verdict.DELIVERED_LOCALLY:
        receiving.receive(trail, vni, programs.guard_here(trail, outcome), flow, None)
