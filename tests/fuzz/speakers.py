# SPDX-License-Identifier: Apache-2.0
"""Who may be behind a frame, and whom it may be for: MACs and addresses to choose from, most of them true."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from typing import TypeAlias

from tests.frames import ip as bytes_of
from tests.frames import link_local
from tests.fuzz.pools import pool
from tests.fuzz.states import inside
from tests.model.case import RoutedBy, SentBy
from tests.model.state import Ip, Local, Mac, Network, Remote, SenderRecord, State

Origin: TypeAlias = RoutedBy | SentBy | None

MULTICAST_MACS = [
    bytes.fromhex(mac) for mac in ("ffffffffffff", "01005e000001", "333300000001", "3333ff000001")
]
_ODD_IPV4 = "00000000 ffffffff fffffffe e0000001 efffffff dfffffff f0000000 7f000001 a9fe0101"
_ODD_IPV6 = """
    00000000000000000000000000000000 00000000000000000000000000000001 ff020000000000000000000000000001
    ff0200000000000000000001ff000001 ff000000000000000000000000000000 fe800000000000000000000000000001
    feffffffffffffffffffffffffffffff fe800000000000000000000000000000 80000000000000000000000000000000
"""
_ODD = {
    4: [bytes.fromhex(ip) for ip in _ODD_IPV4.split()],
    16: [bytes.fromhex(ip) for ip in _ODD_IPV6.split()],
}
_OTHER_SHAPES = "vvo"
_SHAPES = {
    (True, True): "4" * 26 + "6" * 20 + "a" * 7 + "n" * 8 + _OTHER_SHAPES,
    (True, False): "4" * 46 + "6" * 3 + "a" * 10 + "n" * 2 + _OTHER_SHAPES,
    (False, True): "4" * 3 + "6" * 42 + "a" * 2 + "n" * 14 + _OTHER_SHAPES,
}
"""64 kinds of frame for a sender with and without IPv4, with and without IPv6: see `frames`."""
_SHAPES_FAR = "4" * 33 + "6" * 24 + "a" * 1 + "n" * 3 + _OTHER_SHAPES
"""Of a tenant on another host."""
SOCKET_FAMILIES = (17, 44, 0, 2, 10, 16, 1)


def mapped(ip: Ip) -> Ip:
    """An IPv4 address as programs keep it, but as IPv6."""
    return bytes(10) + b"\xff\xff" + ip


def flipped(rng: random.Random, ip: Ip) -> Ip:
    """One bit beside."""
    return (int.from_bytes(ip, "big") ^ 1 << rng.randrange(8 * len(ip))).to_bytes(len(ip), "big")


class Directory:
    """Everybody's addresses in a state, by VNI and length."""

    def __init__(self, state: State, rng: random.Random) -> None:
        self.state = state
        self.rng = rng
        self.vnis = sorted({vni for vni, _ in (*state.endpoints, *state.networks)} | set(self._own_vnis()))
        self.macs = list(state.senders)
        self.other_macs = [state.config.tunnel_mac, state.config.virtual_mac, bytes(6), rng.randbytes(6)]
        self.everybody = {size: self._everybody(size) for size in (4, 16)}

    def _own_vnis(self) -> Iterator[int]:
        return (known.vni for known in self.state.senders.values())

    def _everybody(self, size: int) -> list[Ip]:
        known = [ip for _, ip in self.state.endpoints if len(ip) == size]
        known += [ip for own in self.state.senders.values() for ip, _ in own.addresses if len(ip) == size]
        return known or [bytes([10]) + self.rng.randbytes(size - 1)]

    def local(self, vni: int, size: int) -> list[Ip]:
        """Endpoints of this host."""
        return [ip for (of, ip), place in self._endpoints(vni, size) if isinstance(place, Local)]

    def hosts(self) -> list[Ip]:
        """Of endpoints of others, whether those hosts are peers or not."""
        return [place.host for place in self.state.endpoints.values() if isinstance(place, Remote)]

    def remote(self, vni: int, size: int) -> list[Ip]:
        """Endpoints of others."""
        return [ip for (of, ip), place in self._endpoints(vni, size) if not isinstance(place, Local)]

    def _endpoints(self, vni: int, size: int) -> Iterator[tuple[tuple[int, Ip], object]]:
        return (
            (key, place)
            for key, place in self.state.endpoints.items()
            if key[0] == vni and len(key[1]) == size
        )

    def further(self, mac: Mac, known: SenderRecord, size: int) -> list[tuple[Ip, int]]:
        """Addresses of a sender that its record does not name, whether it says that there are some or not."""
        first = dict(known.addresses)
        return [
            (ip, place.prefix_length)
            for (_, ip), place in self._endpoints(known.vni, size)
            if isinstance(place, Local) and place.mac == mac and ip not in first
        ]

    def networks(self, vni: int, size: int) -> list[tuple[tuple[Ip, int], Network]]:
        """Prefixes of a VNI."""
        return [
            (prefix, net)
            for (of, prefix), net in self.state.networks.items()
            if of == vni and len(prefix[0]) == size
        ]

    def in_networks(self, vni: int, size: int, *, sent_on: bool = False) -> list[Ip]:
        """Addresses in the prefixes of a VNI, or only of those with transit switches."""
        found = self.networks(vni, size)
        return [
            inside(self.rng, prefix)
            for prefix, net in found
            for _ in "12"
            if net.switches or net.via or not sent_on
        ]

    def network_gateways(self, vni: int, size: int) -> list[Ip]:
        """Of the networks of a VNI."""
        return [net.gateway for _, net in self.networks(vni, size) if net.gateway]

    def nobody(self, size: int) -> list[Ip]:
        """Special addresses, any, and those beside known ones."""
        rng = self.rng
        known = self.everybody[size]
        found = _ODD[size] + [flipped(rng, rng.choice(known)) for _ in range(6)] + [rng.randbytes(size)]
        if size == 16:
            found += [mapped(rng.choice(self.everybody[4])), bytes_of(link_local(rng.choice(self.macs)))]
        return found


class Speaker:
    """One sender, or all of one VNI: pools of what a frame of theirs may have where.

    `sources` and `targets` are by length of address.
    """

    def __init__(self, vni: int, macs: list[Mac], to_macs: list[Mac]) -> None:
        self.vni = vni
        self.macs = macs
        self.to_macs = to_macs
        self.sources: dict[int, list[Ip]] = {}
        self.targets: dict[int, list[Ip]] = {}
        self.shapes = ""
        self.origins: list[Origin] = []


def neighbour_macs(of: Directory) -> list[Mac]:
    """Where a frame may be sent to."""
    return pool(
        of.rng, (44, [of.state.config.virtual_mac]), (12, of.macs), (4, of.other_macs), (4, MULTICAST_MACS)
    )


def sender(of: Directory, mac: Mac, known: SenderRecord, others: list[Mac]) -> Speaker:
    """An endpoint of this host, as the agent meets it."""
    rng = of.rng
    made = Speaker(known.vni, pool(rng, (61, [mac]), (3, others)), neighbour_macs(of))
    for size in (4, 16):
        addresses = [each for each in known.addresses if len(each[0]) == size]
        own, further = [ip for ip, _ in addresses], of.further(mac, known, size)
        neighbours = [ip for ip in of.local(known.vni, size) if ip not in own]
        gateways = [ip for ip in known.gateways if len(ip) == size]
        linked = [bytes_of(link_local(mac))] if size == 16 else []
        anybody, odd = of.everybody[size], of.nobody(size)
        here = [inside(rng, _on_link(ip, length)) for ip, length in (*addresses, *further) for _ in "123"]
        made.sources[size] = pool(
            rng, (38, own or anybody), (12, [ip for ip, _ in further]), (5, linked), (1, gateways),
            (4, anybody), (4, odd),
        )  # fmt: skip
        made.targets[size] = pool(
            rng, (10, neighbours or anybody), (16, of.remote(known.vni, size)), (4, own),
            (6, gateways), (5, of.network_gateways(known.vni, size)), (9, of.in_networks(known.vni, size)),
            (4, here), (3, anybody), (5, odd), (2, linked),
        )  # fmt: skip
    families = {len(ip) for ip, _ in known.addresses}
    made.shapes = _SHAPES[4 in families, 16 in families]
    made.origins = pool(
        rng, (52, [RoutedBy(known.netns_cookie, known.ifindex or 5)]), (12, _origins(of, known))
    )
    return made


def _on_link(ip: Ip, length: int) -> tuple[Ip, int]:
    bits = 8 * len(ip)
    first = int.from_bytes(ip, "big") >> (bits - length) << (bits - length)
    return first.to_bytes(len(ip), "big"), length


def _origins(of: Directory, known: SenderRecord) -> list[Origin]:
    """The sender's and others' devices and sockets, and none."""
    cookies = [known.netns_cookie, *(other.netns_cookie for other in of.state.senders.values()), 0]
    families = of.rng.choices(SOCKET_FAMILIES, k=6)
    found: list[Origin] = [None, None, RoutedBy(known.netns_cookie, 0), RoutedBy(known.netns_cookie, 39)]
    found += [RoutedBy(of.rng.choice(cookies), of.rng.choice((known.ifindex, 1))) for _ in range(3)]
    found += [SentBy(known.netns_cookie, family) for family in (17, 44, 0, *families)]
    return found + [SentBy(of.rng.choice(cookies), family) for family in families[:4]]


def tenant(of: Directory, vni: int, *, sent_on: bool) -> Speaker:
    """Endpoints of a VNI on other hosts, as the guard meets them; `sent_on`: mostly with frames for yet others."""
    rng = of.rng
    far = [rng.randbytes(6) for _ in range(4)]
    own = [mac for mac, known in of.state.senders.items() if known.vni == vni]
    made = Speaker(
        vni, pool(rng, (52, _unicast(far)), (3, own), (5, of.macs), (4, of.other_macs)), neighbour_macs(of)
    )
    made.shapes = _SHAPES_FAR
    for size in (4, 16):
        local, remote, anybody = of.local(vni, size), of.remote(vni, size), of.everybody[size]
        beyond, odd = of.in_networks(vni, size, sent_on=True), of.nobody(size)
        stations = remote or odd
        made.sources[size] = pool(rng, (36, stations), (7, beyond), (10, local), (4, anybody), (7, odd))
        elsewhere = [(30, remote or beyond or anybody), (16, beyond)]
        made.targets[size] = pool(
            rng, *(elsewhere if sent_on else [(24, local or anybody), (13, remote), (9, beyond)]), (6, local),
            (4, of.in_networks(vni, size)), (2, of.network_gateways(vni, size)), (2, anybody), (4, odd),
        )  # fmt: skip
    return made


def _unicast(macs: Iterable[Mac]) -> list[Mac]:
    return [bytes([mac[0] & 0xFE]) + mac[1:] for mac in macs]
