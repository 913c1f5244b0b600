# SPDX-License-Identifier: Apache-2.0
"""Sections 2.5 to 2.7: where the packet of a sender goes."""

from __future__ import annotations

from mizarnet import Verdict
from tests.model import replies
from tests.model.case import TC_OK, TC_REDIRECT, Case, Outcome, Outer, Received, Sent
from tests.model.packet import ICMP, ICMPV6, Packet
from tests.model.refused import Refused
from tests.model.state import Config, Elsewhere, Local, Network, Remote
from tests.model.tables import Sender, Tables

TUNNEL_TTL = 64
ICMP_QUESTIONS = (8, 13)


def route(case: Case, packet: Packet, sender: Sender, tables: Tables, sent: Sent) -> Outcome:
    if packet.is_multicast:  # D1
        raise Refused(Verdict.MULTICAST)
    if not sender.record.forwarding and packet.source not in sender.own:  # D2
        raise Refused(Verdict.FOREIGN_SOURCE)
    to, vni, frame = packet.destination, sender.vni, packet.frame
    endpoint = tables.endpoints.get((vni, to))
    network = tables.network(vni, to) if endpoint is None else None
    to_gateway = endpoint is None and (
        (network is not None and to == network.gateway) or sender.is_gateway(to)
    )
    if network is not None and network.via is not None and not to_gateway:  # D6a
        return _by_next_hop(case, packet, network, sender, tables, sent)
    if not sender.is_on_link(packet.source, to):
        if packet.hops <= 1:
            answer = _expired(packet, sender, tables.config)
            return redirected(Verdict.GATEWAY_ANSWERED, answer, tables.config, sent)
        frame = replies.one_hop_less(packet)
    if isinstance(endpoint, Elsewhere):  # D5a
        raise Refused(Verdict.NO_DESTINATION)
    if endpoint is not None:  # D3 to D5
        return _to_endpoint(case, frame, endpoint, sender, tables, sent)
    if to_gateway:  # D6
        answer = _to_gateway(packet, frame, tables.config)
        return redirected(Verdict.GATEWAY_ANSWERED, answer, tables.config, sent)
    if network is None:  # D7
        raise Refused(Verdict.NO_DESTINATION)
    host = tables.switch(network, case.flow_hash)
    if host is None:  # D8
        raise Refused(Verdict.NO_SWITCH)
    return _encapsulated(case, frame, Outer(vni, host, tables.config.local, TUNNEL_TTL), sent)  # D9


def _by_next_hop(
    case: Case, packet: Packet, network: Network, sender: Sender, tables: Tables, sent: Sent
) -> Outcome:
    """It keeps its hop, whoever the sender is."""
    endpoint = tables.next_hop(sender.vni, network)
    if endpoint is None:  # N1, N2
        raise Refused(Verdict.NO_NEXT_HOP)
    return _to_endpoint(case, packet.frame, endpoint, sender, tables, sent)  # N3


def _to_endpoint(
    case: Case, frame: bytes, endpoint: Local | Remote, sender: Sender, tables: Tables, sent: Sent
) -> Outcome:
    """D3 to D5."""
    if isinstance(endpoint, Local):
        return _delivered(frame, endpoint, sender, tables.config, sent)
    outer = Outer(sender.vni, endpoint.host, tables.config.local, TUNNEL_TTL)
    return _encapsulated(case, frame, outer, sent)


def redirected(
    verdict: Verdict,
    frame: bytes,
    config: Config,
    sent: Sent,
    received: Received | None = None,
    *,
    told: int | None = None,
) -> Outcome:
    """Handed to the tunnel's own ingress, where the secret mark tells the guard who did it."""
    return Outcome(
        verdict=verdict,
        action=TC_REDIRECT,
        frame=frame,
        mark=config.mark_local,
        redirect="ingress",
        sent=sent,
        received=received,
        told=told,
    )


def _delivered(frame: bytes, endpoint: Local, sender: Sender, config: Config, sent: Sent) -> Outcome:
    if endpoint.number == sender.record.number:  # D3
        raise Refused(Verdict.HAIRPIN)
    received = Received(endpoint.number, len(frame))  # D4
    return redirected(Verdict.DELIVERED_LOCALLY, endpoint.mac + frame[6:], config, sent, received)


def _encapsulated(case: Case, frame: bytes, outer: Outer, sent: Sent) -> Outcome:
    if case.key_refused:
        raise Refused(Verdict.TUNNEL_KEY_REFUSED)
    return Outcome(verdict=Verdict.ENCAPSULATED, action=TC_OK, frame=frame, outer=outer, sent=sent)


def _expired(packet: Packet, sender: Sender, config: Config) -> bytes:
    """Section 2.6."""
    gateway = sender.gateways.get(len(packet.source))
    if packet.upper is None or is_error(packet) or gateway is None:
        raise Refused(Verdict.HOP_LIMIT)
    has_options = len(packet.source) == 4 and packet.upper_at != packet.header_end
    if has_options or packet.header_end + replies.QUOTED_BYTES > packet.end:
        raise Refused(Verdict.HOP_LIMIT)
    return replies.time_exceeded(packet, gateway, config.virtual_mac)


def is_error(packet: Packet) -> bool:
    """H2 to H4: whether it is an ICMP message, of either family, that no error may answer (RFC 1122, RFC 4443)."""
    if packet.upper not in (ICMP, ICMPV6):
        return False
    kind = packet.upper_type
    return kind is None or (kind < 128 if packet.upper == ICMPV6 else kind not in ICMP_QUESTIONS)


def _to_gateway(packet: Packet, frame: bytes, config: Config) -> bytes:
    """Section 2.7."""
    if not packet.is_echo_request:
        raise Refused(Verdict.NO_DESTINATION)
    return replies.echo_reply(packet, frame, config.virtual_mac)
