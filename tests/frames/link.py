# SPDX-License-Identifier: Apache-2.0
"""Ethernet, VLAN tags and ARP."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address

TYPE_IPV4, TYPE_ARP, TYPE_IPV6 = 0x0800, 0x0806, 0x86DD
BROADCAST = bytes(6 * [255])
VIRTUAL = bytes.fromhex("026d7a6e0001")
"""The MAC under which agents answer for everything that is not on their host."""

ARP_HEADER = struct.Struct("!HHBBH6s4s6s4s")


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def u16(value: int) -> bytes:
    """A field of two bytes."""
    return value.to_bytes(2, "big")


def patched(data: bytes, at: int, new: bytes) -> bytes:
    """With other bytes from a place on, which make it wrong if nothing else is done."""
    return data[:at] + new + data[at + len(new) :]


def ethernet(destination: bytes, source: bytes, ethertype: int, payload: bytes) -> bytes:
    return destination + source + u16(ethertype) + payload


def frame(destination: bytes, source: bytes, packet: bytes) -> bytes:
    """An IP packet in the frame of its family."""
    return ethernet(destination, source, TYPE_IPV6 if packet[0] >> 4 == 6 else TYPE_IPV4, packet)


def tagged(frame: bytes, *tags: tuple[int, int]) -> bytes:
    """With VLAN tags, the outermost first: each its kind, and priority and number."""
    return frame[:12] + b"".join(u16(kind) + u16(number) for kind, number in tags) + frame[12:]


def arp(
    sender_mac: bytes, sender: str, target: str, *, operation: int = 1, target_mac: bytes = bytes(6)
) -> bytes:
    addresses = sender_mac, IPv4Address(sender).packed, target_mac, IPv4Address(target).packed
    return ARP_HEADER.pack(1, TYPE_IPV4, 6, 4, operation, *addresses)
