# SPDX-License-Identifier: Apache-2.0
"""Agent and guard on single frames, without a network: the verdict of each kind of frame, counted once.

A test run gives a frame no route and, when it is an IP packet, a socket of a routed family: the agent that looks
at the route takes it for a reflected one. So most of this uses the object that does not look. Nor does the kernel
take IP packets here that are shorter than their header: those are in ``tests/netns/test_isolation.py``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path

import attrs
import pytest

import mizarnet
from mizarnet import EndpointKey, EndpointSpec, Local, MacAddress, Network, NetworkKey, Remote, Stats, Verdict
from mizarnet._datapath import loader
from mizarnet._kernel.bpf import Object
from mizarnet._kernel.netlink import Session
from mizarnet._kernel.objects import has_route_identity
from mizarnet._model import codec
from mizarnet._model.stats import unpack_stats
from tests.frames import (
    BROADCAST,
    TYPE_ARP,
    TYPE_IPV6,
    arp,
    checksum,
    checksums_hold,
    datagram,
    ethernet,
    frame,
    ip,
    ipv4,
    ipv6,
    mac,
    patched,
    tagged,
    u16,
    udp,
)
from tests.support import filled

OBJECTS = Path(mizarnet.__file__).parent / "_objects"
TC_OK, TC_SHOT, TC_REDIRECT = 0, 2, 7
MARK = 0xC0FFEE01
SENDER, LOCAL, VIRTUAL, TUNNEL, STRANGER = (mac(f"02:00:00:00:00:{n:02x}") for n in range(1, 6))
VNI = 7
CONFIG = filled.config(
    mark_local=MARK, mark_bounced=MARK + 1, virtual_mac=MacAddress(VIRTUAL), tunnel_mac=MacAddress(TUNNEL)
)


def packed_sender(cookie: int) -> bytes:
    spec = EndpointSpec(vni=VNI, ip="10.0.0.1/24", mac=SENDER, gateway="10.0.0.254")
    return filled.record(spec, netns_cookie=cookie).pack_sender()


def fill(loaded: Object, cookie: int) -> None:
    """A sender, a local neighbour, remote ones, and networks with and without a transit switch."""
    places: dict[str, Local | Remote] = {
        "10.0.0.1": Local(MacAddress(SENDER), 0),
        "10.0.0.2": Local(MacAddress(LOCAL), 1),
        "10.0.0.3": Remote("192.0.2.2"),
        "10.1.0.1": Remote("192.0.2.2"),
        "10.1.0.2": Local(MacAddress(LOCAL), 1),
    }
    networks = {"10.2.0.0/16": Network(switches=["192.0.2.9"]), "10.3.0.0/16": Network(gateway="10.3.0.1")}
    for address, place in places.items():
        key = EndpointKey(VNI, ip_address(address))
        loaded.maps["endpoints"].update(codec.pack_endpoint_key(key), codec.pack_endpoint(place))
    for prefix, network in networks.items():
        network_key = NetworkKey(VNI, ip_network(prefix))
        loaded.maps["networks"].update(codec.pack_network_key(network_key), codec.pack_network(network))
    loaded.maps["senders"].update(codec.mac_key(MacAddress(SENDER)), packed_sender(cookie))


@attrs.frozen
class Ran:
    """What a program did with a frame."""

    verdict: Verdict
    action: int
    frame: bytes


@attrs.frozen
class Bench:
    """A loaded object with filled tables."""

    loaded: Object

    def _stats(self) -> Stats:
        return unpack_stats(self.loaded.maps["verdicts"].sum_words()[1])

    def run(self, program: str, frame: bytes, *, mark: int = 0) -> Ran:
        """Run a program on a frame; it must count exactly one verdict."""
        before = self._stats()
        ran = self.loaded.programs[f"mzn_{program}"].test_run(frame, context=struct.pack("III", 0, 0, mark))
        since = self._stats().since(before)
        counted = {
            verdict: counter
            for each in (since.agent, since.guard, since.switch)
            for verdict, counter in each.items()
            if counter.packets
        }
        assert list(counted.values()) == [mizarnet.Counter(1, len(frame))]
        return Ran(next(iter(counted)), ran.verdict, ran.frame)

    def agent(self, frame: bytes) -> Ran:
        return self.run("agent", frame)


def load(name: str) -> Object:
    capacity = mizarnet.Capacity(max_endpoints=16, max_local=4)
    return loader.load(CONFIG.pack(), capacity, path=OBJECTS / name)


@pytest.fixture(scope="module")
def bench(isolated: None) -> Iterator[Bench]:
    """The agent that looks at addresses only."""
    with load("transit-mac-only.bpf.o") as loaded:
        fill(loaded, 0)
        yield Bench(loaded)


def ip_frame(
    destination: str = "10.0.0.3",
    *,
    source: str = "10.0.0.1",
    source_mac: bytes = SENDER,
    to: bytes = VIRTUAL,
    hops: int = 64,
) -> bytes:
    return datagram(source_mac, source, destination, destination_mac=to, hops=hops)


def arp_frame(
    target: str,
    *,
    sender: str = "10.0.0.1",
    source: bytes = SENDER,
    claimed: bytes = SENDER,
    operation: int = 1,
) -> bytes:
    return ethernet(BROADCAST, source, TYPE_ARP, arp(claimed, sender, target, operation=operation))


def ipv6_frame(payload: bytes = b"12345678", *, length: int | None = None, source: str = "::") -> bytes:
    frame = ethernet(VIRTUAL, SENDER, TYPE_IPV6, ipv6(source, "::1", payload, protocol=59))
    return frame if length is None else patched(frame, 18, u16(length))


GOOD = ip_frame()
FRAMES: list[tuple[str, Verdict, bytes]] = [
    ("to another host", Verdict.ENCAPSULATED, ip_frame("10.0.0.3")),
    ("to another host, routed", Verdict.ENCAPSULATED, ip_frame("10.1.0.1")),
    ("by a transit switch", Verdict.ENCAPSULATED, ip_frame("10.2.0.1")),
    ("to a neighbour on this host", Verdict.DELIVERED_LOCALLY, ip_frame("10.0.0.2")),
    ("to itself", Verdict.HAIRPIN, ip_frame("10.0.0.1")),
    ("to nobody", Verdict.NO_DESTINATION, ip_frame("10.0.0.99")),
    ("into a network without a switch", Verdict.NO_SWITCH, ip_frame("10.3.0.77")),
    ("to a gateway, but no echo", Verdict.NO_DESTINATION, ip_frame("10.3.0.1")),
    ("routed with its last hop", Verdict.GATEWAY_ANSWERED, ip_frame("10.1.0.1", hops=1)),
    ("routed with no hop", Verdict.GATEWAY_ANSWERED, ip_frame("10.1.0.2", hops=0)),
    ("a routed error with its last hop", Verdict.HOP_LIMIT,
     frame(VIRTUAL, SENDER, ipv4("10.0.0.1", "10.1.0.1", b"\x0b" + bytes(35), protocol=1, hops=1))),
    ("on the link with its last hop", Verdict.ENCAPSULATED, ip_frame("10.0.0.3", hops=1)),
    ("from an unknown MAC", Verdict.UNKNOWN_SENDER, ip_frame(source_mac=STRANGER)),
    ("from the tunnel itself", Verdict.TUNNEL_OWN, ip_frame(source_mac=TUNNEL)),
    ("from another's address", Verdict.FOREIGN_SOURCE, ip_frame(source="10.0.0.2")),
    ("from no address", Verdict.FOREIGN_SOURCE, ip_frame(source="0.0.0.0")),
    ("to the broadcast MAC", Verdict.MULTICAST, ip_frame(to=BROADCAST)),
    ("to a multicast MAC", Verdict.MULTICAST, ip_frame(to=mac("01:00:5e:00:00:01"))),
    ("to a multicast address", Verdict.MULTICAST, ip_frame("224.0.0.1")),
    ("to the broadcast address", Verdict.MULTICAST, ip_frame("255.255.255.255")),
    ("with an 802.1Q tag", Verdict.VLAN_TAGGED, tagged(GOOD, (0x8100, 7))),
    ("with an 802.1ad tag", Verdict.VLAN_TAGGED, tagged(GOOD, (0x88A8, 7))),
    ("LLDP", Verdict.UNKNOWN_ETHERTYPE, ethernet(VIRTUAL, SENDER, 0x88CC, bytes(46))),
    ("PPPoE", Verdict.UNKNOWN_ETHERTYPE, ethernet(VIRTUAL, SENDER, 0x8864, bytes(46))),
    ("802.3 length", Verdict.UNKNOWN_ETHERTYPE, ethernet(VIRTUAL, SENDER, 46, bytes(46))),
    ("IPv4 that says it is IPv6", Verdict.BAD_IPV4, patched(GOOD, 14, b"\x65")),
    ("IPv4 with a header of 16 bytes", Verdict.BAD_IPV4, patched(GOOD, 14, b"\x44")),
    ("IPv4 longer than the frame", Verdict.BAD_IPV4, patched(GOOD, 16, b"\xff\xff")),
    ("IPv4 shorter than its header", Verdict.BAD_IPV4, patched(GOOD, 16, b"\x00\x13")),
    ("IPv4 of length zero", Verdict.BAD_IPV4, patched(GOOD, 16, b"\x00\x00")),
    ("IPv4 options longer than the packet", Verdict.BAD_IPV4, patched(GOOD, 14, b"\x4f")),
    ("IPv6 that says it is IPv4", Verdict.BAD_IPV6, patched(ipv6_frame(), 14, b"\x40")),
    ("IPv6 longer than the frame", Verdict.BAD_IPV6, ipv6_frame(length=9)),
    ("IPv6 of length zero with a payload", Verdict.BAD_IPV6, ipv6_frame(bytes(100), length=0)),
    ("IPv6 from another's address", Verdict.FOREIGN_SOURCE, ipv6_frame()),
    ("IPv6 from the mapped own address", Verdict.FOREIGN_SOURCE,
     ipv6_frame(source="::ffff:10.0.0.1")),
    ("ARP for a neighbour on this host", Verdict.NEIGHBOUR_ANSWERED, arp_frame("10.0.0.2")),
    ("ARP for another host's", Verdict.NEIGHBOUR_ANSWERED, arp_frame("10.0.0.3")),
    ("ARP for the gateway", Verdict.NEIGHBOUR_ANSWERED, arp_frame("10.0.0.254")),
    ("ARP for an address in a network", Verdict.NEIGHBOUR_ANSWERED, arp_frame("10.2.0.77")),
    ("ARP for nobody", Verdict.NEIGHBOUR_UNKNOWN, arp_frame("10.0.0.99")),
    ("ARP in another's name", Verdict.ARP_SPOOFED, arp_frame("10.0.0.3", sender="10.0.0.2")),
    ("ARP with another's MAC", Verdict.ARP_SPOOFED, arp_frame("10.0.0.3", claimed=LOCAL)),
    ("ARP announcing another's address", Verdict.ARP_SPOOFED, arp_frame("10.0.0.2", sender="10.0.0.2")),
    ("ARP probe for another's address", Verdict.ARP_SPOOFED, arp_frame("10.0.0.2", sender="0.0.0.0")),
    ("ARP announcement", Verdict.OWN_ADDRESS_ASKED, arp_frame("10.0.0.1")),
    ("ARP probe", Verdict.OWN_ADDRESS_ASKED, arp_frame("10.0.0.1", sender="0.0.0.0")),
    ("ARP answer", Verdict.BAD_ARP, arp_frame("10.0.0.3", operation=2)),
    ("ARP for IEEE 802", Verdict.BAD_ARP, patched(arp_frame("10.0.0.3"), 14, b"\x00\x06")),
    ("ARP for IPv6", Verdict.BAD_ARP, patched(arp_frame("10.0.0.3"), 16, b"\x86\xdd")),
    ("ARP with long addresses", Verdict.BAD_ARP, patched(arp_frame("10.0.0.3"), 18, b"\x08")),
    ("ARP from an unknown MAC", Verdict.UNKNOWN_SENDER, arp_frame("10.0.0.3", source=STRANGER)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("verdict", "frame"), [case[1:] for case in FRAMES], ids=[case[0] for case in FRAMES]
)
def test_the_agents_verdict(bench: Bench, verdict: Verdict, frame: bytes) -> None:
    ran = bench.agent(frame)
    assert ran.verdict is verdict
    redirected = verdict in (Verdict.DELIVERED_LOCALLY, Verdict.NEIGHBOUR_ANSWERED, Verdict.GATEWAY_ANSWERED)
    assert ran.action == (TC_SHOT if verdict.dropped else TC_REDIRECT if redirected else TC_OK)


@pytest.mark.parametrize("length", range(34, len(GOOD)))
def test_ipv4_cut_behind_its_header_is_longer_than_the_frame(bench: Bench, length: int) -> None:
    assert bench.agent(GOOD[:length]).verdict is Verdict.BAD_IPV4


@pytest.mark.parametrize("length", range(14, 42))
def test_arp_cut_at_any_byte(bench: Bench, length: int) -> None:
    assert bench.agent(arp_frame("10.0.0.3")[:length]).verdict is Verdict.TRUNCATED


def test_a_frame_as_long_as_the_mtu_is_good_and_a_longer_one_is_not(bench: Bench) -> None:
    room = 1450 - 20 - 8
    frame = datagram(SENDER, "10.0.0.1", "10.0.0.3", destination_mac=VIRTUAL, payload=bytes(room))
    assert bench.agent(frame).verdict is Verdict.ENCAPSULATED
    frame = datagram(SENDER, "10.0.0.1", "10.0.0.3", destination_mac=VIRTUAL, payload=bytes(room + 1))
    assert bench.agent(frame).verdict is Verdict.OVERSIZED


def test_a_frame_longer_than_its_packet_is_good(bench: Bench) -> None:
    assert bench.agent(GOOD + bytes(40)).verdict is Verdict.ENCAPSULATED


@pytest.mark.parametrize(
    ("target", "answer"),
    [("10.0.0.2", LOCAL), ("10.0.0.3", VIRTUAL), ("10.0.0.254", VIRTUAL), ("10.2.0.9", VIRTUAL)],
)
def test_an_answer_names_local_neighbours_and_the_virtual_mac_for_all_else(
    bench: Bench, target: str, answer: bytes
) -> None:
    expected = arp(answer, target, "10.0.0.1", operation=2, target_mac=SENDER)
    assert bench.agent(arp_frame(target)).frame == ethernet(SENDER, answer, TYPE_ARP, expected)


def test_a_local_frame_is_finished(bench: Bench) -> None:
    frame = ip_frame("10.0.0.2", to=VIRTUAL)
    assert bench.agent(frame).frame == LOCAL + frame[6:]


@pytest.mark.parametrize("destination", ["10.1.0.1", "10.1.0.2", "10.2.0.1"])
@pytest.mark.parametrize("ttl", [2, 64, 255])
def test_a_routed_packet_loses_a_hop_and_keeps_its_checksum_right(
    bench: Bench, destination: str, ttl: int
) -> None:
    frame = bench.agent(ip_frame(destination, hops=ttl)).frame
    assert frame[14:] == ipv4("10.0.0.1", destination, udp(9, 9, b"frame"), hops=ttl - 1)
    assert checksum(frame[14:34]) == 0


def test_the_gateway_says_that_the_time_is_exceeded(bench: Bench) -> None:
    frame = ip_frame("10.1.0.1", hops=1)
    answer = bench.agent(frame).frame
    assert answer[:14] == SENDER + VIRTUAL + b"\x08\x00"
    assert answer[26:34] == ip("10.0.0.254") + ip("10.0.0.1")
    assert (answer[23], answer[34], answer[35]) == (1, 11, 0)
    assert checksums_hold(answer)
    assert answer[42:70] == frame[14:42]


def test_a_packet_on_the_link_keeps_its_hops(bench: Bench) -> None:
    frame = ip_frame("10.0.0.3", hops=7)
    assert bench.agent(frame).frame == frame


@pytest.mark.parametrize(
    ("mark", "verdict", "action"),
    [
        (MARK, Verdict.ACCEPTED_LOCALLY, TC_OK),
        (0, Verdict.NO_TUNNEL_KEY, TC_SHOT),
        (MARK + 1, Verdict.NO_TUNNEL_KEY, TC_SHOT),
    ],
)
def test_the_guard_takes_a_frame_without_a_key_by_the_agents_mark_alone(
    bench: Bench, mark: int, verdict: Verdict, action: int
) -> None:
    ran = bench.run("guard", GOOD, mark=mark)
    assert (ran.verdict, ran.action, ran.frame) == (verdict, action, GOOD)


@pytest.mark.skipif(not has_route_identity(), reason="this kernel cannot read the route: see test_probe")
def test_the_agent_that_looks_at_the_route() -> None:
    with Session.open() as session:
        cookie = session.cookie
    with load("transit.bpf.o") as loaded:
        fill(loaded, cookie)
        bench = Bench(loaded)
        assert bench.agent(GOOD).verdict is Verdict.REFLECTED
        assert bench.agent(arp_frame("10.0.0.3")).verdict is Verdict.NEIGHBOUR_ANSWERED
        fill(loaded, cookie + 1)
        assert bench.agent(GOOD).verdict is Verdict.REFLECTED
        assert bench.agent(arp_frame("10.0.0.3")).verdict is Verdict.FOREIGN_SOCKET
