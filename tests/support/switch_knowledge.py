# SPDX-License-Identifier: Apache-2.0
"""What the transit switch of the tests on single frames knows, once for each encapsulation and family."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TypeAlias

import attrs

from mizarnet import Encap
from mizarnet._model.enumerations import Limit
from tests.frames import mac
from tests.model.case import Hop, HopResult
from tests.model.state import Config, Ip, Local, Network, Prefix, Remote, State

Address: TypeAlias = IPv4Address | IPv6Address

OWN, SENDER, INNER = (mac(f"02:00:00:00:01:{n:02x}") for n in (1, 2, 3))
PORTS = {Encap.VXLAN: 4789, Encap.GENEVE: 6081}
VNI = 7
SENT_FROM = 50_000

# Hosts by the last number of their underlay address: the own one, those with a known MAC, and one without.
LOCAL = 1
NEIGHBOURS = {n: mac(f"02:00:00:00:02:{n:02x}") for n in (2, 3, 4)}
UNRESOLVED = 9


@attrs.frozen
class Underlay:
    """The addresses of one family."""

    version: int

    def host(self, number: int) -> Address:
        return ip_address(f"192.0.2.{number}" if self.version == 4 else f"fd00:6d::{number:x}")

    @property
    def elsewhere(self) -> Address:
        """Behind the other device."""
        return ip_address("198.51.100.9" if self.version == 4 else "fd00:6e::9")

    @property
    def beyond(self) -> Address:
        """Behind the gateway, which is host 2."""
        return ip_address("198.18.0.9" if self.version == 4 else "fd00:6f::9")

    @property
    def nowhere(self) -> Address:
        """Without a route."""
        return ip_address("203.0.113.9" if self.version == 4 else "fd00:70::9")

    @property
    def refused(self) -> Address:
        """With a route that says no."""
        return ip_address("198.18.1.9" if self.version == 4 else "fd00:71::9")

    def prefix(self, address: Address, length: int = 24) -> str:
        return str(ip_network((address, length if self.version == 4 else 64), strict=False))


UNDERLAYS = (Underlay(4), Underlay(6))


def knowledge(encap: Encap, underlay: Underlay) -> State:
    """What the switch of these tests knows, as the model takes it."""
    host = underlay.host
    places = {
        "10.0.0.2": host(2), "10.0.0.9": host(UNRESOLVED), "10.0.0.10": underlay.elsewhere,
        "10.0.0.11": underlay.nowhere, "10.0.0.12": underlay.beyond, "10.0.0.13": underlay.refused,
        "fd01::2": host(2), "fd01::9": host(UNRESOLVED),
    }  # fmt: skip
    switches = {
        "10.2.0.0/16": [host(2), host(3), host(4)], "10.2.9.0/24": [host(4)], "10.3.0.0/16": [host(2), host(LOCAL)],
        "10.4.0.0/16": [], "fd02::/64": [host(2), host(3), host(4)], "fd03::/64": [host(LOCAL), host(2)],
        "::/0": [host(3)],
    }  # fmt: skip
    return State(
        config=_config(encap, host(LOCAL).packed),
        senders={},
        endpoints={
            **{(VNI, _ip(here)): Local(0, INNER) for here in ("10.0.0.1", "fd01::1")},
            **{(VNI, _ip(ip)): Remote(place.packed) for ip, place in places.items()},
            (8, _ip("10.0.0.2")): Remote(host(3).packed),
            (Limit.VNI_MAX, _ip("10.0.0.2")): Remote(host(4).packed),
        },
        networks={
            **{(VNI, _prefix(prefix)): _network(hosts) for prefix, hosts in switches.items()},
            (9, _prefix("0.0.0.0/0")): _network([host(4)]),
        },
        peers=frozenset({_prefix(underlay.prefix(host(0)))}),
    )


def ways(underlay: Underlay) -> dict[Ip, Hop]:
    """What the kernel says about the way to each host, if it was told right."""

    def way(result: HopResult, to: bytes = bytes(6), *, same_device: bool = True) -> Hop:
        return Hop(result, same_device, to, OWN)

    hops = {
        **{underlay.host(number): way(HopResult.SUCCESS, address) for number, address in NEIGHBOURS.items()},
        underlay.host(UNRESOLVED): way(HopResult.NO_NEIGHBOUR),
        underlay.elsewhere: way(HopResult.SUCCESS, SENDER, same_device=False),
        underlay.nowhere: way(HopResult.NOT_FORWARDED),
        underlay.refused: way(HopResult.PROHIBIT),
        underlay.beyond: way(HopResult.SUCCESS, NEIGHBOURS[2]),
    }
    return {host.packed: hop for host, hop in hops.items()}


def _config(encap: Encap, local: Ip) -> Config:
    return Config(
        encap=encap.value,
        port=PORTS[encap],
        local=local,
        tunnel_mac=INNER,
        virtual_mac=INNER,
        route_identity=False,
    )


def _ip(text: str) -> Ip:
    return ip_address(text).packed


def _prefix(text: str) -> Prefix:
    network = ip_network(text)
    return network.network_address.packed, network.prefixlen


def _network(switches: list[Address]) -> Network:
    return Network(None, tuple(host.packed for host in switches))
