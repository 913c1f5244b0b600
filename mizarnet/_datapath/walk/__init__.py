# SPDX-License-Identifier: Apache-2.0
"""A packet's way, walked over the living state of one host: namespaces, tables, programs, underlay.

Nothing is sent and nothing changed. What is in tables is judged by the programs themselves, in dry runs; what the
kernel decides is asked of the kernel. What cannot be known from this host is a step that says so.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import attrs

from mizarnet._datapath.datapath import DataPath
from mizarnet._datapath.tunnel_device import TunnelDevice
from mizarnet._datapath.walk import receiving, sending, underlay
from mizarnet._datapath.walk.flow import Flow, heads_of, smallest
from mizarnet._datapath.walk.trail import Ended, Trail
from mizarnet._kernel.netlink import list_addresses
from mizarnet._model import codec
from mizarnet._model.arguments import IPAddress
from mizarnet._model.codec import FIRST, Record
from mizarnet._model.explanation import Crossing, Explanation, Step
from mizarnet._model.question import Question, Upper, Who
from mizarnet._model.specs import VIRTUAL_MAC, EndpointKey, EndpointSpec, Remote
from mizarnet.errors import EndpointNotFoundError, InvalidValueError

__all__ = ["Site", "arrival", "explain", "follow", "has_address", "heads_of", "is_meant"]

_ROUNDS = 3
_TTL = 64


@attrs.frozen
class Site:
    """A host that packets are walked on.

    Attributes:
        device: Its tunnel.
        datapath: Data path of the tunnel.
        at: Name of the host, for the steps.
    """

    device: TunnelDevice
    datapath: DataPath
    at: str


def explain(site: Site, question: Question) -> Explanation:
    """What becomes of a packet on its sender's host, or on another one that it arrives at.

    Raises:
        EndpointNotFoundError: No endpoint of this host has a name that was given, or is that of the source.
        InvalidValueError: The question does not fit to the endpoint or the tunnel.
    """
    if question.outer is not None and question.outer.version != site.datapath.local.version:
        raise InvalidValueError(
            f"outer: {question.outer} is not of the IP version of the tunnel's address {site.datapath.local}",
            argument="outer",
            value=question.outer,
        )
    return _settled(site, lambda trail: _walk(trail, question))


def follow(site: Site, crossing: Crossing, question: Question) -> Explanation:
    """What becomes of a packet on a host that it was sent to by another, whose half of the way is known."""

    def walk(trail: Trail) -> None:
        flow = None if question.frame is not None else _flow_of(trail, question, crossing.vni)
        receiving.arrive(trail, crossing, flow)

    return _settled(site, walk)


def has_address(site: Site, ip: IPAddress) -> bool:
    """Whether an underlay address is the host's, of its tunnel or another device."""
    return ip == site.datapath.local or any(
        each.interface.ip == ip for each in list_addresses(site.device.host)
    )


def arrival(site: Site, ip: IPAddress) -> Crossing:
    """A packet to an address of the host, as far as it is known before it comes."""
    device = site.device
    macs = underlay.macs_of(device.host, ip)
    local = site.datapath.local
    return Crossing(device.encap.value, device.port, ip, local, 0, 0, 0, macs, "")


def _settled(site: Site, walk: Callable[[Trail], None]) -> Explanation:
    """A walk during which no table was changed, in a few rounds; if there was none, the last one says so."""
    found = Explanation(())
    for _ in range(_ROUNDS):
        before = site.datapath.maps.changes.lookup(FIRST)
        found = _once(site, walk)
        if site.datapath.maps.changes.lookup(FIRST) == before:
            return found
    text = f"read while it was being changed, in each of {_ROUNDS} rounds: steps may not fit together"
    return attrs.evolve(found, steps=(Step(site.at, "tables", text, ok=None), *found.steps))


def _once(site: Site, walk: Callable[[Trail], None]) -> Explanation:
    trail = Trail(site.device, site.datapath, site.at)
    with suppress(Ended):
        walk(trail)
    return trail.explanation()


def _walk(trail: Trail, question: Question) -> None:
    if question.outer is not None:
        _arrive(trail, question, question.outer)
        return
    record = _sender(trail, question)
    if question.frame is not None:
        sending.send_frame(trail, record, question.frame)
    else:
        sending.send(trail, record, _flow_of(trail, question, record.spec.vni, record.spec))


def _arrive(trail: Trail, question: Question, outer: IPAddress) -> None:
    vni = question.vni or 0  # the question was checked for it
    flow, frame = None, question.frame
    if frame is None:
        flow = _flow_of(trail, question, vni)
        frame = flow.frame(by=VIRTUAL_MAC.packed, to=VIRTUAL_MAC.packed)
    inner = len(frame) - 14 if flow is None else flow.size
    device = trail.device
    crossing = Crossing(
        encap=device.encap.value,
        port=device.port,
        source=outer,
        destination=trail.datapath.local,
        vni=vni,
        length=inner + device.encap.overhead(outer.version),
        ttl=_TTL,
        macs=(),
        frame=frame.hex(),
    )
    receiving.arrive(trail, crossing, flow)


# -- who is meant


def is_meant(record: Record, who: Who) -> bool:
    """Whether an endpoint of that name is the one of the handle; by its name alone it is.

    Hosts name their endpoints each for itself.
    """
    spec = who.spec
    return spec is None or (record.spec.vni, record.spec.ip[0].ip) == (spec.vni, spec.ip[0].ip)


def _sender(trail: Trail, question: Question) -> Record:
    who = question.source
    assert who is not None  # the question was checked for it
    if who.ip is None:
        record = _named(trail, who, "source")
        if not is_meant(record, who):
            there = f"({record.spec.vni}, {record.spec.ip[0].ip})"
            raise EndpointNotFoundError(
                f"source: endpoint {who.name!r} of this host is another one, {there}",
                hint="ask on the host that the handle is of, or explain_path() with the agents of both",
            )
        if question.vni not in (None, record.spec.vni):
            raise InvalidValueError(
                f"vni: endpoint {record.spec.name!r} is in VNI {record.spec.vni}, not {question.vni}",
                argument="vni",
                value=question.vni,
            )
        return record
    vni = question.vni
    if vni is None and question.destination is not None:
        vni = _spec(trail, question.destination, "destination").vni
    found = trail.endpoints.at(vni or 0, who.ip)
    if found is None:
        text = f"no endpoint of this host has ({vni}, {who.ip}){_home(trail, vni or 0, who.ip)}"
        trail.end("endpoint", text, remedy="ask on the host that has it, or make it: Endpoint.create()")
    return found


def _home(trail: Trail, vni: int, ip: IPAddress) -> str:
    """Where an address of another host lives, in words."""
    packed = trail.datapath.maps.endpoints.lookup(codec.pack_endpoint_key(EndpointKey(vni, ip)))
    if packed is None or codec.host_of(packed) is None:
        return ""
    place = codec.unpack_endpoint(packed)
    return f": it lives on {place.host}" if isinstance(place, Remote) else ""


def _named(trail: Trail, who: Who, argument: str) -> Record:
    record = trail.endpoints.named(who.name or "")
    if record is None:
        raise EndpointNotFoundError(
            f"{argument}: there is no endpoint {who.name!r} on this host",
            hint="Endpoint.list(agent) has those there are; of another host give the handle, or the address",
        )
    return record


def _spec(trail: Trail, who: Who, argument: str) -> EndpointSpec:
    return who.spec or _named(trail, who, argument).spec


def _flow_of(trail: Trail, question: Question, vni: int, sender: EndpointSpec | None = None) -> Flow:
    """The packet that was asked for, between two addresses of one family."""
    sources = _addresses(trail, question.source, "source", vni, sender)
    destinations = _addresses(trail, question.destination, "destination", vni, None)
    wanted = {Upper.ARP: 4, Upper.ND: 6}.get(question.upper)
    for version in (4, 6):
        pair = [[ip for ip in ips if ip.version == version] for ips in (sources, destinations)]
        if all(pair) and wanted in (None, version):
            return _flow(question, vni, pair[0][0], pair[1][0])
    raise InvalidValueError(
        f"destination: source and destination have no address of one IP version{f', {wanted}' if wanted else ''}",
        argument="destination",
        value=[str(ip) for ip in destinations],
    )


def _addresses(
    trail: Trail, who: Who | None, argument: str, vni: int, known: EndpointSpec | None
) -> list[IPAddress]:
    assert who is not None  # the question was checked for it
    if who.ip is not None:
        return [who.ip]
    spec = known or _spec(trail, who, argument)
    if spec.vni != vni:
        raise InvalidValueError(
            f"{argument}: endpoint {spec.name!r} is in VNI {spec.vni}, and the packet in {vni}",
            argument=argument,
            value=spec.name,
        )
    return [each.ip for each in spec.ip]


def _flow(question: Question, vni: int, source: IPAddress, destination: IPAddress) -> Flow:
    upper, least = question.upper, question.upper.headers(source.version)
    size = question.size or smallest(upper, source.version)
    if size < least:
        raise InvalidValueError(
            f"size: a packet with {upper.value} over IPv{source.version} has {least} bytes at least",
            argument="size",
            value=size,
        )
    return Flow(vni, source, destination, upper, question.port or 0, size)
