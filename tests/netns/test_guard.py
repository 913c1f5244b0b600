# SPDX-License-Identifier: Apache-2.0
"""What a host may not be sent, with the counter that names the reason: tunnel packets made by hand."""

from __future__ import annotations

import socket

import attrs
import pytest

from mizarnet import Verdict
from tests.frames import (
    BROADCAST,
    PORTS,
    TYPE_ARP,
    arp,
    datagram,
    ethernet,
    frame,
    geneve,
    geneve_option,
    ipv4,
    mac,
    patched,
    tagged,
    tunnel,
    udp,
    vxlan,
)
from tests.support.counting import assert_counted, refused, wait_for
from tests.support.traffic import send_frame
from tests.world import BLUE, TUNNEL, UNDERLAY, Tenants, mac_of

STRANGER = mac("02:00:00:00:00:99")
IP_RECVTTL = 12  # <linux/in.h>


@attrs.frozen
class Forged:
    """A tunnel packet made by hand and put on the wire by the second host; by default a good one."""

    net: Tenants
    source: str = "192.0.2.2"
    destination: str = "192.0.2.1"
    vni: int = BLUE
    inner: bytes = b""
    tunnel: bytes = b""

    def send(self) -> None:
        net = self.net
        encap, inner = net.world.encap, self.inner or good_inner(net)
        payload = self.tunnel or tunnel(encap, self.vni, inner)
        outer = ipv4(self.source, self.destination, udp(4242, PORTS[encap], payload))
        to, me = (mac_of(host.namespace, UNDERLAY) for host in net.world.hosts)
        send_frame(net.second.namespace, UNDERLAY, frame(to, me, outer))


def good_inner(net: Tenants) -> bytes:
    return datagram(net.blue3.mac, "10.0.0.3", "10.0.0.1", destination_mac=net.blue1.mac)


@pytest.mark.vm
def test_a_good_packet_made_by_hand_arrives(net: Tenants) -> None:
    with net.blue1.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as waiting:
        waiting.bind(("10.0.0.1", 9))
        assert_counted(net.first.agent, "guard", Verdict.ACCEPTED, Forged(net).send)
        assert waiting.recv(100) == b"frame"


@pytest.mark.vm
def test_the_guard_finds_the_endpoint_by_its_address_and_not_by_the_mac(net: Tenants) -> None:
    inner = datagram(net.blue3.mac, "10.0.0.3", "10.0.0.1", destination_mac=net.red1.mac)
    with net.blue1.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as waiting:
        waiting.bind(("10.0.0.1", 9))
        Forged(net, inner=inner).send()
        assert waiting.recv(100) == b"frame"


def forged(net: Tenants) -> dict[str, tuple[Verdict, Forged]]:
    """Tunnel packets with one thing wrong, and the reason why each is refused."""
    to, sender = net.blue1.mac, net.blue3.mac
    tunnel_mac = mac_of(net.first.namespace, TUNNEL)
    good = good_inner(net)
    return {
        "from a host that is no peer": (Verdict.FOREIGN_PEER, Forged(net, source="203.0.113.5")),
        "of a VNI without endpoints here": (Verdict.NO_DESTINATION, Forged(net, vni=4711)),
        "for an address that is not here": (
            Verdict.NO_DESTINATION,
            Forged(net, inner=datagram(sender, "10.0.0.3", "10.0.0.66", destination_mac=to)),
        ),
        "from an endpoint of this host": (
            Verdict.SOURCE_IS_LOCAL,
            Forged(net, inner=datagram(net.blue2.mac, "10.0.0.2", "10.0.0.1", destination_mac=to)),
        ),
        "from the receiver itself": (
            Verdict.SOURCE_IS_LOCAL,
            Forged(net, inner=datagram(sender, "10.0.0.1", "10.0.0.1", destination_mac=to)),
        ),
        "broadcast inside": (
            Verdict.MULTICAST,
            Forged(net, inner=datagram(sender, "10.0.0.3", "10.0.0.1", destination_mac=BROADCAST)),
        ),
        "multicast inside": (
            Verdict.MULTICAST,
            Forged(net, inner=datagram(sender, "10.0.0.3", "224.0.0.1", destination_mac=to)),
        ),
        "ARP inside": (
            Verdict.BAD_ARP,
            Forged(net, inner=ethernet(to, sender, TYPE_ARP, arp(sender, "10.0.0.3", "10.0.0.1"))),
        ),
        "for the tunnel's own MAC": (
            Verdict.TUNNEL_MAC,
            Forged(net, inner=datagram(sender, "10.0.0.3", "10.0.0.1", destination_mac=tunnel_mac)),
        ),
        "a VLAN tag inside": (Verdict.VLAN_TAGGED, Forged(net, inner=tagged(good, (0x8100, 7)))),
        "something else inside": (
            Verdict.UNKNOWN_ETHERTYPE,
            Forged(net, inner=ethernet(to, sender, 0x88CC, bytes(46))),
        ),
        "a packet longer than its frame": (Verdict.BAD_IPV4, Forged(net, inner=good[:-1])),
    }


@pytest.mark.vm
def test_each_tunnel_packet_with_one_thing_wrong_is_counted_by_its_reason(net: Tenants) -> None:
    # The kernel does not hand over what comes from an address it would not answer to.
    net.first.namespace.run(
        "sysctl", "-q", "-w", "net.ipv4.conf.eth0.rp_filter=0", "net.ipv4.conf.all.rp_filter=0"
    )
    net.first.namespace.run("ip", "route", "replace", "203.0.113.0/24", "dev", UNDERLAY)
    agent = net.first.agent
    for name, (verdict, packet) in forged(net).items():
        before = agent.stats()
        packet.send()
        wait_for(agent, verdict, before, program="guard")
        since = agent.stats().since(before)
        assert refused(since.guard) == {verdict: 1}, name
        assert since.guard[Verdict.ACCEPTED].packets == 0


@pytest.mark.vm
def test_another_address_of_the_host_is_not_the_tunnels(net: Tenants) -> None:
    net.first.namespace.run("ip", "address", "add", "192.0.2.101/24", "dev", UNDERLAY)
    assert_counted(
        net.first.agent, "guard", Verdict.FOREIGN_LOCAL, Forged(net, destination="192.0.2.101").send
    )


# -- tunnel headers that say more than a VNI ---------------------------------------------------------------

OPTIONS = {
    "an option that nobody knows": (Verdict.ACCEPTED, geneve_option(1, bytes(8)), 0),
    "options of all lengths, to the last byte": (
        Verdict.ACCEPTED,
        geneve_option(1) + geneve_option(2, bytes(124)) + geneve_option(3, bytes(116)),
        0,
    ),
    "a critical option, announced": (Verdict.GENEVE_OPTIONS, geneve_option(0x81, bytes(4)), 0x40),
    "a critical option, not announced": (Verdict.GENEVE_OPTIONS, geneve_option(0x81, bytes(4)), 0),
    "a critical option behind others": (
        Verdict.GENEVE_OPTIONS,
        geneve_option(1, bytes(8)) + geneve_option(2) + geneve_option(0x80),
        0,
    ),
    "an option longer than the header": (Verdict.GENEVE_OPTIONS, geneve_option(1, bytes(4), length=31), 0),
    "a control frame": (Verdict.GENEVE_OPTIONS, b"", 0x80),
}


@pytest.mark.vm
@pytest.mark.parametrize("what", OPTIONS)
def test_what_a_tunnel_header_says_beyond_the_vni(net: Tenants, what: str) -> None:
    """Geneve: options are parsed. VXLAN has none: what its header says beyond the VNI the kernel refuses."""
    verdict, options, flags = OPTIONS[what]
    if net.world.encap == "geneve":
        said = geneve(BLUE, good_inner(net), options=options, flags=flags)
        assert_counted(net.first.agent, "guard", verdict, Forged(net, tunnel=said).send)
        return
    before = net.first.agent.stats()
    Forged(net, tunnel=patched(vxlan(BLUE, good_inner(net)), 0, bytes([0x08, 0, flags or 1, 1]))).send()
    assert_counted(net.first.agent, "guard", Verdict.ACCEPTED, Forged(net).send)
    since = net.first.agent.stats().since(before).guard
    assert (since[Verdict.ACCEPTED].packets, refused(since)) == (1, {})
