# SPDX-License-Identifier: Apache-2.0
"""Tunnel packets as the underlay device receives them: outer headers good, or with something wrong."""

from __future__ import annotations

import random

from tests.frames.internet import IPV4_HEADER, IPV6_HEADER, checksum
from tests.frames.upper import UDP_HEADER
from tests.fuzz.frames_ip import BYTES, TYPE_IPV4, TYPE_IPV6
from tests.fuzz.options import option_fields
from tests.fuzz.pools import PICK, mostly, pool
from tests.fuzz.speakers import Directory, flipped
from tests.fuzz.states import inside
from tests.model.state import Ip

_IPV4, _IPV6, _UDP = IPV4_HEADER.pack, IPV6_HEADER.pack, UDP_HEADER.pack

_HOPS = [64] * 34 + [255] * 5 + [10] * 3 + [9] * 3 + [8] * 3 + [2] * 6 + [1] * 6 + [0] * 4
_FIRST = mostly(0x45, 0x46, 0x46, 0x46, 0x4F, 0x4F, 0x44, 0x55, 0x65, 0x40)
_FIRST_WORD = mostly(0x60000000, 0x6FFFFFFF, 0x40000000, 0x50000000)
_FRAGMENTS = mostly(0, *[0x4000] * 20, 0x2000, 1, 0x1FFF, 0x8000)
_PROTOCOLS = mostly(17, 6, 136, 44, 0, 60)
_ODD_VXLAN = "00000000 0c000000 88000000 08010000 08000100 08000001 09000000 48000000 08800000 ffffffff"
_ODD_GENEVE = "806558 406558 c06558 016558 3f6558 000800 0086dd 006559 006500 000058"
_VXLAN = mostly(bytes.fromhex("08000000"), *(bytes.fromhex(odd) for odd in _ODD_VXLAN.split()))
_GENEVE = mostly(bytes.fromhex("006558"), *(bytes.fromhex(odd) for odd in _ODD_GENEVE.split()))
_LAST = mostly(0, 1, 0x80, 0xFF)


NOBODYS = {
    4: [bytes.fromhex(ip) for ip in ("00000001", "7f000001", "e0000001", "ffffffff")],
    16: [bytes(16), bytes(15) + b"\1", b"\xff\2" + bytes(13) + b"\1"],
}
"""Addresses that no host has."""


class OuterFrames:
    """Puts frames into tunnel packets."""

    def __init__(self, rng: random.Random, of: Directory) -> None:
        config = of.state.config
        self._bits = rng.getrandbits
        self._local = config.local
        self._is_ipv4 = len(config.local) == 4
        self._is_vxlan = config.encap == "vxlan"
        self._port = config.port
        self._ethertypes = mostly(
            *((TYPE_IPV4, TYPE_IPV6) if self._is_ipv4 else (TYPE_IPV6, TYPE_IPV4)), b"\x81\x00", b"\x08\x06"
        )
        self._ports = mostly(config.port, config.port ^ 1, 4789, 6081, 0)
        self._to = pool(rng, (61, [config.local]), (3, [flipped(rng, config.local)]))
        peers = [
            inside(rng, prefix) for prefix in sorted(of.state.peers) if len(prefix[0]) == len(config.local)
        ]
        strangers = [rng.randbytes(len(config.local)), config.local, *(flipped(rng, ip) for ip in peers)]
        strangers += NOBODYS[len(config.local)] + of.hosts()
        self._from = pool(rng, (58, peers or strangers), (6, strangers))
        hosts = of.hosts() + [ip for network in of.state.networks.values() for ip in network.switches]
        self._hosts = pool(rng, (64, hosts or [config.local]))
        self._macs = [rng.randbytes(12) for _ in range(64)]
        self._options = option_fields(rng)

    def packet(self, vni: int, inner: bytes) -> bytes:
        """A tunnel packet with a frame in it."""
        bits = self._bits
        source = self._from[bits(PICK)]
        odd = bits(2) == 0
        tunnel = self._odd_tunnel_header(vni) if odd else self._tunnel_header(vni)
        length = (8 + len(tunnel) + len(inner)) & 0xFFFF
        port = self._ports[bits(PICK)] if odd else self._port
        udp = _UDP(bits(16), port, length if bits(5) else bits(16), self._checksum(source))
        network = self._ipv4(source, length, odd) if self._is_ipv4 else self._ipv6(source, length, odd)
        return self._macs[bits(PICK)] + self._ethertypes[bits(PICK)] + network + udp + tunnel + inner

    def plain(self, vni: int, inner: bytes) -> bytes:
        """A tunnel packet as another host of mizarnet sends it."""
        return self._plain(vni, inner, 0, 0, 0)

    def nearly_plain(self, vni: int, inner: bytes) -> bytes:
        """The same, but that one of its lengths, its checksum or its congestion bits may be others."""
        bits = self._bits
        which, off = bits(3), 1 << bits(4)
        return self._plain(
            vni,
            inner,
            off if which == 0 else 0,
            off if which == 1 else 0,
            off if which == 2 else 0,
            congestion=bits(2) if which > 4 else 0,
        )

    def _plain(
        self, vni: int, inner: bytes, network_off: int, udp_off: int, check_off: int, congestion: int = 0
    ) -> bytes:
        bits = self._bits
        source, hops = self._from[bits(PICK)], _HOPS[bits(PICK)]
        number = vni.to_bytes(4, "big")[1:] + b"\0"
        tunnel = (_VXLAN[0] if self._is_vxlan else b"\0" + _GENEVE[0]) + number
        length = 8 + len(tunnel) + len(inner)
        udp = _UDP(bits(16), self._port, length ^ udp_off, 0)
        if self._is_ipv4:
            header = _IPV4(
                0x45, bits(6) << 2 | congestion, (20 + length) ^ network_off, bits(16), 0, hops, 17, 0, source,
                self._local,
            )  # fmt: skip
            check = checksum(header) ^ check_off
            network = header[:10] + check.to_bytes(2, "big") + header[12:]
        else:
            first = 0x60000000 | congestion << 20 | bits(20)
            network = _IPV6(first, length ^ network_off, 17, hops, source, self._local)
        ethertype = TYPE_IPV4 if self._is_ipv4 else TYPE_IPV6
        return self._macs[bits(PICK)] + ethertype + network + udp + tunnel + inner

    def _checksum(self, source: Ip) -> int:
        """None, any, or one that becomes zero when the packet goes on to some host."""
        bits = self._bits
        kind = bits(3)
        if kind < 5:
            return 0
        if kind < 7:
            return bits(16)
        target = self._hosts[bits(PICK)]
        return 0xFFFF - (int.from_bytes(source, "big") - int.from_bytes(target, "big")) % 0xFFFF

    def _ipv4(self, source: Ip, length: int, odd: bool) -> bytes:
        bits = self._bits
        hops, check = _HOPS[bits(PICK)], bits(16) if bits(3) else 0xFEFF
        if not odd:
            return _IPV4(
                0x45, 0, (20 + length) & 0xFFFF, bits(16), 0x4000, hops, 17, check, source, self._local
            )
        first = _FIRST[bits(PICK)]
        options = bytes(4 * (first & 15) - 20) if first > 0x45 and bits(1) else b""
        return _IPV4(
            first, bits(8), (20 + len(options) + length) & 0xFFFF, bits(16), _FRAGMENTS[bits(PICK)], hops,
            _PROTOCOLS[bits(PICK)], check, source, self._to[bits(PICK)],
        ) + options  # fmt: skip

    def _ipv6(self, source: Ip, length: int, odd: bool) -> bytes:
        bits = self._bits
        hops = _HOPS[bits(PICK)]
        if not odd:
            return _IPV6(0x60000000, length, 17, hops, source, self._local)
        first = _FIRST_WORD[bits(PICK)] | bits(20)
        return _IPV6(first, length, _PROTOCOLS[bits(PICK)], hops, source, self._to[bits(PICK)])

    def _tunnel_header(self, vni: int) -> bytes:
        number = vni.to_bytes(4, "big")[1:] + b"\0"
        if self._is_vxlan:
            return _VXLAN[0] + number
        options = self._options[self._bits(4)] if self._bits(2) == 0 else b""
        return BYTES[len(options) >> 2] + _GENEVE[0] + number + options

    def _odd_tunnel_header(self, vni: int) -> bytes:
        bits = self._bits
        number = vni.to_bytes(4, "big")[1:] + BYTES[_LAST[bits(PICK)]]
        if self._is_vxlan:
            return _VXLAN[bits(PICK)] + number
        options = self._options[bits(4)] if bits(1) else b""
        units = (len(options) >> 2, len(options) >> 2, bits(6), bits(8))[bits(2)]
        return BYTES[units] + _GENEVE[bits(PICK)] + number + options
