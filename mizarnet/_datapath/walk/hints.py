# SPDX-License-Identifier: Apache-2.0
"""What the tables say about a verdict: the entry that decided, and what would have to stand there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import attrs

from mizarnet._datapath.walk.flow import Addresses, addresses_in
from mizarnet._datapath.walk.trail import Trail
from mizarnet._model import codec
from mizarnet._model.arguments import IPAddress, IPNetwork
from mizarnet._model.codec import Record
from mizarnet._model.enumerations import Verdict
from mizarnet._model.explanation import Crossing
from mizarnet._model.specs import EndpointKey, Local, Network, Remote
from mizarnet.errors import LayoutError

_SHOWN = 4
"""Number of prefixes, endpoints or VNIs that a sentence lists."""

Hint: TypeAlias = tuple[str, str]
"""What is wrong, and what to do about it."""


def sentence(verdict: Verdict) -> str:
    """What usually brings a verdict about, as a clause."""
    return verdict.cause[0].lower() + verdict.cause[1:].rstrip(".")


@attrs.frozen
class Sent:
    """A frame that the agent refused.

    Attributes:
        trail: Its way.
        verdict: The drop reason.
        vni: VNI of the sender.
        found: Its addresses; None: it has none that can be understood.
        length: Its bytes.
        record: Record of the sender.
        mac: MAC address of the sender's device.
    """

    trail: Trail
    verdict: Verdict
    vni: int
    found: Addresses | None
    length: int
    record: Record
    mac: bytes


def of_agent(trail: Trail, verdict: Verdict, frame: bytes, record: Record, mac: bytes) -> Hint:
    """Why the agent refused a frame of an endpoint."""
    sent = Sent(trail, verdict, record.spec.vni, addresses_in(frame), len(frame), record, mac)
    return _OF_AGENT.get(verdict, _usual)(sent)


def _usual(sent: Sent) -> Hint:
    return sentence(sent.verdict), sent.verdict.remedy


def _unknown_sender(sent: Sent) -> Hint:
    ifname, mac = sent.record.spec.ifname, sent.record.mac
    text = f"the MAC of {ifname} is {sent.mac.hex(':')}, and that of endpoint {sent.record.spec.name} {mac}"
    return text, f"ip link set {ifname} address {mac}, in its namespace, or Host.repair()"


def _foreign_source(sent: Sent) -> Hint:
    source = sent.found.source if sent.found else "its source"
    own = ", ".join(str(each.ip) for each in sent.record.spec.ip)
    text = f"{source} is no address of endpoint {sent.record.spec.name}, which has {own}"
    return (
        text,
        f'endpoint.update(ip=[...]) with "{source}", or Endpoint.create(forwarding=True) for a router',
    )


def _oversized(sent: Sent) -> Hint:
    mtu = sent.trail.datapath.maps.read_meta().mtu
    return (
        f"its packet has {sent.length - 14} bytes, and {sent.trail.device.name} takes {mtu}",
        sent.verdict.remedy,
    )


def _nowhere(sent: Sent) -> Hint:
    if sent.found is None:
        return _usual(sent)
    ip, spec = sent.found.destination, sent.record.spec
    if ip in (spec.gateway or ()):
        text = f"{ip} is the gateway of endpoint {spec.name}, which answers echo alone"
        return text, "ask an endpoint, or give one that address: Endpoint.create(ip=), or Gateway.create(ip=)"
    return nowhere(sent.trail, sent.vni, ip, sent.verdict)


def _no_switch(sent: Sent) -> Hint:
    prefix, network = (
        _network(sent.trail, sent.vni, sent.found.destination) if sent.found else (None, Network())
    )
    if network.switches:
        text = f"this host is a transit switch of {prefix} itself, and has no entry of the address"
    else:
        text = f"network {prefix} has no transit switch, and there is no entry of the address"
    return text, sent.verdict.remedy


def _hairpin(sent: Sent) -> Hint:
    """A next hop that has no entry of a destination gets its packets back by its own network."""
    if sent.found is None or _place(sent.trail, sent.vni, sent.found.destination) is not None:
        return _usual(sent)
    ip = sent.found.destination
    text = f"no entry ({sent.vni}, {ip}), and its network leads to endpoint {sent.record.spec.name} itself"
    return (
        text,
        f'agent.endpoints[{sent.vni}, "{ip}"] = mz.Remote(...) on this host, with the host that has it',
    )


def _no_next_hop(sent: Sent) -> Hint:
    if sent.found is None:
        return _usual(sent)
    return no_next_hop(sent.trail, sent.vni, sent.found.destination)


_OF_AGENT: Mapping[Verdict, Callable[[Sent], Hint]] = {
    Verdict.UNKNOWN_SENDER: _unknown_sender,
    Verdict.FOREIGN_SOURCE: _foreign_source,
    Verdict.ARP_SPOOFED: _foreign_source,
    Verdict.OVERSIZED: _oversized,
    Verdict.HAIRPIN: _hairpin,
    Verdict.NO_DESTINATION: _nowhere,
    Verdict.NEIGHBOUR_UNKNOWN: _nowhere,
    Verdict.NO_SWITCH: _no_switch,
    Verdict.NO_NEXT_HOP: _no_next_hop,
}


def of_guard(trail: Trail, verdict: Verdict, crossing: Crossing, frame: bytes) -> Hint:
    """Why the guard refused a frame from another host."""
    found, vni = addresses_in(frame), crossing.vni
    if verdict is Verdict.FOREIGN_PEER:
        peers = [
            str(each)
            for each in sorted(map(codec.unpack_peer_key, trail.datapath.maps.peers.keys()), key=str)
        ]
        text = f"{crossing.source} is in none of the prefixes of peers: {_listed(peers)}"
        return text, f'agent.peers.add("{crossing.source}") on this host, or the prefix of all hosts'
    if verdict is Verdict.FOREIGN_LOCAL:
        text = f"it was sent to {crossing.destination}, and the tunnel's address is {trail.datapath.local}"
        ip = found.destination if found else "ip"
        return (
            text,
            f'agent.endpoints[{vni}, "{ip}"] = mz.Remote("{trail.datapath.local}") on {crossing.source}',
        )
    if found is not None and verdict is Verdict.NO_DESTINATION:
        return nowhere(trail, vni, found.destination, verdict)
    if found is not None and verdict is Verdict.NO_NEXT_HOP:
        return no_next_hop(trail, vni, found.destination)
    if found is not None and verdict is Verdict.SOURCE_IS_LOCAL:
        record = trail.endpoints.at(vni, found.source)
        name = record.spec.name if record else "one"
        return f"({vni}, {found.source}) is an endpoint of this host, too: {name}", verdict.remedy
    if found is not None and verdict is Verdict.BOUNCED_BACK:
        text = f"{entry(trail, vni, found)} -> {crossing.source}, which sent it here"
        return text, f"correct the entry on this host or on {crossing.source}: agent.endpoints.update()"
    return sentence(verdict), verdict.remedy


def entry(trail: Trail, vni: int, found: Addresses | None) -> str:
    """The entry that leads a frame on, in words."""
    if found is None:
        return "an entry"
    ip = found.destination
    if _place(trail, vni, ip) is not None:
        return f"entry ({vni}, {ip})"
    prefix, network = _network(trail, vni, ip)
    if prefix is None:
        return f"no entry ({vni}, {ip})"
    by = f"next hop {network.via}" if network.via else f"one of {len(network.switches)} transit switches"
    return f"network ({vni}, {prefix}) by {by}"


def _place(trail: Trail, vni: int, ip: IPAddress) -> Local | Remote | str | None:
    packed = trail.datapath.maps.endpoints.lookup(codec.pack_endpoint_key(EndpointKey(vni, ip)))
    try:
        return None if packed is None else codec.unpack_endpoint(packed)
    except LayoutError as unknown:
        return unknown.message


def _network(trail: Trail, vni: int, ip: IPAddress) -> tuple[IPNetwork | None, Network]:
    """The network with the longest prefix that contains an address."""
    packed = trail.datapath.maps.networks.lookup(codec.pack_host_key(vni, ip))
    if packed is None:
        return None, Network()
    holding = (
        key.prefix
        for key in map(codec.unpack_network_key, trail.datapath.maps.networks.keys())
        if key.vni == vni and ip in key.prefix
    )
    return max(holding, key=lambda prefix: prefix.prefixlen, default=None), codec.unpack_network(packed)


def nowhere(trail: Trail, vni: int, ip: IPAddress, verdict: Verdict) -> Hint:
    """Why nothing is known of an address."""
    unknown = _place(trail, vni, ip)
    if unknown is not None:
        text = unknown if isinstance(unknown, str) else f"entry ({vni}, {ip}) leads nowhere"
        return text, verdict.remedy
    if _network(trail, vni, ip)[0] is not None:
        text = (
            f"({vni}, {ip}) is a gateway, which answers echo alone, or its network's switches cannot be asked"
        )
        return text, verdict.remedy
    others = _elsewhere(trail, vni, ip)
    if others:
        text = f"no entry ({vni}, {ip}); {_listed(others)}"
        return text, "make both endpoints in one VNI: Endpoint.create(vni=)"
    text = f"no entry ({vni}, {ip}) and no network that contains it"
    return text, f'agent.endpoints[{vni}, "{ip}"] = mz.Remote(...) on this host, with the host that has it'


def no_next_hop(trail: Trail, vni: int, ip: IPAddress) -> Hint:
    """Why the next hop of an address's network cannot be used."""
    prefix, network = _network(trail, vni, ip)
    via = network.via
    if via is None:
        return sentence(Verdict.NO_NEXT_HOP), Verdict.NO_NEXT_HOP.remedy
    there = _place(trail, vni, via)
    begin = f"network ({vni}, {prefix}) goes by {via}"
    if isinstance(there, Local):
        return f"{begin}, an endpoint of this host that may not forward", "Endpoint.create(forwarding=True)"
    return f"{begin}, which has no entry", f'agent.endpoints[{vni}, "{via}"] = mz.Remote(...) on this host'


def _elsewhere(trail: Trail, vni: int, ip: IPAddress) -> list[str]:
    """Who has an address in other VNIs."""
    keys = map(codec.unpack_endpoint_key, trail.datapath.maps.endpoints.keys())
    found: list[str] = []
    for other in sorted(key.vni for key in keys if key.ip == ip and key.vni != vni):
        record = trail.endpoints.at(other, ip)
        who = f"{record.spec.name} has {ip}" if record else f"{ip} is known"
        found.append(f"{who} in VNI {other}")
    return found


def _listed(texts: list[str]) -> str:
    more = f" and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
    return (", ".join(texts[:_SHOWN]) or "none") + more


def switches(trail: Trail, vni: int, found: Addresses | None) -> tuple[IPAddress, ...]:
    """The transit switches of which one is chosen for a frame; none for a frame that goes by an entry."""
    if found is None or _place(trail, vni, found.destination) is not None:
        return ()
    return _network(trail, vni, found.destination)[1].switches
