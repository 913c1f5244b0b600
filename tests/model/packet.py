# SPDX-License-Identifier: Apache-2.0
"""Section 1: how the agent and the guard understand a frame."""

from __future__ import annotations

import attrs

from mizarnet import Verdict
from tests.model.refused import Refused
from tests.model.state import Ip, Mac

ETHERNET_BYTES, IPV4_BYTES, IPV6_BYTES = 14, 20, 40
IPV4, ARP, IPV6 = 0x0800, 0x0806, 0x86DD
VLAN = (0x8100, 0x88A8, 0x9100)
ICMP, ICMPV6 = 1, 58
ECHO_REQUEST = {4: (ICMP, 8), 16: (ICMPV6, 128)}
"""By length of address: upper protocol and type."""
ADVERTISEMENT, SOLICITATION = 136, 135

FRAGMENT, AUTHENTICATION = 44, 51
EXTENSIONS = (0, 43, FRAGMENT, AUTHENTICATION, 60)
EXTENSIONS_WALKED, EXTENSIONS_REACH = 6, 128
PADDED_FRAME_BYTES = 60


@attrs.frozen
class Packet:
    """An IP packet in its frame. All positions count from the start of the frame.

    Attributes:
        frame: As it came.
        source: Of the packet.
        destination: Of the packet.
        hops_at: Where the TTL or the hop limit is.
        upper: Number of the upper protocol; None if its header is not in this fragment.
        upper_at: Where the upper protocol's header starts.
        end: Where the packet ends. The frame may be longer.
        fragment: Whether it is one, or says so.
    """

    frame: bytes
    source: Ip
    destination: Ip
    hops_at: int
    upper: int | None
    upper_at: int
    end: int
    fragment: bool

    @property
    def source_mac(self) -> Mac:
        return self.frame[6:12]

    @property
    def hops(self) -> int:
        return self.frame[self.hops_at]

    @property
    def header_end(self) -> int:
        """Behind the IPv4 header without options, or the fixed IPv6 header."""
        return ETHERNET_BYTES + (IPV4_BYTES if len(self.source) == 4 else IPV6_BYTES)

    @property
    def upper_type(self) -> int | None:
        """Type of an ICMP message; None if it is not before the end of the packet."""
        return self.frame[self.upper_at] if self.upper_at < self.end else None

    @property
    def is_multicast(self) -> bool:
        ip = self.destination
        if self.frame[0] & 1:
            return True
        if len(ip) == 16:
            return ip[0] == 0xFF
        return ip[0] >> 4 == 0xE or ip == b"\xff\xff\xff\xff"

    @property
    def is_neighbour_discovery(self) -> bool:
        if self.upper != ICMPV6 or len(self.source) != 16:
            return False
        return self.upper_type in (134, 135, 136, 137, None)

    @property
    def is_echo_request(self) -> bool:
        if self.fragment or (self.upper, self.upper_type) != ECHO_REQUEST[len(self.source)]:
            return False
        return self.upper_at + 8 <= self.end


def understand(frame: bytes, tag: int | None) -> Packet | None:
    """None for ARP, whose body only the agent looks at."""
    ethertype = int.from_bytes(frame[12:14], "big")
    if tag is not None or ethertype in VLAN:  # P1
        raise Refused(Verdict.VLAN_TAGGED)
    if ethertype == IPV4:
        return _ipv4(frame)
    if ethertype == IPV6:
        return _ipv6(frame)
    if ethertype != ARP:  # P2
        raise Refused(Verdict.UNKNOWN_ETHERTYPE)
    return None


def _ipv4(frame: bytes) -> Packet:
    room = len(frame) - ETHERNET_BYTES
    if room < IPV4_BYTES:  # P3
        raise Refused(Verdict.TRUNCATED)
    version, header = frame[14] >> 4, 4 * (frame[14] & 15)
    total = int.from_bytes(frame[16:18], "big")
    if version != 4 or header < IPV4_BYTES or total < header or total > room:  # P4
        raise Refused(Verdict.BAD_IPV4)
    fragment = int.from_bytes(frame[20:22], "big") & 0x3FFF
    return Packet(
        frame,
        source=frame[26:30],
        destination=frame[30:34],
        hops_at=22,
        upper=None if fragment & 0x1FFF else frame[23],
        upper_at=ETHERNET_BYTES + header,
        end=ETHERNET_BYTES + total,
        fragment=fragment != 0,
    )


def _ipv6(frame: bytes) -> Packet:
    room = len(frame) - ETHERNET_BYTES - IPV6_BYTES
    if room < 0:  # P3
        raise Refused(Verdict.TRUNCATED)
    version, payload = frame[14] >> 4, int.from_bytes(frame[18:20], "big")
    if version != 6 or payload > room or (payload == 0 and len(frame) > PADDED_FRAME_BYTES):  # P5
        raise Refused(Verdict.BAD_IPV6)
    end = ETHERNET_BYTES + IPV6_BYTES + payload
    upper, upper_at, fragment = _extensions(frame, end) if frame[20] in EXTENSIONS else (frame[20], 54, False)
    return Packet(frame, frame[22:38], frame[38:54], 21, upper, upper_at, end, fragment)


def _extensions(frame: bytes, end: int) -> tuple[int | None, int, bool]:
    """P6: the upper protocol, where its header starts, and whether there was a fragment header."""
    start = ETHERNET_BYTES + IPV6_BYTES
    kind, at, fragment = frame[20], start, False
    for _ in range(EXTENSIONS_WALKED):
        if kind not in EXTENSIONS:
            break
        if at - start > EXTENSIONS_REACH:
            raise Refused(Verdict.EXTENSION_HEADERS)
        if at + 4 > end:
            raise Refused(Verdict.TRUNCATED)
        following, length = frame[at], _extension_bytes(kind, frame[at + 1])
        if kind == FRAGMENT:
            fragment = True
            if int.from_bytes(frame[at + 2 : at + 4], "big") >> 3:
                return None, at + length, True
        kind, at = following, at + length
    if kind in EXTENSIONS:
        raise Refused(Verdict.EXTENSION_HEADERS)
    return kind, at, fragment


def _extension_bytes(kind: int, size: int) -> int:
    if kind == FRAGMENT:
        return 8
    return 4 * (size + 2) if kind == AUTHENTICATION else 8 * (size + 1)
