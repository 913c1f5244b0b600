# SPDX-License-Identifier: Apache-2.0
"""MACVLAN in bridge mode, on one host: no overlay, no tenants, no checks."""

from __future__ import annotations

from tests.bench.peers.base import GUEST, Peer, Way, address_of
from tests.world import UNDERLAY


class Macvlan(Peer):
    """Two guests on the NIC of one host."""

    name = "macvlan"
    says = "two MACVLANs in bridge mode on the NIC: local only, no tenants"

    def build(self) -> None:
        """A MACVLAN for each of two guests."""
        guests = {(0, number): self.namespace(f"g{number}") for number in (0, 1)}
        for (_, number), guest in guests.items():
            made = ("link", UNDERLAY, "name", f"mv{number}", "mtu", str(self.inner_mtu), "netns", guest.name)
            self.hosts[0].run("ip", "link", "add", *made, "type", "macvlan", "mode", "bridge")
            guest.run("ip", "link", "set", f"mv{number}", "name", GUEST)
            self.give(guest, address_of(0, number))
        self.introduce(guests)
        self.local = Way(guests[0, 0], guests[0, 1], address_of(0, 1))
