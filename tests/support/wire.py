# SPDX-License-Identifier: Apache-2.0
"""An attacker on the underlay: a process at the other end of the first host's cable sends tunnel packets made by hand.

The host does all its work inside the call that sends a packet, on the sender's CPU. So no queue lies between the two
that a fast sender could fill, and each packet can be accounted for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from ipaddress import ip_address

import attrs

import mizarnet as mz
from mizarnet import Verdict
from tests.frames import BROADCAST, PORTS, datagram, frame, ipv4, mac, tunnel, udp
from tests.support.flood import Flooded, flood, shares
from tests.support.onlookers import (
    EndpointOnlooker,
    HostOnlooker,
    assert_seen,
    assert_silence,
    device_counters,
    protocol_counters,
)
from tests.support.wait import wait_until
from tests.world import ADDRESSES, BLUE, TUNNEL, UNDERLAY, Container, Tenants, mac_of

HOST, PEER = ADDRESSES
THIRD = "192.0.2.3"
"""Another peer: nothing is sent on to the one that it came from."""
OTHER_ADDRESSES = "192.0.2.101", "fd00:6d7a:1::1"
"""Of the attacked host, on the device that has the tunnel's."""
STRANGER, STRANGERS_IP = mac("02:00:00:00:00:99"), "10.0.0.50"
"""A sender that no table knows, which is no reason to refuse it."""


@attrs.frozen
class Packet:
    """A frame on the cable, with what must become of it.

    Attributes:
        frame: From the outer Ethernet header on.
        verdict: The guard's; None: the kernel refuses it before the guard could.
    """

    frame: bytes
    verdict: Verdict | None


@attrs.frozen
class Ledger:
    """What the kernels counted; each packet has left its trace in ``lost`` or ``arrived``.

    Attributes:
        lost: Packets that a full queue of the host cost, by the device that sent them.
        arrived: IPv4 packets that the host's stack received, those out of tunnel packets among them.
        decapsulated: Frames that came out of the tunnel.
        answers: IPv4 packets that the host's stack sent.
    """

    lost: int
    arrived: int
    decapsulated: int
    answers: int

    def since(self, earlier: Ledger) -> Ledger:
        """What was counted after ``earlier``."""
        now, then = attrs.astuple(self), attrs.astuple(earlier)
        return Ledger(*(a - b for a, b in zip(now, then, strict=True)))


def passed(program: Mapping[Verdict, mz.Counter]) -> dict[Verdict, int]:
    """What a program counted, refusals and all."""
    return {verdict: counter.packets for verdict, counter in program.items() if counter.packets}


def judged(stats: mz.Stats) -> dict[Verdict, int]:
    """What the guard counted, and the shortcut of what it took out of its tunnel in the guard's place."""
    taken = Counter(passed(stats.shortcut))
    del taken[Verdict.PASSED]
    return dict(taken + Counter(passed(stats.guard)))


def expected(packets: Sequence[Packet], count: int, *, by_kernel: int) -> dict[Verdict, int]:
    """What the guard must count for ``count`` packets, sent in turn, of which the kernel took some.

    Newer kernels do not hand over frames with a cut inner header: so many of those may be missing.
    """
    found: Counter[Verdict | None] = Counter()
    for packet, times in shares(packets, count).items():
        found[packet.verdict] += times
    found[Verdict.TRUNCATED] += found.pop(None, 0) - by_kernel
    return {verdict: number for verdict, number in found.items() if verdict is not None and number}


class Wire:
    """The attacker of a net's first host, with an onlooker on every endpoint of both hosts and on that host."""

    def __init__(self, net: Tenants) -> None:
        """Give the host more addresses, and let it take packets from senders that it has no route to."""
        self.net = net
        first, second = net.world.hosts
        for address in OTHER_ADDRESSES:
            first.namespace.run("ip", "address", "replace", address, "dev", UNDERLAY, "nodad")
        for which in ("all", UNDERLAY):
            first.namespace.run("sysctl", "-q", "-w", f"net.ipv4.conf.{which}.rp_filter=0")
        self.tunnel_mac = mac_of(first.namespace, TUNNEL)
        self.cable = mac_of(first.namespace, UNDERLAY), mac_of(second.namespace, UNDERLAY)
        self.has_shortcut = first.agent.state().shortcut.on
        containers = (net.blue1, net.blue2, net.green1, net.red1, net.blue3, net.green3)
        with ExitStack() as undo:
            self.endpoints = {container: EndpointOnlooker(container) for container in containers}
            for onlooker in self.endpoints.values():
                undo.callback(onlooker.close)
            self.host = HostOnlooker(first.namespace, (HOST, *OTHER_ADDRESSES, "127.0.0.1"))
            undo.callback(self.host.close)
            self._undo = undo.pop_all()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    # -- packets

    def legal(self, to: Container, *, payload: bytes = b"frame") -> bytes:
        """An inner frame for an endpoint that nothing is wrong with, but that nobody sent it."""
        return datagram(STRANGER, STRANGERS_IP, to.ip, destination_mac=to.mac, payload=payload)

    def outer(self, payload: bytes, *, source: str = PEER, destination: str = HOST, flags: int = 0) -> bytes:
        """The frame on the cable around a tunnel header and what follows it; ``flags`` of the outer header."""
        port = PORTS[self.net.world.encap]
        to, sender = self.cable
        address = ip_address(destination)
        if address.is_multicast:
            to = b"\x01\x00\x5e" + address.packed[1:]
        elif address.packed[3] == 255:
            to = BROADCAST
        packet = ipv4(source, destination, udp(4242, port, payload), flags=flags)
        return frame(to, sender, packet)

    def packet(
        self, verdict: Verdict | None, inner: bytes, *, vni: int = BLUE, source: str = PEER, to: str = HOST
    ) -> Packet:
        """A tunnel packet."""
        return Packet(self.outer(self.tunnel(vni, inner), source=source, destination=to), verdict)

    def tunnel(self, vni: int, inner: bytes) -> bytes:
        """A frame with a tunnel header."""
        return tunnel(self.net.world.encap, vni, inner)

    # -- attacks

    def send(self, packets: Iterable[Packet], count: int) -> Flooded:
        """Put ``count`` packets on the cable, in turn."""
        with self.net.second.namespace.packet_socket(UNDERLAY) as raw:
            return flood(raw.fileno(), [each.frame for each in packets], count)

    def assert_refused(self, packets: Sequence[Packet], *, count: int) -> None:
        """Send the packets in turn: none arrives anywhere, and each is counted for its reason."""
        agent = self.net.first.agent
        ledger, stats = self.ledger(), agent.stats()
        self.send(packets, count)

        def settled() -> bool:
            """Frames out of the tunnel wait for their turn before the guard sees them."""
            now, known = self.ledger().since(ledger), judged(agent.stats().since(stats))
            return now.arrived >= count and sum(known.values()) >= now.decapsulated

        wait_until(settled, lambda: f"{self.ledger().since(ledger)}\n{agent.stats().since(stats)}")
        since, counted = self.ledger().since(ledger), agent.stats().since(stats)
        assert (since.arrived, since.lost, since.answers) == (count, 0, 0), f"{since}\n{counted}"
        wanted = expected(packets, count, by_kernel=count - since.decapsulated)
        assert judged(counted) == wanted, f"{since}\n{counted}\nwanted: {wanted}"
        assert passed(counted.agent) == {}, f"{counted}"
        self.assert_nothing_seen()
        self.assert_watched()

    def ledger(self) -> Ledger:
        """Where the packets are now."""
        host = self.net.first.namespace
        ip, tunnel = protocol_counters(host), device_counters(host, TUNNEL)
        # What the shortcut refuses reaches neither the host's stack nor the tunnel's device.
        shortcut = passed(self.net.first.agent.stats().shortcut)
        taken = sum(number for verdict, number in shortcut.items() if verdict.dropped)
        return Ledger(
            lost=device_counters(self.net.second.namespace, UNDERLAY)["tx_dropped"],
            arrived=ip["Ip.InReceives"] + taken,
            decapsulated=tunnel["rx_packets"] + taken,
            answers=ip["Ip.OutRequests"],
        )

    # -- onlookers

    def assert_nothing_seen(self) -> None:
        """No frame reached an endpoint's device, and nothing a socket of the host."""
        assert_silence(self.endpoints.values())
        assert self.host.reached() == []

    def assert_seen(self, expected: Mapping[Container, int]) -> None:
        """So many frames, soon, reach the devices of those endpoints, and none that of another."""
        labels = {self.endpoints[container].label: frames for container, frames in expected.items()}
        assert_seen(self.endpoints.values(), labels)

    def assert_watched(self) -> None:
        """The onlookers see one packet each that is meant for them; those on the other host a bounced one."""
        good = [
            self.packet(None, self.legal(each), vni=each.endpoint.vni, source=THIRD)
            for each in self.endpoints
        ]
        self.send(good, len(good))
        self.assert_seen(dict.fromkeys(self.endpoints, 1))
        self.host.assert_reachable()


Kind = Callable[[Wire], Iterator[Packet]]
"""The packets of an attack."""
