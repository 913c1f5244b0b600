# SPDX-License-Identifier: Apache-2.0
"""Sections 2.3 and 2.4: questions about neighbours, which the agent answers itself."""

from __future__ import annotations

from mizarnet import Verdict
from tests.model import replies
from tests.model.packet import ADVERTISEMENT, SOLICITATION, Packet
from tests.model.refused import Refused
from tests.model.tables import Sender, Tables

ARP_END = 42
ARP_REQUEST = bytes.fromhex("0001080006040001")
"""Ethernet, IPv4, their lengths, request."""
MESSAGE_BYTES, OPTION_BYTES = 24, 8
SOURCE_LINK_LAYER_ADDRESS = 1


def answer_arp(frame: bytes, sender: Sender, tables: Tables) -> bytes:
    if len(frame) < ARP_END:  # R1
        raise Refused(Verdict.TRUNCATED)
    if frame[14:22] != ARP_REQUEST:  # R2
        raise Refused(Verdict.BAD_ARP)
    if frame[22:28] != frame[6:12]:  # R3
        raise Refused(Verdict.ARP_SPOOFED)
    asker, target = frame[28:32], frame[38:42]
    if target in sender.own and (asker == bytes(4) or asker in sender.own):  # R4
        raise Refused(Verdict.OWN_ADDRESS_ASKED)
    if not sender.record.forwarding and asker not in sender.own:  # R5
        raise Refused(Verdict.ARP_SPOOFED)
    mac = tables.mac_of(target, sender)
    if mac is None:  # R6
        raise Refused(Verdict.NEIGHBOUR_UNKNOWN)
    return replies.arp_answer(frame, mac)


def answer_solicitation(packet: Packet, sender: Sender, tables: Tables) -> bytes:
    """For any message of neighbour discovery; all but a solicitation are refused."""
    frame, at = packet.frame, packet.upper_at
    if at + MESSAGE_BYTES > packet.end:  # L2
        raise Refused(Verdict.BAD_ND)
    extended = at != packet.header_end
    if packet.hops != 255 or frame[at + 1] != 0 or packet.fragment or extended:  # L3
        raise Refused(Verdict.BAD_ND)
    kind, target = frame[at], frame[at + 8 : at + 24]
    is_own = target in sender.own or target == sender.link_local
    if kind == ADVERTISEMENT and is_own:  # L4
        raise Refused(Verdict.OWN_ADDRESS_ASKED)
    if kind != SOLICITATION:  # L5
        raise Refused(Verdict.ND_SPOOFED)
    if is_own:  # L6
        raise Refused(Verdict.OWN_ADDRESS_ASKED)
    if packet.source == bytes(16):  # L7
        raise Refused(Verdict.ND_SPOOFED)
    if _names_another_mac(packet, at + MESSAGE_BYTES):  # L8
        raise Refused(Verdict.ND_SPOOFED)
    mac = tables.mac_of(target, sender)
    if mac is None:  # L9
        raise Refused(Verdict.NEIGHBOUR_UNKNOWN)
    return replies.advertisement(packet, target, mac)


def _names_another_mac(packet: Packet, at: int) -> bool:
    if at + OPTION_BYTES > packet.end or packet.frame[at] != SOURCE_LINK_LAYER_ADDRESS:
        return False
    return packet.frame[at + 2 : at + OPTION_BYTES] != packet.source_mac
