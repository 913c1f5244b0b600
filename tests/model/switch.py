# SPDX-License-Identifier: Apache-2.0
"""Section 4: the transit switch, before every frame that the underlay device receives."""

from __future__ import annotations

import attrs

from mizarnet import Verdict
from tests.model.case import XDP_PASS, XDP_TX, Case, Hop, HopResult, Outcome
from tests.model.checksum import changed
from tests.model.packet import IPV4, IPV6
from tests.model.state import Config, Ip, Remote
from tests.model.tables import Tables

UDP, UDP_BYTES, TUNNEL_BYTES = 17, 8, 8
BOUNCED_HOPS = 8


@attrs.frozen
class Layout:
    """Where things are in an outer packet. All positions count from the start of the frame."""

    ethertype: int
    version: int
    protocol_at: int
    hops_at: int
    source_at: int
    udp_at: int


LAYOUTS = {
    4: Layout(IPV4, 4, protocol_at=23, hops_at=22, source_at=26, udp_at=34),
    16: Layout(IPV6, 6, protocol_at=20, hops_at=21, source_at=22, udp_at=54),
}
"""By length of address."""


def judge(case: Case, tables: Tables) -> Outcome:
    frame, config = case.frame, tables.config
    layout = LAYOUTS[len(config.local)]
    host = _next_host(frame, layout, tables)
    if host is None:
        return Outcome(verdict=Verdict.PASSED, action=XDP_PASS, frame=frame)
    if tables.generic and word(frame, layout.udp_at + 6) != 0:  # X1
        return Outcome(verdict=Verdict.PASSED_CHECKSUM, action=XDP_PASS, frame=frame)
    if case.hop is None:
        raise ValueError("the transit switch asks for the way, and the case has no answer")
    verdict, asked = _verdict(case.hop), (config.local, host)
    if verdict != Verdict.BOUNCED:
        return Outcome(verdict=verdict, action=XDP_PASS, frame=frame, asked=asked)
    bounced = _sent_on(frame, layout, case.hop, config.local + host)
    return Outcome(verdict=verdict, action=XDP_TX, frame=bounced, asked=asked)


# -- what is left to the kernel ----------------------------------------------------------------------------


def _next_host(frame: bytes, layout: Layout, tables: Tables) -> Ip | None:
    """The host that the tunnel packet is to be sent on to; None if it is not the switch's business."""
    config = tables.config
    if not tables.has_underlay or not is_for_tunnel(frame, layout, config):
        return None
    at = inner_at(frame, layout.udp_at + UDP_BYTES, config)
    if at is None or frame[layout.hops_at] <= 1:
        return None
    destination = inner_destination(frame, at)
    source = frame[layout.source_at : layout.source_at + len(config.local)]
    if destination is None or not tables.is_peer(source):
        return None
    vni = int.from_bytes(frame[layout.udp_at + 12 : layout.udp_at + 15], "big")
    host = _named_host(vni, destination, word(frame, layout.udp_at), tables)
    return host if host != source else None  # K18


def _named_host(vni: int, destination: Ip, number: int, tables: Tables) -> Ip | None:
    """K14 to K16a: the host of the endpoint or of its network's next hop, or else a transit switch."""
    endpoint = tables.endpoints.get((vni, destination))
    network = tables.network(vni, destination) if endpoint is None else None
    if network is not None and network.via is None:
        return tables.switch(network, number)
    if network is not None:
        endpoint = tables.next_hop(vni, network)
    return endpoint.host if isinstance(endpoint, Remote) else None


def is_for_tunnel(frame: bytes, layout: Layout, config: Config) -> bool:
    if word(frame, 12) != layout.ethertype or len(frame) < layout.udp_at:
        return False
    if frame[14] >> 4 != layout.version or frame[layout.protocol_at] != UDP:
        return False
    if layout.ethertype == IPV4 and (frame[14] & 15 != 5 or word(frame, 20) & 0x3FFF):
        return False
    if frame[layout.source_at + len(config.local) : layout.udp_at] != config.local:
        return False
    return (
        len(frame) >= layout.udp_at + UDP_BYTES + TUNNEL_BYTES
        and word(frame, layout.udp_at + 2) == config.port
    )


def inner_at(frame: bytes, tunnel_at: int, config: Config) -> int | None:
    """Where the inner frame starts; None if the kernel would not take the tunnel header."""
    header = frame[tunnel_at : tunnel_at + TUNNEL_BYTES]
    if config.encap == "vxlan":
        return tunnel_at + TUNNEL_BYTES if header[:4] == b"\x08\0\0\0" and header[7] == 0 else None
    if header[0] >> 6 != 0 or header[1] & 0xC0 or header[2:4] != b"\x65\x58":
        return None
    return tunnel_at + TUNNEL_BYTES + 4 * (header[0] & 0x3F)


def inner_destination(frame: bytes, at: int) -> Ip | None:
    ethertype = word(frame, at + 12)
    if ethertype == IPV4 and len(frame) >= at + 34:
        return frame[at + 30 : at + 34]
    if ethertype == IPV6 and len(frame) >= at + 54:
        return frame[at + 38 : at + 54]
    return None


# -- what is sent on ---------------------------------------------------------------------------------------


def _verdict(hop: Hop) -> Verdict:
    if hop.result == HopResult.NO_NEIGHBOUR:  # X2
        return Verdict.PASSED_NO_NEIGHBOUR
    if hop.result == HopResult.FORWARDING_OFF:  # X3
        return Verdict.PASSED_FORWARDING_OFF
    if hop.result != HopResult.SUCCESS:  # X4
        return Verdict.PASSED_NO_ROUTE
    if not hop.same_device:  # X5
        return Verdict.PASSED_OTHER_INTERFACE
    return Verdict.BOUNCED  # X6


def _sent_on(frame: bytes, layout: Layout, hop: Hop, addresses: bytes) -> bytes:
    """X6: `addresses` are the new source and destination."""
    hops = bytes([min(frame[layout.hops_at] - 1, BOUNCED_HOPS)])
    if layout.ethertype == IPV4:
        old, new = frame[22:24] + frame[26:34], hops + frame[23:24] + addresses
        check = changed(word(frame, 24), old, new)
        header = frame[14:22] + new[:2] + check.to_bytes(2, "big") + addresses
    else:
        header = frame[14:21] + hops + addresses
    udp_check = _udp_check(frame, layout, addresses)
    udp = frame[layout.udp_at : layout.udp_at + 6] + udp_check.to_bytes(2, "big")
    return hop.destination_mac + hop.source_mac + frame[12:14] + header + udp + frame[layout.udp_at + 8 :]


def _udp_check(frame: bytes, layout: Layout, addresses: bytes) -> int:
    check = word(frame, layout.udp_at + 6)
    if check == 0:
        return 0
    return changed(check, frame[layout.source_at : layout.udp_at], addresses) or 0xFFFF


def word(frame: bytes, at: int) -> int:
    return int.from_bytes(frame[at : at + 2], "big")
