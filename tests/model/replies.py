# SPDX-License-Identifier: Apache-2.0
"""The frames that the agent writes, or turns a frame into."""

from __future__ import annotations

import struct

from tests.model.checksum import changed, icmpv6_checksum, internet_checksum
from tests.model.packet import ETHERNET_BYTES, ICMP, ICMPV6, IPV6, Packet
from tests.model.state import Ip, Mac

ANSWER_HOPS, NEIGHBOUR_HOPS = 64, 255
QUOTED_BYTES, QUOTED_OF_LONG = 8, 48
"""Behind the IP header without options, or the fixed one."""
SOLICITED_OVERRIDE = 0x60000000


def arp_answer(frame: bytes, mac: Mac) -> bytes:
    """Section 2.3: nothing follows the body."""
    asker_mac, asker, target = frame[6:12], frame[28:32], frame[38:42]
    body = frame[14:20] + b"\0\2" + mac + target + asker_mac + asker
    return asker_mac + mac + frame[12:14] + body


def advertisement(packet: Packet, target: Ip, mac: Mac) -> bytes:
    """Section 2.4: the answer to a solicitation."""
    message = struct.pack("!BBHI", 136, 0, 0, SOLICITED_OVERRIDE) + target + b"\2\1" + mac
    ip = _ipv6(target, packet.source, NEIGHBOUR_HOPS, message)
    return packet.source_mac + mac + struct.pack("!H", IPV6) + ip


def time_exceeded(packet: Packet, gateway: Ip, mac: Mac) -> bytes:
    """Section 2.6: it quotes the packet as it came."""
    quoted = packet.frame[ETHERNET_BYTES : packet.header_end + QUOTED_BYTES]
    start = struct.pack("!BBHI", 11 if len(gateway) == 4 else 3, 0, 0, 0)
    return _error(packet, gateway, mac, start + quoted)


def too_long(packet: Packet, speaker: Ip, mac: Mac, mtu: int) -> bytes:
    """Section 2.9: "fragmentation needed" or "packet too big"."""
    quoted = packet.frame[ETHERNET_BYTES : packet.header_end + QUOTED_OF_LONG]
    start = (
        struct.pack("!BBHHH", 3, 4, 0, 0, mtu) if len(speaker) == 4 else struct.pack("!BBHI", 2, 0, 0, mtu)
    )
    return _error(packet, speaker, mac, start + quoted)


def _error(packet: Packet, speaker: Ip, mac: Mac, message: bytes) -> bytes:
    """A message that has no checksum yet, to the sender of the packet."""
    if len(speaker) == 4:
        ip = _ipv4(speaker, packet.source, message)
    else:
        ip = _ipv6(speaker, packet.source, ANSWER_HOPS, message)
    return packet.source_mac + mac + packet.frame[12:14] + ip


def echo_reply(packet: Packet, frame: bytes, mac: Mac) -> bytes:
    """Section 2.7: `frame` is that of the packet, after it has lost a hop if it is a routed one."""
    at, header_end = packet.upper_at, packet.header_end
    kind = b"\x00" if packet.upper == ICMP else b"\x81"
    check = changed(
        int.from_bytes(frame[at + 2 : at + 4], "big"), frame[at : at + 2], kind + frame[at + 1 : at + 2]
    )
    ip = frame[14 : header_end - 2 * len(packet.source)] + packet.destination + packet.source
    message = kind + frame[at + 1 : at + 2] + check.to_bytes(2, "big") + frame[at + 4 :]
    return packet.source_mac + mac + frame[12:14] + ip + frame[header_end:at] + message


def one_hop_less(packet: Packet) -> bytes:
    """Section 2.5: what a routed packet becomes."""
    frame, at = packet.frame, packet.hops_at
    hops = bytes([frame[at] - 1])
    if len(packet.source) == 16:
        return frame[:at] + hops + frame[at + 1 :]
    with_protocol = hops + frame[23:24]
    check = changed(int.from_bytes(frame[24:26], "big"), frame[22:24], with_protocol)
    return frame[:22] + with_protocol + check.to_bytes(2, "big") + frame[26:]


def _ipv4(source: Ip, destination: Ip, message: bytes) -> bytes:
    """An ICMP message that has no checksum yet, in a header without options."""
    message = _with(message, 2, internet_checksum(message))
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(message), 0, 0, ANSWER_HOPS, ICMP, 0)
    header += source + destination
    return _with(header, 10, internet_checksum(header)) + message


def _ipv6(source: Ip, destination: Ip, hops: int, message: bytes) -> bytes:
    """An ICMPv6 message that has no checksum yet, behind the fixed header."""
    message = _with(message, 2, icmpv6_checksum(source, destination, message))
    return struct.pack("!IHBB", 6 << 28, len(message), ICMPV6, hops) + source + destination + message


def _with(data: bytes, at: int, checksum: int) -> bytes:
    return data[:at] + checksum.to_bytes(2, "big") + data[at + 2 :]
