# SPDX-License-Identifier: Apache-2.0
"""Section 2.9: frames that are too long, and what their senders are told."""

from __future__ import annotations

from mizarnet import Verdict
from tests.model import replies
from tests.model.case import Case, Outcome, Sent
from tests.model.packet import ETHERNET_BYTES, Packet
from tests.model.refused import Refused
from tests.model.routes import is_error, redirected
from tests.model.state import Config, Ip, SenderRecord
from tests.model.tables import Sender, Tables

SEGMENT_HEADERS = 28
"""The shortest IP and transport headers of a segment."""
SEGMENTS_OF_THE_SENDER = 0xFFFF
"""In place of a size: the segments are there already."""
DONT_FRAGMENT = 0x40
LEAST_MTU_IPV6 = 1280
SECOND = 1_000_000_000
MOST_IN_A_SECOND = 100


def is_too_long(case: Case, config: Config) -> bool:
    """A8.1 to A8.3."""
    if case.gso_size == SEGMENTS_OF_THE_SENDER:
        return False
    longest = case.gso_size + SEGMENT_HEADERS if case.gso_size else len(case.frame) - ETHERNET_BYTES
    return longest > config.mtu


def answered(case: Case, packet: Packet | None, sender: Sender, tables: Tables, sent: Sent) -> Outcome:
    """Raises `Refused` if its sender is not told."""
    config = tables.config
    told = _times_told(case, sender.record)
    if packet is None or not _is_worth_it(packet, sender, config) or told > MOST_IN_A_SECOND:
        raise Refused(Verdict.OVERSIZED)
    answer = replies.too_long(packet, _speaker(packet, sender, tables), config.virtual_mac, config.mtu)
    return redirected(Verdict.OVERSIZED_ANSWERED, answer, config, sent, told=told)


def _is_worth_it(packet: Packet, sender: Sender, config: Config) -> bool:
    if packet.end - ETHERNET_BYTES <= config.mtu or packet.is_multicast:  # T1, T2
        return False
    if len(packet.source) == 4 and not packet.frame[20] & DONT_FRAGMENT:  # T3
        return False
    if len(packet.source) == 16 and config.mtu < LEAST_MTU_IPV6:  # T4
        return False
    if packet.upper is None or is_error(packet) or packet.is_neighbour_discovery:  # T5, T6
        return False
    return packet.source in sender.own  # T7


def _times_told(case: Case, record: SenderRecord) -> int:
    """T8: in this second, with this time."""
    return record.told + 1 if record.told_in == case.clock // SECOND else 1


def _speaker(packet: Packet, sender: Sender, tables: Tables) -> Ip:
    size = len(packet.source)
    gateway = sender.gateways.get(size)
    if gateway is not None:  # W1
        return gateway
    network = tables.network(sender.vni, packet.source)
    if network is not None and network.gateway is not None and len(network.gateway) == size:  # W2
        return network.gateway
    return packet.destination  # W3
