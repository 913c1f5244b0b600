# SPDX-License-Identifier: Apache-2.0
"""Questions about neighbours: ARP with all fields good or one bad, neighbour discovery in all its forms."""

from __future__ import annotations

import random

from tests import frames
from tests.frames import ICMPV6, u16
from tests.frames.upper import ICMP_HEADER
from tests.fuzz.frames_ip import IpFrames
from tests.fuzz.pools import PICK, mostly, pool
from tests.fuzz.speakers import MULTICAST_MACS, Speaker
from tests.model.state import Mac

TYPE_ARP = u16(frames.TYPE_ARP)
SOLICITED = bytes.fromhex("ff0200000000000000000001ff")

_GOOD = bytes.fromhex("0001080006040001")
_BAD = """
    0001080006040002 0001080006040000 0001080006040101 0006080006040001 0001080606040001 0001080007040001
    0001080006050001 0101080006040001 00010800060400ff 00010800ff040001 0001080006000001 000186dd06100001
"""
_FIXED = mostly(_GOOD, *(bytes.fromhex(bad) for bad in _BAD.split()))
_TYPES = [135] * 40 + [136] * 9 + [134] * 4 + [137] * 4 + [133] * 3 + [138, 0, 128, 255]
_CODES = mostly(0, 1, 2, 255)
_HOPS = mostly(255, 254, 64, 1, 0)


class NeighbourFrames:
    """Makes ARP and neighbour discovery."""

    def __init__(self, rng: random.Random, ip_frames: IpFrames, macs: list[Mac]) -> None:
        self._bits = rng.getrandbits
        self._ip_frames = ip_frames
        self._asked_macs = pool(rng, (56, MULTICAST_MACS[:1]), (8, macs))
        self._target_macs = pool(rng, (52, [bytes(6)]), (12, macs))
        self._macs = pool(rng, (64, macs))

    def arp(self, of: Speaker) -> bytes:
        """A question, most often in the sender's own name."""
        bits = self._bits
        mac = of.macs[bits(PICK)]
        named = self._macs[bits(PICK)] if bits(5) == 0 else mac
        body = b"".join(
            (
                _FIXED[bits(PICK)],
                named,
                of.sources[4][bits(PICK)],
                self._target_macs[bits(PICK)],
                of.targets[4][bits(PICK)],
            )
        )
        return self._asked_macs[bits(PICK)] + mac + TYPE_ARP + body

    def nd(self, of: Speaker) -> bytes:
        """A question, an advertisement, a redirect; bare, hidden, or broken."""
        bits = self._bits
        target = of.targets[16][bits(PICK)] if bits(3) else of.sources[16][bits(PICK)]
        flags = 0 if bits(1) else bits(32)
        mac = of.macs[bits(PICK)]
        message = ICMP_HEADER.pack(_TYPES[bits(PICK)], _CODES[bits(PICK)], bits(16), flags) + target
        message += self._option(mac)
        if bits(4) == 0:
            message = message[: bits(5)]
        protocol = ICMPV6
        if bits(4) == 0:
            protocol, message = self._ip_frames.hidden(ICMPV6, message)
        to = SOLICITED + target[13:] if bits(1) else of.targets[16][bits(PICK)]
        frame = self._ip_frames.packet(of, protocol, message, to, _HOPS[bits(PICK)])
        return (MULTICAST_MACS[bits(2)] if bits(1) else frame[:6]) + mac + frame[12:]

    def _option(self, mac: Mac) -> bytes:
        """The first option, mostly what a stack sends."""
        bits = self._bits
        kind = bits(4)
        if kind < 8:
            return b"\x01\x01" + mac
        if kind < 11:
            return b""
        named = self._macs[bits(PICK)]
        return (
            b"\x01\x01" + named,
            b"\x02\x01" + mac,
            b"\x0e\x01" + named + b"\x01\x01" + named,
            b"\x01\x00" + named,
            b"\x01\x01" + mac + b"\x01\x01" + named,
        )[kind - 11]
