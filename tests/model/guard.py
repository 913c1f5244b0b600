# SPDX-License-Identifier: Apache-2.0
"""Section 3: the guard, before every frame that comes in through the tunnel."""

from __future__ import annotations

from mizarnet import Verdict
from tests.model.case import TC_OK, TC_REDIRECT, TC_SHOT, Case, Outcome, Outer, Received, TunnelKey
from tests.model.packet import Packet, understand
from tests.model.refused import Refused
from tests.model.state import Ip, Local, Mac, Remote
from tests.model.tables import Tables

OPTION_BYTES = 4
CRITICAL = 0x80
BOUNCED_HOPS = 8


def judge(case: Case, tables: Tables) -> Outcome:
    key = tables.readable_key(case)
    try:
        if key is None:
            return _without_key(case, tables)
        _check_key(key, tables)
        packet = _inner_packet(case)
    except Refused as refused:
        return Outcome(verdict=refused.reason, action=TC_SHOT)
    try:
        _check_packet(case, packet, tables)
        return _onwards(case, packet, key, tables)
    except Refused as refused:
        to = tables.local(key.vni, packet.destination)
        undelivered = None if to is None else Received(to.number, len(case.frame))
        return Outcome(verdict=refused.reason, action=TC_SHOT, undelivered=undelivered)


def _without_key(case: Case, tables: Tables) -> Outcome:
    if case.mark != tables.config.mark_local:  # G2
        raise Refused(Verdict.NO_TUNNEL_KEY)
    return _let_in(Verdict.ACCEPTED_LOCALLY, case, case.frame)  # G1


def _check_key(key: TunnelKey, tables: Tables) -> None:
    if key.local != tables.config.local:  # G3
        raise Refused(Verdict.FOREIGN_LOCAL)
    if key.control or key.critical or not _are_harmless(key.options):  # G4
        raise Refused(Verdict.GENEVE_OPTIONS)
    if not tables.is_peer(key.remote):  # G5
        raise Refused(Verdict.FOREIGN_PEER)


def _are_harmless(options: bytes) -> bool:
    at = 0
    while at + OPTION_BYTES <= len(options):
        if options[at + 2] & CRITICAL:
            return False
        at += OPTION_BYTES + 4 * (options[at + 3] & 0x1F)
    return at == len(options)


def _inner_packet(case: Case) -> Packet:
    packet = understand(case.frame, case.tag)  # G6
    if packet is None:  # G7
        raise Refused(Verdict.BAD_ARP)
    return packet


def _check_packet(case: Case, packet: Packet, tables: Tables) -> None:
    if packet.is_neighbour_discovery:  # G8
        raise Refused(Verdict.BAD_ND)
    if packet.is_multicast:  # G9
        raise Refused(Verdict.MULTICAST)
    if case.frame[0:6] == tables.config.tunnel_mac:  # G10
        raise Refused(Verdict.TUNNEL_MAC)


def _onwards(case: Case, packet: Packet, key: TunnelKey, tables: Tables) -> Outcome:
    if tables.local(key.vni, packet.source) and not tables.is_host_of_router(key.vni, key.remote):  # G11
        raise Refused(Verdict.SOURCE_IS_LOCAL)
    place = _place(case, packet, key.vni, tables)
    if isinstance(place, Local):  # G12, G12b
        return _accepted(case, place, tables.config.virtual_mac)
    if place == key.remote:  # G13a
        raise Refused(Verdict.BOUNCED_BACK)
    if key.ttl <= 1:  # G14
        raise Refused(Verdict.OUTER_HOP_LIMIT)
    outer = Outer(key.vni, place, tables.config.local, min(key.ttl - 1, BOUNCED_HOPS))
    return _bounced(case, outer, tables)  # G15


def _place(case: Case, packet: Packet, vni: int, tables: Tables) -> Local | Ip:
    """An endpoint of this host, or another host."""
    endpoint = tables.endpoints.get((vni, packet.destination))
    network = tables.network(vni, packet.destination) if endpoint is None else None
    if network is not None and network.via is not None:
        endpoint = tables.next_hop(vni, network)
        if endpoint is None:  # G12a
            raise Refused(Verdict.NO_NEXT_HOP)
    if isinstance(endpoint, Local):
        return endpoint
    if isinstance(endpoint, Remote):
        return endpoint.host
    host = tables.switch(network, case.flow_hash) if network is not None else None
    if host is None:  # G13
        raise Refused(Verdict.NO_DESTINATION)
    return host


def _accepted(case: Case, endpoint: Local, virtual_mac: Mac) -> Outcome:
    received = Received(endpoint.number, len(case.frame))
    return _let_in(Verdict.ACCEPTED, case, endpoint.mac + virtual_mac + case.frame[12:], received)


def _let_in(verdict: Verdict, case: Case, frame: bytes, received: Received | None = None) -> Outcome:
    return Outcome(
        verdict=verdict,
        action=TC_OK,
        frame=frame,
        priority=case.priority,
        tstamp=case.tstamp,
        received=received,
    )


def _bounced(case: Case, outer: Outer, tables: Tables) -> Outcome:
    if case.key_refused:
        raise Refused(Verdict.TUNNEL_KEY_REFUSED)
    return Outcome(
        verdict=Verdict.BOUNCED,
        action=TC_REDIRECT,
        frame=case.frame,
        mark=tables.config.mark_bounced,
        token=tables.config.token_bounced,
        priority=case.priority,
        tstamp=case.tstamp,
        outer=outer,
        redirect="egress",
    )
