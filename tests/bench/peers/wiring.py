# SPDX-License-Identifier: Apache-2.0
"""The wiring that the seed of this project starts from: XDP in generic mode at each veth pair and at the NIC."""

from __future__ import annotations

import struct

from mizarnet._kernel.bpf import Map, XdpHook
from mizarnet._model.specs import XdpMode
from tests.bench.peers.base import GUEST, Peer
from tests.support.namespace import Namespace
from tests.world import UNDERLAY, device


class OldWiring(Peer):
    """Programs write the header and redirect by a map of devices; offloads are off, since generic XDP has none."""

    name = "old wiring"
    says = "generic XDP that writes the header and redirects by a device map, offloads off; a minimal copy"

    def build(self) -> None:
        """A program at the NIC and at the host's end of each pair."""
        guests = self.guests()
        self.pairs(guests)
        for (host, number), guest in guests.items():
            without_offloads(guest, GUEST)
            without_offloads(self.hosts[host], f"q{number}")
        for number, host in enumerate(self.hosts):
            loaded = self.load(number, guests)
            for slot, name in enumerate((UNDERLAY, "q0", "q1")):
                program = loaded.programs["wiring_to" if slot == 0 else "wiring_from"]
                hook = XdpHook(device(host, name).ifindex)
                _list(host, loaded.maps["devices"], slot, hook.ifindex)
                host.call(lambda hook=hook, program=program: hook.attach(program, mode=XdpMode.GENERIC))
        self.introduce(guests)
        self.ways(guests)


def without_offloads(namespace: Namespace, name: str) -> None:
    """Have the kernel segment and sum what leaves a device."""
    namespace.run("ethtool", "-K", name, "tso", "off", "gso", "off", "tx", "off", "rx", "off")


def _list(host: Namespace, devices: Map, slot: int, ifindex: int) -> None:
    # The kernel looks the index up in the namespace of the thread that writes it.
    host.call(lambda: devices.update(struct.pack("=I", slot), struct.pack("=I", ifindex)))
