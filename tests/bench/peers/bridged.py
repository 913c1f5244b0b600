# SPDX-License-Identifier: Apache-2.0
"""Bridge and VXLAN, as Flannel and Docker's overlay do: a veth pair per guest, and one fixed remote."""

from __future__ import annotations

from tests.bench.peers.base import VNI, Peer
from tests.world import ADDRESSES


class Bridge(Peer):
    """With the bridge's netfilter off."""

    name = "bridge"
    says = "veth, bridge and VXLAN with a fixed remote; br_netfilter off"
    netfilter = 0

    def build(self) -> None:
        """A bridge on each host, with the guests and a VXLAN device."""
        guests, mtu = self.guests(), str(self.inner_mtu)
        for host, own, other in zip(self.hosts, ADDRESSES, reversed(ADDRESSES), strict=True):
            host.run("ip", "link", "add", "br7", "mtu", mtu, "type", "bridge")
            host.run("ip", "link", "set", "br7", "up")
            tunnel = ("id", str(VNI), "dstport", "4789", "local", own, "remote", other)
            host.run("ip", "link", "add", "vx7", "mtu", mtu, "type", "vxlan", *tunnel)
            host.run("ip", "link", "set", "vx7", "master", "br7", "up")
        self.pairs(guests)
        for host in self.hosts:
            for number in (0, 1):
                host.run("ip", "link", "set", f"q{number}", "master", "br7")
            if has_netfilter(self):
                host.set(**{"bridge/bridge-nf-call-iptables": self.netfilter})
        self.introduce(guests)
        self.ways(guests)


class BridgeNetfilter(Bridge):
    """With the bridge's netfilter on, as Docker and kube-proxy want it."""

    name = "bridge-nf"
    says = "veth, bridge and VXLAN with a fixed remote; br_netfilter on"
    netfilter = 1


def has_netfilter(peer: Peer) -> bool:
    """Whether the kernel lets iptables look at what crosses a bridge, where that is asked for."""
    found = (
        peer.hosts[0]
        .run("find", "/proc/sys/net", "-maxdepth", "2", "-name", "bridge-nf-call-iptables")
        .strip()
    )
    return bool(found)
