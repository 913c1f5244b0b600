# SPDX-License-Identifier: Apache-2.0
"""mizarnet itself, with every check on: by the kernel's way in, and by the shortcut."""

from __future__ import annotations

from typing import ClassVar, Literal

import mizarnet as mz
from tests.bench.peers.base import VNI, Peer, address_of
from tests.world import ADDRESSES, TUNNEL, UNDERLAY


class Mizarnet(Peer):
    """A tunnel and an agent on each host, and MACVLANs for the guests."""

    name = "mizarnet"
    says = "all checks and counters on, by the kernel's way in"
    encap: ClassVar[Literal["vxlan", "geneve"]] = "vxlan"
    shortcut: ClassVar[Literal["off", "auto"]] = "off"

    def build(self) -> None:
        """Two hosts that know each other's endpoints."""
        guests = self.guests()
        self.agents = tuple(self._agent(number) for number in (0, 1))
        for (host, number), guest in guests.items():
            agent, other = self.agents[host], self.agents[1 - host]
            address = address_of(host, number)
            mz.Endpoint.create(agent, vni=VNI, ip=f"{address}/24", netns=guest.name)
            other.endpoints[VNI, address] = mz.Remote(ADDRESSES[host])
        self.ways(guests)

    def _agent(self, host: int) -> mz.TransitAgent:
        tunnel = mz.Tunnel.create(TUNNEL, encap=self.encap, underlay=UNDERLAY, netns=self.hosts[host].name)
        self._undo.callback(tunnel.close)
        self._undo.callback(tunnel.delete, force=True)
        agent = mz.TransitAgent.attach(tunnel, peers=["192.0.2.0/24"], shortcut=self.shortcut)
        self._undo.callback(agent.close)
        return agent


class WithShortcut(Mizarnet):
    """Plain tunnel packets are taken out of their tunnel on the underlay."""

    name = "shortcut"
    says = 'mizarnet with shortcut="auto": the same checks, in a program on the underlay'
    shortcut = "auto"


class Geneve(Mizarnet):
    """In the other encapsulation."""

    name = "geneve"
    says = "mizarnet with Geneve in place of VXLAN"
    encap = "geneve"
