# SPDX-License-Identifier: Apache-2.0
"""Prints how long a host takes to send a tunnel packet on: by the transit switch in native XDP, and by the kernel.

``python -m tests.bench.bounces``, as root, on a machine that does nothing else. The host has one NIC, a veth whose
other end sends small tunnel packets and counts what comes back. The kernel is given packets of the same length that are
addressed to the other host outright, and forwards them as a router with one leg; a third host drops all that arrives,
which is what sending costs alone. Everything is on one CPU in the real-time class, and the three take turns.
"""

from __future__ import annotations

import random
import statistics
import struct
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar

import mizarnet as mz
from mizarnet._kernel.bpf import ObjectSpec
from mizarnet._model.specs import XdpMode
from tests.bench import peers
from tests.bench.peers.base import VNI, Site
from tests.frames import PORTS, datagram, frame, packet, tunnel, udp
from tests.support.isolation import isolate
from tests.support.namespace import Namespace
from tests.support.native_xdp import attached
from tests.support.wait import wait_until
from tests.world import ADDRESSES, TUNNEL, UNDERLAY, cable, mac_of

HOST, SENDER = ADDRESSES
ONWARD, GUEST = "192.0.2.3", "10.5.0.9"
FRAME_BYTES, HEADER_BYTES = 128, 92
COUNT, ROUNDS = 200_000, 30
ON_ONE_CPU = ("taskset", "-c", "0", "chrt", "-f", "10")
_TRAFFIC = struct.Struct("=128sQ")


class Hop(Site):
    """A host whose NIC ends in a sender that counts what comes back; vanishes with ``close()``.

    Attributes:
        name: What it does with a packet.
        to: Where the sender's packets are addressed to.
        host: The host's namespace.
    """

    name: ClassVar[str]
    to: ClassVar[str] = HOST

    def __init__(self, programs: Path) -> None:
        """Build it; ``programs`` is the object of ``peers.bpf.c``."""
        self._object = programs
        super().__init__()

    def set_up(self) -> None:
        """A host and a sender at the two ends of a cable."""
        self._programs = self._undo.enter_context(ObjectSpec.open(self._object, name="peers").load())
        self.host, self._sender = self.namespace("host"), self.namespace("sender")
        cable(self.host, self._sender)
        self.count_at(self._sender)
        command = ("ip", "neighbour", "replace", ONWARD, "lladdr", mac_of(self._sender, UNDERLAY).hex(":"))
        self.host.run(*command, "dev", UNDERLAY, "nud", "permanent")
        self.build()

    def build(self) -> None:
        """Prepare the host."""
        raise NotImplementedError

    def count_at(self, namespace: Namespace) -> None:
        """Have a program count and drop what arrives at a NIC."""
        counting = attached(self._programs.programs["count_it"], namespace.name, UNDERLAY, XdpMode.NATIVE)
        self._undo.enter_context(counting)

    def time(self, pump: Path, *, count: int = COUNT) -> float:
        """Nanoseconds for each of ``count`` packets; all of them must have been counted."""
        sent, contents = self._programs.maps["traffic"], self._frame()
        sent.update(bytes(4), _TRAFFIC.pack(contents, 0))
        command = (*ON_ONE_CPU, pump, str(self._programs.programs["send_it"].id), UNDERLAY, str(count))
        done = self._sender.call(
            lambda: subprocess.run(command, input=contents, capture_output=True, check=True)
        )
        # The last of them may be left to a thread of the kernel, which waits for the CPU.
        wait_until(lambda: self._arrived() >= count, lambda: f"{self.name}: {self._arrived()} of {count}")
        assert self._arrived() == count
        return int(done.stdout) / count

    def _arrived(self) -> int:
        _, arrived = _TRAFFIC.unpack(self._programs.maps["traffic"].lookup(bytes(4)) or bytes(_TRAFFIC.size))
        return int(arrived)

    def _frame(self) -> bytes:
        payload = bytes(FRAME_BYTES - HEADER_BYTES)
        inside = datagram(
            bytes(5) + b"\1", "10.5.0.1", GUEST, destination_mac=bytes(5) + b"\2", payload=payload
        )
        outer = packet(SENDER, self.to, udp(50_000, PORTS["vxlan"], tunnel("vxlan", VNI, inside)))
        return frame(mac_of(self.host, UNDERLAY), mac_of(self._sender, UNDERLAY), outer)


class Dropping(Hop):
    """What sending costs alone."""

    name = "dropped on arrival"

    def build(self) -> None:
        self.count_at(self.host)


class Bouncing(Hop):
    """The transit switch in native mode."""

    name = "bounced by the transit switch"

    def build(self) -> None:
        tunnel = mz.Tunnel.create(TUNNEL, encap="vxlan", underlay=UNDERLAY, netns=self.host.name)
        self._undo.callback(tunnel.close)
        self._undo.callback(tunnel.delete, force=True)
        self.agent = self._undo.enter_context(
            mz.TransitAgent.attach(tunnel, peers=[f"{SENDER}/32", f"{ONWARD}/32"])
        )
        self.agent.endpoints[VNI, GUEST] = mz.Remote(ONWARD)
        mz.TransitSwitch.attach(self.agent, mode="native")


class Forwarding(Hop):
    """The kernel, told to forward."""

    name = "forwarded by the kernel"
    to = ONWARD

    def build(self) -> None:
        redirects = {f"ipv4/conf/{name}/send_redirects": 0 for name in ("all", UNDERLAY)}
        self.host.set(**{"ipv4/ip_forward": 1}, **redirects)
        # Else a veth takes no frame from its peer's XDP.
        self.host.run("ethtool", "-K", UNDERLAY, "gro", "on")


def main() -> None:
    isolate()
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        programs = peers.compile_programs(Path(directory))
        pump = peers.compile_tool("pump", Path(directory))
        hops = [stack.enter_context(kind(programs)) for kind in (Dropping, Bouncing, Forwarding)]
        times: dict[str, list[float]] = {each.name: [] for each in hops}
        for _ in range(ROUNDS):
            for hop in random.sample(hops, len(hops)):
                times[hop.name].append(hop.time(pump))
    for name, each in times.items():
        print(f"{name:32} {_spread(each)} ns")
    sending, bouncing, forwarding = times.values()
    ratios = [there / here for here, there in zip(bouncing, forwarding, strict=True)]
    print(f"{'kernel to switch':32} {_spread(ratios)}")
    alone, here, there = (statistics.median(each) for each in (sending, bouncing, forwarding))
    print(f"{'the same without sending':32} {(there - alone) / (here - alone):7.2f}")


def _spread(of: list[float]) -> str:
    return f"{statistics.median(of):7.2f} ({min(of):.2f}-{max(of):.2f})"


if __name__ == "__main__":
    main()
