# SPDX-License-Identifier: Apache-2.0
"""Random tables that a host could have: tenants that share addresses, networks in networks, hosts that moved."""

from __future__ import annotations

import random
from typing import Literal, TypeAlias

from tests.model.state import (
    Config,
    Elsewhere,
    Ip,
    Local,
    Mac,
    Network,
    Place,
    Prefix,
    Remote,
    SenderRecord,
    State,
)

Endpoints: TypeAlias = dict[tuple[int, Ip], Place]

KINDS = 8
"""Kinds of host, one after the other: encapsulation, family of the underlay, whether the route can be read."""
LIFE = 4096
"""States before all constants change: loading a program takes as long as thousands of cases."""

NUMBERS = 256
"""Traffic numbers are smaller."""
UNKNOWN_PLACES = (0, 3, 4, 0x80000001, 0xFFFFFFFF)
VIRTUAL_MAC = bytes.fromhex("026d7a6e0001")
LENGTHS = {
    4: (24, 24, 24, 24, 24, 16, 16, 8, 0, 32, 32, 31, 30, 25, 1, 9, 17, 28),
    16: (64, 64, 64, 64, 64, 128, 128, 0, 127, 120, 96, 48, 32, 33, 65, 31, 1, 97),
}
SITES = {
    4: [bytes.fromhex(site) for site in ("0a000000", "0a000100", "0a010000", "c0a80500", "64400000")],
    16: [
        bytes.fromhex(site) + bytes(8)
        for site in ("fd00000000000000", "fd00000000000001", "fd00000100000000", "20010db800000000")
    ],
}


def masked(ip: Ip, length: int) -> Ip:
    """The first address of a prefix."""
    bits = 8 * len(ip)
    return (int.from_bytes(ip, "big") >> (bits - length) << (bits - length)).to_bytes(len(ip), "big")


def inside(rng: random.Random, prefix: Prefix) -> Ip:
    """An address of a prefix: the first, the last, or any."""
    ip, length = prefix
    host_bits = 8 * len(ip) - length
    last = (1 << host_bits) - 1
    host = rng.choice((0, last, last & 1, rng.getrandbits(host_bits) if host_bits else 0))
    return (int.from_bytes(ip, "big") | host).to_bytes(len(ip), "big")


def unicast_mac(rng: random.Random) -> Mac:
    """Of a device that chose its own."""
    return bytes([rng.choice((0x02, 0x06, 0x0A, 0x52, 0xFE))]) + rng.randbytes(5)


def config_of(seed: int, number: int) -> Config:
    """The constants that a state was loaded with."""
    life, kind = divmod(number, LIFE)[0], number % KINDS
    rng = random.Random(f"config {seed} {life} {kind}")
    encap: Literal["vxlan", "geneve"] = "geneve" if kind & 1 else "vxlan"
    mark = rng.getrandbits(32) | 1
    other = rng.choice((mark ^ 1 << rng.randrange(1, 32), rng.getrandbits(32) & ~1))
    return Config(
        encap=encap,
        port=rng.choice((4789, 6081, rng.randrange(1, 65536))),
        local=rng.choice(_hosts(16 if kind & 2 else 4)),
        mtu=rng.choice((576, 1280, 1430, 1450, 8950, 9000, rng.randint(576, 1600), rng.randint(576, 9000))),
        tunnel_mac=unicast_mac(rng),
        virtual_mac=VIRTUAL_MAC,
        mark_local=mark,
        mark_bounced=other or 2,
        token_bounced=rng.randbytes(12),
        route_identity=not kind & 4,
    )


def state_of(seed: int, number: int) -> State:
    """A state, always the same for the same numbers."""
    return Builder(random.Random(f"state {seed} {number}"), config_of(seed, number)).build()


def _hosts(size: int) -> list[Ip]:
    """Underlay addresses: some in one prefix, some that differ in one bit."""
    if size == 4:
        return [
            bytes.fromhex(ip)
            for ip in ("c0000201", "c0000202", "c0000203", "c6336401", "c0000301", "0a000001")
        ]
    site = bytes.fromhex("20010db800aa0000")
    far = site[:7] + b"\x01" + bytes(7) + b"\x01"
    return [*(site + bytes(7) + bytes([last]) for last in (1, 2, 3, 0x81)), far]


class Builder:
    """Makes one state."""

    def __init__(self, rng: random.Random, config: Config) -> None:
        self.rng = rng
        self.config = config
        self.hosts = [ip for ip in _hosts(len(config.local)) if ip != config.local]
        special = (1, 7, 0xFFFFFF, 0x800000, 0x010000, rng.randrange(1, 1 << 24))
        self.vnis = rng.sample(special, rng.choice((2, 2, 3)))
        self.addresses = {size: self._addresses(size) for size in (4, 16)}

    def build(self) -> State:
        """All tables."""
        senders = dict(self._senders())
        endpoints = self._endpoints(senders)
        networks = dict(self._network(endpoints) for _ in range(self.rng.choice((0, 2, 4, 8, 12))))
        networks |= self._default_routes(endpoints)
        return State(
            config=self.config,
            senders=senders,
            endpoints=endpoints,
            networks=networks,
            peers=frozenset(self._peers()),
            routers=self._routers(endpoints, networks),
            generic=self.rng.random() < 0.4,
            tunnel=self.rng.random() >= 0.03,
            moved=self.rng.random() < 0.03,
        )

    def _addresses(self, size: int) -> list[Ip]:
        """What all VNIs choose from, so that they share some."""
        rng = self.rng
        sites = rng.sample(SITES[size], 2)
        found = [rng.choice(sites)[:-1] + bytes([rng.randrange(1, 255)]) for _ in range(9)]
        found += [
            sites[0][:-2] + rng.randbytes(2),
            inside(rng, (masked(sites[1], 16), 16)),
            rng.randbytes(size),
        ]
        return [ip for ip in found if size == 16 or ip[0] < 224]

    def _address(self, size: int) -> Ip:
        return self.rng.choice(self.addresses[size])

    def _gateway(self, ip: Ip, length: int) -> Ip:
        """The last but one of the site, any of the prefix, or far away."""
        rng = self.rng
        return rng.choice(
            (
                ip[:-1] + b"\xfe",
                ip[:-1] + b"\xfe",
                inside(rng, (masked(ip, length), length)),
                self._address(len(ip)),
            )
        )

    # -- senders

    def _senders(self) -> list[tuple[Mac, SenderRecord]]:
        rng = self.rng
        taken: set[tuple[int, Ip]] = set()
        numbers = rng.sample(range(NUMBERS), 8)
        cookies = rng.sample((1, 2, 4097, 1 << 63, (1 << 64) - 1, rng.getrandbits(64)), 3)
        return [
            (self._mac(), self._sender(numbers[index], rng.choice(cookies), taken))
            for index in range(rng.randint(2, 8))
        ]

    def _mac(self) -> Mac:
        if self.rng.random() < 0.1:  # one bit beside the tunnel's own
            near = int.from_bytes(self.config.tunnel_mac, "big") ^ 1 << self.rng.randrange(40)
            return near.to_bytes(6, "big")
        return unicast_mac(self.rng)

    def _sender(self, number: int, cookie: int, taken: set[tuple[int, Ip]]) -> SenderRecord:
        rng = self.rng
        vni = rng.choice(self.vnis)
        sizes = rng.choice(((4,), (16,), (4, 16), (4, 16), (16, 4)))
        own = [(self._own_address(vni, size, taken), rng.choice(LENGTHS[size])) for size in sizes]
        gateways = [self._gateway(ip, length) for ip, length in own if rng.random() < 0.7]
        return SenderRecord(
            vni=vni,
            number=number,
            netns_cookie=cookie,
            ifindex=rng.choice((0, 2, rng.randrange(2, 40), rng.randrange(2, 40))),
            forwarding=rng.random() < 0.2,
            more=rng.random() < 0.4,
            addresses=tuple(own),
            gateways=tuple(gateways),
            told_in=rng.choice((0, 1)),
            told=rng.choice((0, 1, 98, 99, 100, 100)),
        )

    def _own_address(self, vni: int, size: int, taken: set[tuple[int, Ip]]) -> Ip:
        free = [ip for ip in self.addresses[size] if (vni, ip) not in taken]
        ip = self.rng.choice(free) if free else b"\x0a" + self.rng.randbytes(size - 1)
        if size == 16 and self.rng.random() < 0.06:
            ip = bytes.fromhex("fe80000000000000") + self.rng.randbytes(8)
        taken.add((vni, ip))
        return ip

    # -- endpoints

    def _endpoints(self, senders: dict[Mac, SenderRecord]) -> dict[tuple[int, Ip], Place]:
        """Of the senders' own addresses nearly all, and some more of them and of others."""
        rng = self.rng
        found: dict[tuple[int, Ip], Place] = {}
        for _ in range(rng.randint(3, 16)):
            found[rng.choice(self.vnis), self._address(rng.choice((4, 16)))] = self._remote()
        for mac, known in senders.items():
            for ip, length in (*known.addresses, *self._further(known)):
                if rng.random() < 0.9:
                    found[known.vni, ip] = self._own_place(mac, known, length)
        if rng.random() < 0.3:
            of, known = rng.choice([*senders.items()])
            elsewhere = Elsewhere(rng.choice(UNKNOWN_PLACES), known.number, of, self._remote().host)
            found[rng.choice([*found])] = elsewhere
        return found

    def _further(self, known: SenderRecord) -> list[tuple[Ip, int]]:
        """Addresses that only their entries name, of senders that say so and of some that do not."""
        rng = self.rng
        count = rng.randint(1, 4) if known.more else rng.choice((0, 0, 1))
        return [(self._address(size), rng.choice(LENGTHS[size])) for size in rng.choices((4, 16), k=count)]

    def _own_place(self, mac: Mac, known: SenderRecord, length: int) -> Place:
        """Nearly always of the sender in all that it says."""
        rng = self.rng
        if rng.random() < 0.06:
            return self._remote()
        number = known.number if rng.random() < 0.97 else rng.randrange(NUMBERS)
        forwarding = known.forwarding if rng.random() < 0.9 else not known.forwarding
        tap = rng.random() < 0.3
        return Local(number, mac if rng.random() < 0.97 else unicast_mac(rng), forwarding, length, tap)

    def _remote(self) -> Remote:
        return Remote(self.config.local if self.rng.random() < 0.03 else self.rng.choice(self.hosts))

    # -- networks and peers

    def _network(self, endpoints: Endpoints) -> tuple[tuple[int, Prefix], Network]:
        rng = self.rng
        size = rng.choice((4, 16))
        length = rng.choice(LENGTHS[size])
        vni, prefix = rng.choice(self.vnis), (masked(self._address(size), length), length)
        return (vni, prefix), self._of_network(vni, prefix, endpoints)

    def _default_routes(self, endpoints: Endpoints) -> dict[tuple[int, Prefix], Network]:
        """Of both families, or of one of them, or none."""
        rng = self.rng
        prefixes = rng.choice(((), (bytes(4),), (bytes(16),), (bytes(4), bytes(16))))
        keys = [(rng.choice(self.vnis), (ip, 0)) for ip in prefixes]
        return {(vni, prefix): self._of_network(vni, prefix, endpoints) for vni, prefix in keys}

    def _of_network(self, vni: int, prefix: Prefix, endpoints: Endpoints) -> Network:
        rng = self.rng
        gateway = self._gateway(*prefix) if rng.random() < 0.6 else None
        switches = rng.choices(self.hosts, k=rng.choice((0, 0, 1, 1, 2, 3, 5, 16, rng.randint(0, 16))))
        if switches and rng.random() < 0.15:
            switches[rng.randrange(len(switches))] = self.config.local
        if rng.random() < 0.3:
            return self._by_next_hop(vni, len(prefix[0]), endpoints, Network(gateway, tuple(switches)))
        return Network(gateway, tuple(switches))

    def _by_next_hop(self, vni: int, size: int, endpoints: Endpoints, other: Network) -> Network:
        """An endpoint of the VNI, one that forwards more often, or anybody; with gateway and switches, rarely."""
        rng = self.rng
        known = [(ip, place) for (of, ip), place in endpoints.items() if of == vni and len(ip) == size]
        routers = [ip for ip, place in known if isinstance(place, Remote) or getattr(place, "forwarding", 0)]
        everybody = [*routers, *routers, *(ip for ip, _ in known), self._address(size)]
        via = rng.choice(everybody)
        return Network(other.gateway, other.switches, via) if rng.random() < 0.1 else Network(None, (), via)

    def _routers(
        self, endpoints: Endpoints, networks: dict[tuple[int, Prefix], Network]
    ) -> dict[tuple[int, Ip], tuple[Ip, ...]]:
        """The hosts that next hops are on, and others; of some of them entries that are not true any more."""
        rng = self.rng
        found: dict[tuple[int, Ip], tuple[Ip, ...]] = {}
        for (vni, _), network in networks.items():
            place = endpoints.get((vni, network.via)) if network.via is not None else None
            if network.via is not None and isinstance(place, Remote) and rng.random() < 0.9:
                known = found.get((vni, place.host), ())
                found[vni, place.host] = (*known, network.via)[-4:]
        for _ in range(rng.choice((0, 1, 2))):
            vias = rng.choices([ip for _, ip in endpoints], k=rng.randint(1, 4))
            found[rng.choice(self.vnis), rng.choice(self.hosts)] = tuple(vias)
        return found

    def _peers(self) -> list[Prefix]:
        rng = self.rng
        own, other = len(self.config.local), 20 - len(self.config.local)
        every = [(ip, 8 * own) for ip in self.hosts]
        some = rng.sample(every, 3)
        site = rng.choice(self.hosts)
        length = rng.choice((8, 24, 25, 30, 31) if own == 4 else (32, 64, 96, 121, 127))
        wide = [(masked(site, length), length)]
        usual = [every, [*every, *wide], [*some, *wide], [(bytes(own), 0)]] * 4
        return rng.choice([*usual, some, wide, [*wide, (bytes(other), 0)], [(bytes(other), 0)], []])
