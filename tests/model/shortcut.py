# SPDX-License-Identifier: Apache-2.0
"""Section 5: the shortcut, before every frame that the underlay device receives."""

from __future__ import annotations

import attrs

from mizarnet import Verdict
from tests.model import guard
from tests.model.case import TC_NEXT, TC_REDIRECT, Case, Outcome, TunnelKey
from tests.model.checksum import internet_checksum
from tests.model.packet import ETHERNET_BYTES, EXTENSIONS, IPV4, IPV6, Packet, understand
from tests.model.refused import Refused
from tests.model.state import Config, Ip, Local
from tests.model.switch import (
    LAYOUTS,
    TUNNEL_BYTES,
    UDP_BYTES,
    Layout,
    inner_at,
    is_for_tunnel,
    word,
)
from tests.model.tables import Tables

TCP = 6
NEXT_HEADER = 20
"""Where an IPv6 packet says what follows its fixed header."""
ECT_1 = 1
"""The congestion bit that ECT(1) and CE have."""


def judge(case: Case, tables: Tables) -> Outcome:
    layout = LAYOUTS[len(tables.config.local)]
    if not _is_plain(case, layout, tables):
        return _passed(case)
    inner, key = _taken_out(case.frame, layout, tables.config)
    judged = guard.judge(attrs.evolve(case, program="guard", frame=inner, key=key, gso_size=0), tables)
    if judged.verdict != Verdict.ACCEPTED or case.room_refused:  # U13, U14
        return _passed(case)
    return attrs.evolve(judged, action=TC_REDIRECT, mark=tables.config.mark_local, redirect="ingress")


def _passed(case: Case) -> Outcome:
    return Outcome(
        verdict=Verdict.PASSED,
        action=TC_NEXT,
        frame=case.frame,
        mark=case.mark,
        priority=case.priority,
        tstamp=case.tstamp,
    )


def inner_length(case: Case) -> int:
    """Of the frame in a plain packet."""
    version = case.frame[14] >> 4
    return len(case.frame) - _outer_bytes(LAYOUTS[4 if version == 4 else 16])


def _outer_bytes(layout: Layout) -> int:
    return layout.udp_at + UDP_BYTES + TUNNEL_BYTES


def _is_plain(case: Case, layout: Layout, tables: Tables) -> bool:
    frame, config = case.frame, tables.config
    if not tables.has_underlay or case.to_other or case.tag is not None:  # U1, U2
        return False
    if not is_for_tunnel(frame, layout, config):  # U3
        return False
    source = frame[layout.source_at : layout.source_at + len(config.local)]
    if source == config.local or _is_nobodys(source):  # U3a
        return False
    at = inner_at(frame, layout.udp_at + UDP_BYTES, config)  # U3
    if at != _outer_bytes(layout) or not _are_outer_headers_plain(frame, layout):  # U8
        return False
    packet = _inner_packet(frame[at:])
    if packet is None or packet.source_mac == config.tunnel_mac:  # U9, U10
        return False
    to = tables.local(_vni(frame, layout), packet.destination)
    if to is None:  # U11
        return False
    return not case.gso_size or _may_stay_merged(packet, to)  # U12


def _is_nobodys(source: Ip) -> bool:
    if len(source) == 4:
        return source[0] in (0, 127) or source[0] >= 224
    return not any(source[:8]) or source[0] == 0xFF


def _are_outer_headers_plain(frame: bytes, layout: Layout) -> bool:
    if layout.ethertype == IPV4:
        total, congestion = word(frame, 16), frame[15]
        is_whole = total == len(frame) - 14
        if internet_checksum(frame[14:34]) != 0:  # U5
            return False
    else:
        is_whole, congestion = word(frame, 18) == len(frame) - layout.udp_at, frame[15] >> 4
    if not is_whole or word(frame, layout.udp_at + 4) != len(frame) - layout.udp_at:  # U4
        return False
    return not congestion & ECT_1 and word(frame, layout.udp_at + 6) == 0  # U6, U7


def _inner_packet(frame: bytes) -> Packet | None:
    if len(frame) < ETHERNET_BYTES or (len(frame) > NEXT_HEADER and _has_extension(frame)):
        return None
    try:
        return understand(frame, tag=None)
    except Refused:
        return None


def _has_extension(frame: bytes) -> bool:
    return word(frame, 12) == IPV6 and frame[NEXT_HEADER] in EXTENSIONS


def _may_stay_merged(packet: Packet, to: Local) -> bool:
    return packet.upper == TCP and not to.forwarding and not to.tap


def _vni(frame: bytes, layout: Layout) -> int:
    return int.from_bytes(frame[layout.udp_at + 12 : layout.udp_at + 15], "big")


def _taken_out(frame: bytes, layout: Layout, config: Config) -> tuple[bytes, TunnelKey]:
    """The inner frame, and what the outer headers say."""
    key = TunnelKey(
        vni=_vni(frame, layout),
        remote=frame[layout.source_at : layout.source_at + len(config.local)],
        local=config.local,
        ttl=frame[layout.hops_at],
    )
    return frame[_outer_bytes(layout) :], key
