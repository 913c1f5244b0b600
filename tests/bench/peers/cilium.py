# SPDX-License-Identifier: Apache-2.0
"""Cilium's style: programs at the host's ends of veth pairs, a VXLAN device in metadata mode, ``redirect_peer``."""

from __future__ import annotations

from mizarnet._kernel.bpf import Direction, Program, TcxHook
from tests.bench.peers.base import Peer
from tests.support.namespace import Namespace
from tests.world import UNDERLAY, device


class Cilium(Peer):
    """With the kernel's own way through the VXLAN device."""

    name = "cilium"
    says = "Cilium's style: veth, VXLAN in metadata mode, redirect_peer; no policy, no counters"
    tunnel = "vx0"
    way_out, way_in = "style_from", "style_to"

    def build(self) -> None:
        """A VXLAN device, and a program at each end."""
        guests = self.guests()
        self.pairs(guests)
        for number, host in enumerate(self.hosts):
            self.make_tunnel(host)
            loaded = self.load(number, guests, tunnel=device(host, self.tunnel).ifindex)
            attach(host, device(host, self.tunnel).ifindex, loaded.programs[self.way_in])
            for near in ("q0", "q1"):
                self.attach_way_out(host, device(host, near).ifindex, loaded.programs[self.way_out])
        self.introduce(guests)
        self.ways(guests)

    def attach_way_out(self, host: Namespace, near: int, program: Program) -> None:
        """Attach the program for what a guest sends to the device that the host has of it."""
        attach(host, near, program)

    def make_tunnel(self, host: Namespace) -> None:
        """The device that ``way_in`` is on."""
        mtu = str(self.inner_mtu)
        kind = ("type", "vxlan", "external", "dstport", "4789")
        host.run("ip", "link", "add", self.tunnel, "mtu", mtu, *kind)
        host.run("ip", "link", "set", self.tunnel, "up")


class CiliumInPlace(Cilium):
    """Past the VXLAN device both ways: the header is written, and taken off, in the packet."""

    name = "in-place"
    says = "the same with the header written and taken off in the packet, past every tunnel device (ONCache's idea)"
    tunnel = UNDERLAY
    way_out, way_in = "in_place_from", "in_place_to"

    def make_tunnel(self, host: Namespace) -> None:
        """The NIC is there."""


def attach(host: Namespace, ifindex: int, program: Program) -> None:
    """Attach a program to the ingress of a device."""
    hook = TcxHook(ifindex, Direction.INGRESS)
    host.call(lambda: hook.attach(program, revision=hook.query().revision))
