# SPDX-License-Identifier: Apache-2.0
"""What the transit switch of the tests on single frames knows, and what the kernel says about the ways to the hosts."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TypeAlias

import attrs

from tests.frames import ip, mac
from tests.model.case import Hop, HopResult
from tests.model.state import Ip, Remote, State
from tests.support.fixtures import named_states
from tests.support.shipped import blind

Address: TypeAlias = IPv4Address | IPv6Address

OWN, SENDER, INNER = (mac(f"02:00:00:00:01:{n:02x}") for n in (1, 2, 3))
VNI = 7
SENT_FROM = 50_000

# Hosts by the last number of their underlay address: the own one, those with a known MAC, and one without.
LOCAL = 1
UNRESOLVED = 9
NEIGHBOURS = {n: mac(f"02:00:00:00:02:{n:02x}") for n in range(2, 32) if n != UNRESOLVED}
# Endpoints: of this host; of another, and that with IPv6; behind switches.
HERE, THERE, THERE_IPV6, SWITCHED, SWITCHED_IPV6 = "10.0.0.1", "10.0.0.9", "fd00::9", "10.1.0.1", "fd01::1"


@attrs.frozen
class Underlay:
    """The addresses of one family."""

    version: int

    def host(self, number: int) -> Address:
        return ip_address(f"192.0.2.{number}" if self.version == 4 else f"2001:db8::{number:x}")

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
TUNNELS = [f"{encap} over IPv{underlay.version}" for encap in ("VXLAN", "Geneve") for underlay in UNDERLAYS]
"""Names of the states of the kept cases that are the same but for their tunnel."""


def knowledge(tunnel: str) -> State:
    """What the switch of a tunnel knows: besides the kept cases' endpoints some on hosts to which there is no way."""
    state, underlay = blind(named_states()[tunnel]), Underlay(int(tunnel[-1]))
    hosts = {
        "10.0.0.109": underlay.host(UNRESOLVED), "fd00::109": underlay.host(UNRESOLVED),
        "10.0.0.110": underlay.elsewhere, "10.0.0.111": underlay.nowhere, "10.0.0.112": underlay.beyond,
        "10.0.0.113": underlay.refused,
    }  # fmt: skip
    more = {(VNI, ip(address)): Remote(host.packed) for address, host in hosts.items()}
    return attrs.evolve(state, endpoints={**state.endpoints, **more})


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
