# SPDX-License-Identifier: Apache-2.0
"""Section 2: the transit agent, before every frame that leaves through the tunnel."""

from __future__ import annotations

from mizarnet import Verdict
from tests.model import lengths
from tests.model.case import TC_OK, TC_SHOT, Case, Outcome, RoutedBy, Sent, SentBy
from tests.model.neighbours import answer_arp, answer_solicitation
from tests.model.packet import Packet, understand
from tests.model.refused import Refused
from tests.model.routes import redirected, route
from tests.model.tables import Sender, Tables

RAW_FAMILIES = (17, 44, 0)
"""Of sockets that write whole frames: packet, XDP, and a tap's, which has none."""


def judge(case: Case, tables: Tables) -> Outcome:
    if _is_bounced(case, tables):  # 2.1
        return Outcome(
            verdict=Verdict.BOUNCE_ADMITTED,
            action=TC_OK,
            frame=case.frame,
            priority=case.priority,
            tstamp=case.tstamp,
        )
    try:
        packet = understand(case.frame, case.tag)  # A1
        sender = _sender(case.frame, tables)
        if tables.config.route_identity:
            _check_origin(case.origin, packet is None, sender)
    except Refused as refused:
        return Outcome(verdict=refused.reason, action=TC_SHOT)
    number, length = sender.record.number, len(case.frame)
    sent = Sent(number, length, dropped=False)
    try:
        if lengths.is_too_long(case, tables.config):  # A8
            return lengths.answered(case, packet, sender, tables, sent)
        _check_checksum(case, packet)
        return _onwards(case, packet, sender, tables, sent)
    except Refused as refused:
        return Outcome(verdict=refused.reason, action=TC_SHOT, sent=Sent(number, length, dropped=True))


def _is_bounced(case: Case, tables: Tables) -> bool:
    config = tables.config
    if (case.mark, case.token) != (config.mark_bounced, config.token_bounced):
        return False
    if not case.from_tunnel or tables.readable_key(case) is None:
        return False
    return case.origin is None or not config.route_identity


def _sender(frame: bytes, tables: Tables) -> Sender:
    sender = tables.senders.get(frame[6:12])
    if sender is None and frame[6:12] == tables.config.tunnel_mac:  # A2
        raise Refused(Verdict.TUNNEL_OWN)
    if sender is None:  # A3
        raise Refused(Verdict.UNKNOWN_SENDER)
    return sender


def _check_origin(origin: RoutedBy | SentBy | None, is_arp: bool, sender: Sender) -> None:
    own = sender.record
    if isinstance(origin, RoutedBy):
        if origin.netns_cookie != own.netns_cookie or own.ifindex not in (0, origin.ifindex):  # A4
            raise Refused(Verdict.FOREIGN_DEVICE)
    elif isinstance(origin, SentBy):
        if origin.family not in RAW_FAMILIES:  # A5
            raise Refused(Verdict.REFLECTED)
        if origin.netns_cookie != own.netns_cookie:  # A6
            raise Refused(Verdict.FOREIGN_SOCKET)
    elif not is_arp:  # A7
        raise Refused(Verdict.NO_ORIGIN)


def _check_checksum(case: Case, packet: Packet | None) -> None:
    left = case.checksum
    if left is None:
        return
    allowed = packet is not None and left.start >= packet.upper_at and left.place >= packet.upper_at + 2
    if not allowed or left.place + 2 > len(case.frame):  # A9
        raise Refused(Verdict.BAD_OFFLOAD)


def _onwards(case: Case, packet: Packet | None, sender: Sender, tables: Tables, sent: Sent) -> Outcome:
    """`packet` is None for ARP."""
    if packet is None:
        answer = answer_arp(case.frame, sender, tables)
        return redirected(Verdict.NEIGHBOUR_ANSWERED, answer, tables.config, sent)
    if not sender.record.forwarding and not _is_own_source(packet, sender):  # L1
        raise Refused(Verdict.FOREIGN_SOURCE)
    if packet.is_neighbour_discovery:
        answer = answer_solicitation(packet, sender, tables)
        return redirected(Verdict.NEIGHBOUR_ANSWERED, answer, tables.config, sent)
    return route(case, packet, sender, tables, sent)


def _is_own_source(packet: Packet, sender: Sender) -> bool:
    if packet.source in sender.own or packet.source == sender.link_local:
        return True
    return not any(packet.source) and packet.is_multicast
