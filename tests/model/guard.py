# SPDX-License-Identifier: Apache-2.0
"""Section 3: the guard, before every frame that comes in through the tunnel."""

from __future__ import annotations

from mizarnet import Verdict
from tests.model.case import TC_OK, TC_REDIRECT, TC_SHOT, Case, Outcome, Outer, Received, TunnelKey
from tests.model.packet import Packet, understand
from tests.model.refused import Refused
from tests.model.state import Local, Mac
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
    if tables.local(key.vni, packet.source):  # G11
        raise Refused(Verdict.SOURCE_IS_LOCAL)
    endpoint = tables.local(key.vni, packet.destination)
    if endpoint is not None:  # G12
        return _accepted(case, endpoint, tables.config.virtual_mac)
    host = tables.next_host(key.vni, packet.destination, case.flow_hash)
    if host is None:  # G13
        raise Refused(Verdict.NO_DESTINATION)
    if host == key.remote:  # G13a
        raise Refused(Verdict.BOUNCED_BACK)
    if key.ttl <= 1:  # G14
        raise Refused(Verdict.OUTER_HOP_LIMIT)
    outer = Outer(key.vni, host, tables.config.local, min(key.ttl - 1, BOUNCED_HOPS))
    return _bounced(case, outer, tables)  # G15


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
