# SPDX-License-Identifier: Apache-2.0
"""What an endpoint may not send, with the counter that names the reason. Real frames on real hosts."""

from __future__ import annotations

import socket

import pytest

import mizarnet as mz
from mizarnet import Verdict
from tests.frames import BROADCAST, TYPE_ARP, VIRTUAL, arp, datagram, ethernet, mac, tagged
from tests.support.counting import assert_counted, counted, refused
from tests.support.traffic import (
    Capture,
    assert_no_ping,
    assert_ping,
    send_frame,
    send_raw,
    udp_ask,
    udp_echo,
)
from tests.world import TUNNEL, Tenants, mac_of

STRANGER = mac("02:00:00:00:00:99")
IP_RECVTTL = 12  # <linux/in.h>


# -- between tenants ---------------------------------------------------------------------------------------


@pytest.mark.vm
def test_the_same_addresses_in_two_vnis_never_meet(net: Tenants) -> None:
    with (
        udp_echo(net.blue3.namespace, "10.0.0.3", tag=b"blue "),
        udp_echo(net.green3.namespace, "10.0.0.3", tag=b"green "),
    ):
        assert udp_ask(net.blue1.namespace, "10.0.0.3", b"?") == b"blue ?"
        assert udp_ask(net.green1.namespace, "10.0.0.3", b"?") == b"green ?"


@pytest.mark.vm
def test_an_address_of_another_vni_does_not_exist(net: Tenants) -> None:
    since = counted(net.first.agent, lambda: assert_no_ping(net.red1.namespace, "10.0.0.1"))
    assert since.agent[Verdict.NEIGHBOUR_UNKNOWN].packets >= 1
    assert since.agent[Verdict.DELIVERED_LOCALLY].packets == 0
    assert since.agent[Verdict.ENCAPSULATED].packets == 0


def test_a_neighbours_mac_as_destination_opens_no_way_into_its_vni(net: Tenants) -> None:
    frame = datagram(net.red1.mac, "10.0.0.9", "10.0.0.1", destination_mac=net.blue1.mac)
    assert_counted(
        net.first.agent,
        "agent",
        Verdict.NO_DESTINATION,
        lambda: send_frame(net.red1.namespace, "eth0", frame),
    )


# -- what an endpoint may not send -------------------------------------------------------------------------


def frames_of(net: Tenants) -> dict[str, tuple[Verdict, bytes]]:
    """Frames that the first blue endpoint sends, and the reason why each ends."""
    me, neighbour = net.blue1.mac, net.blue2.mac
    good = datagram(me, "10.0.0.1", "10.0.0.3", destination_mac=VIRTUAL)
    return {
        "from an address that is not its own": (
            Verdict.FOREIGN_SOURCE,
            datagram(me, "10.0.0.77", "10.0.0.3", destination_mac=VIRTUAL),
        ),
        "from a neighbour's address": (
            Verdict.FOREIGN_SOURCE,
            datagram(me, "10.0.0.2", "10.0.0.3", destination_mac=VIRTUAL),
        ),
        "from a MAC that nobody has": (
            Verdict.UNKNOWN_SENDER,
            datagram(STRANGER, "10.0.0.1", "10.0.0.3", destination_mac=VIRTUAL),
        ),
        "from the tunnel's MAC": (
            Verdict.TUNNEL_OWN,
            datagram(mac_of(net.first.namespace, TUNNEL), "10.0.0.1", "10.0.0.3", destination_mac=VIRTUAL),
        ),
        "to nobody": (Verdict.NO_DESTINATION, datagram(me, "10.0.0.1", "10.0.0.77", destination_mac=VIRTUAL)),
        "to itself": (Verdict.HAIRPIN, datagram(me, "10.0.0.1", "10.0.0.1", destination_mac=VIRTUAL)),
        "multicast": (
            Verdict.MULTICAST,
            datagram(me, "10.0.0.1", "224.0.0.1", destination_mac=mac("01:00:5e:00:00:01")),
        ),
        "broadcast": (
            Verdict.MULTICAST,
            datagram(me, "10.0.0.1", "255.255.255.255", destination_mac=BROADCAST),
        ),
        "unicast in a broadcast frame": (
            Verdict.MULTICAST,
            datagram(me, "10.0.0.1", "10.0.0.3", destination_mac=BROADCAST),
        ),
        "a VLAN tag": (Verdict.VLAN_TAGGED, tagged(good, (0x8100, 7))),
        "a service tag": (Verdict.VLAN_TAGGED, tagged(good, (0x88A8, 7))),
        "LLDP": (Verdict.UNKNOWN_ETHERTYPE, ethernet(VIRTUAL, me, 0x88CC, bytes(46))),
        "a packet longer than its frame": (Verdict.BAD_IPV4, good[:-1]),
        "ARP in a neighbour's name": (
            Verdict.ARP_SPOOFED,
            ethernet(BROADCAST, me, TYPE_ARP, arp(me, "10.0.0.2", "10.0.0.3")),
        ),
        "ARP with a neighbour's MAC": (
            Verdict.ARP_SPOOFED,
            ethernet(BROADCAST, me, TYPE_ARP, arp(neighbour, "10.0.0.1", "10.0.0.3")),
        ),
        "an ARP answer": (
            Verdict.BAD_ARP,
            ethernet(neighbour, me, TYPE_ARP, arp(me, "10.0.0.1", "10.0.0.2", operation=2)),
        ),
        "an ARP announcement": (
            Verdict.OWN_ADDRESS_ASKED,
            ethernet(BROADCAST, me, TYPE_ARP, arp(me, "10.0.0.1", "10.0.0.1")),
        ),
    }


@pytest.mark.vm
def test_each_frame_that_may_not_leave_is_counted_by_its_reason(net: Tenants) -> None:
    agent = net.first.agent
    for name, (verdict, frame) in frames_of(net).items():
        since = counted(agent, lambda frame=frame: send_frame(net.blue1.namespace, "eth0", frame))  # type: ignore[misc]
        assert refused(since.agent) == {verdict: 1}, name
        assert since.agent[Verdict.ENCAPSULATED].packets == 0


@pytest.mark.vm
def test_a_frame_cut_in_its_headers_is_truncated(net: Tenants) -> None:
    me, namespace = net.blue1.mac, net.blue1.namespace
    whole = {
        34: datagram(me, "10.0.0.1", "10.0.0.3", destination_mac=VIRTUAL),
        54: ethernet(VIRTUAL, me, 0x86DD, b"\x60" + bytes(60)),
        42: ethernet(BROADCAST, me, TYPE_ARP, arp(me, "10.0.0.1", "10.0.0.3")),
    }
    with namespace.packet_socket("eth0") as raw:
        for needed, frame in whole.items():
            for length in range(15, needed):
                since = counted(net.first.agent, lambda part=frame[:length]: send_raw(raw, part))  # type: ignore[misc]
                assert refused(since.agent) == {Verdict.TRUNCATED: 1}, f"{length} bytes of {frame.hex()}"


@pytest.mark.vm
def test_a_neighbours_identity_cannot_be_borrowed(net: Tenants) -> None:
    """A raw socket with the MAC and the address of an endpoint of the same host."""
    frame = datagram(net.blue2.mac, "10.0.0.2", "10.0.0.3", destination_mac=VIRTUAL)
    since = counted(net.first.agent, lambda: send_frame(net.blue1.namespace, "eth0", frame))
    if mz.probe().route_identity:
        assert since.agent[Verdict.FOREIGN_SOCKET].packets == 1
        assert since.agent[Verdict.ENCAPSULATED].packets == 0
    else:  # what probe() says is not promised there
        assert since.agent[Verdict.ENCAPSULATED].packets == 1


def test_what_is_counted_adds_up(net: Tenants) -> None:
    """Nothing is lost between the programs: what one host sends the other receives."""
    before = net.world.stats()
    for _ in range(10):
        assert_ping(net.blue1.namespace, "10.0.0.3")
        assert_ping(net.blue1.namespace, "10.0.0.2")
    first, second = (now.since(then) for now, then in zip(net.world.stats(), before, strict=True))
    accepted = [each.guard[Verdict.ACCEPTED] + each.shortcut[Verdict.ACCEPTED] for each in (second, first)]
    assert [first.agent[Verdict.ENCAPSULATED], second.agent[Verdict.ENCAPSULATED]] == accepted
    redirected = first.agent[Verdict.DELIVERED_LOCALLY] + first.agent[Verdict.NEIGHBOUR_ANSWERED]
    assert first.guard[Verdict.ACCEPTED_LOCALLY] == redirected + first.shortcut[Verdict.ACCEPTED]


@pytest.mark.vm
def test_the_hosts_own_stack_gets_nothing_into_the_tunnel(net: Tenants) -> None:
    own = mac_of(net.first.namespace, TUNNEL)
    frame = datagram(own, "10.0.0.9", "10.0.0.1", destination_mac=net.blue1.mac)
    since = counted(net.first.agent, lambda: send_frame(net.first.namespace, TUNNEL, frame))
    assert refused(since.agent) == {Verdict.TUNNEL_OWN: 1}
    assert since.agent[Verdict.ENCAPSULATED].packets == 0


@pytest.mark.vm
def test_nothing_of_one_tenant_is_seen_by_another(net: Tenants) -> None:
    """Everything that reaches the third tenant's device while the two others talk: nothing but its own."""
    with Capture(net.red1.namespace, "eth0") as seen:
        for source, address in ((net.blue1, "10.0.0.3"), (net.green1, "10.0.0.3"), (net.blue1, "10.0.0.2")):
            assert_ping(source.namespace, address)
        own = ethernet(VIRTUAL, net.red1.mac, 0x88CC, b"the last frame of this test")
        send_frame(net.red1.namespace, "eth0", own)
        frames = seen.until(lambda frame: frame.endswith(b"the last frame of this test"))
    assert [frame for frame in frames if frame[6:12] != net.red1.mac] == []


# -- hops --------------------------------------------------------------------------------------------------


@pytest.mark.vm
def test_only_a_packet_that_leaves_its_network_loses_a_hop(net: Tenants) -> None:
    with net.blue3.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as waiting:
        waiting.bind(("10.0.0.3", 9))
        waiting.setsockopt(socket.IPPROTO_IP, IP_RECVTTL, 1)
        frame = datagram(net.blue1.mac, "10.0.0.1", "10.0.0.3", destination_mac=VIRTUAL, hops=1)
        send_frame(net.blue1.namespace, "eth0", frame)
        _, ancillary, _, _ = waiting.recvmsg(100, 100)
    assert int.from_bytes(ancillary[0][2], "little") == 1
