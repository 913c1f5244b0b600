# SPDX-License-Identifier: Apache-2.0
"""What the transit switch of the tests on single frames knows, once for each encapsulation and family."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import attrs

from mizarnet import Encap, Verdict
from mizarnet.numbers import Limit
from tests.support.packets import mac
from tests.support.reference_switch import Address, Knowledge

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


def knowledge(encap: Encap, underlay: Underlay) -> Knowledge:
    """What the switch of these tests knows, as the reference takes it."""
    host = underlay.host
    places: dict[str, Address | None] = {
        "10.0.0.1": None, "10.0.0.2": host(2), "10.0.0.9": host(UNRESOLVED), "10.0.0.10": underlay.elsewhere,
        "10.0.0.11": underlay.nowhere, "10.0.0.12": underlay.beyond, "10.0.0.13": underlay.refused,
        "fd01::1": None, "fd01::2": host(2), "fd01::9": host(UNRESOLVED),
    }  # fmt: skip
    switches = {
        "10.2.0.0/16": [host(2), host(3), host(4)], "10.2.9.0/24": [host(4)], "10.3.0.0/16": [host(2), host(LOCAL)],
        "10.4.0.0/16": [], "fd02::/64": [host(2), host(3), host(4)], "fd03::/64": [host(LOCAL), host(2)],
        "::/0": [host(3)],
    }  # fmt: skip
    return Knowledge(
        encap=encap.value,
        port=PORTS[encap],
        local=host(LOCAL),
        mac=OWN,
        peers=[ip_network(underlay.prefix(host(0)))],
        endpoints={
            **{(VNI, ip_address(ip)): place for ip, place in places.items()},
            (8, ip_address("10.0.0.2")): host(3),
            (Limit.VNI_MAX, ip_address("10.0.0.2")): host(4),
        },
        networks={
            **{(VNI, ip_network(prefix)): hosts for prefix, hosts in switches.items()},
            (9, ip_network("0.0.0.0/0")): [host(4)],
        },
        hops={
            **{host(number): address for number, address in NEIGHBOURS.items()},
            host(UNRESOLVED): Verdict.PASSED_NO_NEIGHBOUR,
            underlay.elsewhere: Verdict.PASSED_OTHER_INTERFACE,
            underlay.nowhere: Verdict.PASSED_NO_ROUTE,
            underlay.refused: Verdict.PASSED_NO_ROUTE,
            underlay.beyond: NEIGHBOURS[2],
        },
    )
