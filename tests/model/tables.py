# SPDX-License-Identifier: Apache-2.0
"""Look-ups in a host's tables: the sender behind a MAC, endpoints, networks, peers, the MAC of an address."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Generic, TypeVar

from tests.model.case import Case, TunnelKey
from tests.model.state import Elsewhere, Ip, Local, Mac, Network, Prefix, Remote, SenderRecord, State

Found = TypeVar("Found")


class Prefixes(Generic[Found]):
    """The longest prefix that contains an address decides."""

    def __init__(self, entries: Iterable[tuple[Prefix, Found]]) -> None:
        by_length: dict[tuple[int, int], dict[int, Found]] = defaultdict(dict)
        for (first, length), found in entries:
            shift = 8 * len(first) - length
            by_length[len(first), shift][int.from_bytes(first, "big") >> shift] = found
        self._by_family: dict[int, list[tuple[int, dict[int, Found]]]] = {4: [], 16: []}
        for (family, shift), found_by_bits in sorted(by_length.items(), key=lambda item: item[0]):
            self._by_family[family].append((shift, found_by_bits))

    def find(self, ip: Ip) -> Found | None:
        bits = int.from_bytes(ip, "big")
        for shift, found_by_bits in self._by_family[len(ip)]:
            if bits >> shift in found_by_bits:
                return found_by_bits[bits >> shift]
        return None


class Sender:
    """A sender, ready to be asked about addresses."""

    def __init__(self, mac: Mac, record: SenderRecord, further: Mapping[Ip, int]) -> None:
        self.record = record
        self.vni = record.vni
        self._further = {
            ip: length for ip, length in further.items() if ip not in dict(record.addresses)
        }  # O2
        self.own = frozenset(self._further) | {ip for ip, _ in record.addresses}  # O1
        self.link_local = link_local(mac)
        self.gateways = {len(ip): ip for ip in record.gateways}
        self._on_link = Prefixes((prefix, True) for prefix in record.addresses)

    def is_on_link(self, source: Ip, destination: Ip) -> bool:
        if self._on_link.find(destination) is not None:  # N1
            return True
        if source not in self._further or len(source) != len(destination):
            return False
        return Prefixes([((source, self._further[source]), True)]).find(destination) is not None  # N2

    def is_gateway(self, ip: Ip) -> bool:
        return self.gateways.get(len(ip)) == ip


class Tables:
    """A state, prepared for many look-ups."""

    def __init__(self, state: State) -> None:
        self.config = state.config
        self.generic = state.generic
        self.has_underlay = state.tunnel and not state.moved
        self.endpoints = state.endpoints
        self._routers = state.routers
        self.senders = {
            mac: Sender(mac, record, self._further(mac, record)) for mac, record in state.senders.items()
        }
        self._peers = Prefixes((prefix, True) for prefix in state.peers)
        by_vni: dict[int, list[tuple[Prefix, Network]]] = defaultdict(list)
        for (vni, prefix), network in state.networks.items():
            by_vni[vni].append((prefix, network))
        self._networks = {vni: Prefixes(entries) for vni, entries in by_vni.items()}

    def _further(self, mac: Mac, record: SenderRecord) -> dict[Ip, int]:
        """Further addresses of a sender, with the lengths of their on-link prefixes."""
        if not record.more:
            return {}
        return {
            ip: place.prefix_length
            for (vni, ip), place in self.endpoints.items()
            if vni == record.vni
            and isinstance(place, Local)
            and (place.number, place.mac) == (record.number, mac)
        }

    def readable_key(self, case: Case) -> TunnelKey | None:
        """Section 2.1: a key is readable if its family is that of the tunnel's underlay."""
        key = case.key
        return key if key is not None and len(key.remote) == len(self.config.local) else None

    def is_peer(self, ip: Ip) -> bool:
        return self._peers.find(ip) is not None

    def local(self, vni: int, ip: Ip) -> Local | None:
        """The endpoint of this host."""
        endpoint = self.endpoints.get((vni, ip))
        return endpoint if isinstance(endpoint, Local) else None

    def network(self, vni: int, ip: Ip) -> Network | None:
        networks = self._networks.get(vni)
        return networks.find(ip) if networks is not None else None

    def switch(self, network: Network, number: int) -> Ip | None:
        """The transit switch for a flow; none if the network has none, or if this host is among them."""
        switches = network.switches
        return switches[number % len(switches)] if switches and self.config.local not in switches else None

    def next_hop(self, vni: int, network: Network) -> Local | Remote | None:
        """The entry of a network's next hop, if what is for others may go there (N1 and N2)."""
        endpoint = self.endpoints.get((vni, network.via)) if network.via is not None else None
        if isinstance(endpoint, Local):
            return endpoint if endpoint.forwarding else None
        return endpoint if isinstance(endpoint, Remote) else None

    def is_host_of_router(self, vni: int, host: Ip) -> bool:
        """Section 3: whether a next hop of the VNI is at that host."""
        places = (self.endpoints.get((vni, via)) for via in self._routers.get((vni, host), ()))
        return Remote(host) in places

    def mac_of(self, ip: Ip, sender: Sender) -> Mac | None:
        """Section 2.3: the MAC of an address, in the sender's VNI."""
        endpoint = self.endpoints.get((sender.vni, ip))
        if isinstance(endpoint, Local):
            return endpoint.mac
        if isinstance(endpoint, Elsewhere):
            return None
        if endpoint is not None or self.network(sender.vni, ip) is not None or sender.is_gateway(ip):
            return self.config.virtual_mac
        return None


def link_local(mac: Mac) -> Ip:
    """fe80::/64 with the modified EUI-64 of a MAC (RFC 4291, appendix A)."""
    return b"\xfe\x80" + bytes(6) + bytes([mac[0] ^ 2]) + mac[1:3] + b"\xff\xfe" + mac[3:6]
