# SPDX-License-Identifier: Apache-2.0
"""Traffic that overlays get wrong: it arrives whole, or a counter has the reason why it does not."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator

import attrs
import pytest

import mizarnet as mz
from mizarnet import Verdict
from tests.frames import BROADCAST, arp, datagram, ethernet
from tests.support.counting import wait_for
from tests.support.icmp import datagram_error, echo, family_of, level_of
from tests.support.services import exchange_datagrams
from tests.support.traffic import send_frame
from tests.world import Container, EncapName, Subnet, World, device, new_namespace

VNI = 3
A, B = Subnet(VNI, 1), Subnet(VNI, 2)
PORT = 5353
TIME_EXCEEDED, UNREACHABLE_PORT = {4: (11, 0), 6: (3, 0)}, {4: (3, 3), 6: (1, 4)}


@attrs.frozen
class Parties:
    """``one`` and ``near`` share a host and a network; ``far`` is on another host; ``beyond`` in another network."""

    one: Container
    near: Container
    far: Container
    beyond: Container

    @property
    def agent(self) -> mz.TransitAgent:
        """The sender's."""
        return self.one.host.agent


@pytest.fixture(scope="module")
def world(encap: EncapName) -> Iterator[World]:
    with World(encap, hosts=2) as made:
        for net in (A, B):
            made.network(net)
        yield made


@pytest.fixture(scope="module")
def parties(world: World) -> Parties:
    h1, h2 = world.hosts
    made = Parties(
        world.member(h1, A, 2), world.member(h1, A, 3), world.member(h2, A, 4), world.member(h2, B, 5)
    )
    world.publish()
    return made


@pytest.fixture(params=["near", "far", "beyond"])
def peer(request: pytest.FixtureRequest, parties: Parties) -> Container:
    found: Container = getattr(parties, request.param)
    return found


# -- what arrives ------------------------------------------------------------------------------------------


@pytest.mark.vm
def test_fragments_arrive_and_are_put_together(parties: Parties, peer: Container, version: int) -> None:
    for size in (1500, 4000, 60_000):
        exchange_datagrams(parties.one.namespace, peer.address(version), size=size)


def test_sctp_and_other_protocols_arrive(parties: Parties, peer: Container, version: int) -> None:
    target, family = peer.address(version), family_of(peer.address(version))
    for protocol in (socket.IPPROTO_SCTP, socket.IPPROTO_GRE, 253):
        data = os.urandom(100)
        with (
            peer.namespace.socket(family, socket.SOCK_RAW, protocol) as receiver,
            parties.one.namespace.socket(family, socket.SOCK_RAW, protocol) as sender,
        ):
            sender.sendto(data, (target, 0))
            assert receiver.recv(1 << 16)[20 if version == 4 else 0 :] == data


@pytest.mark.vm
def test_a_closed_port_is_reported_to_the_sender(parties: Parties, peer: Container, version: int) -> None:
    told = datagram_error(parties.one.namespace, peer.address(version))
    assert (told.errno, (told.type, told.code)) == (errno.ECONNREFUSED, UNREACHABLE_PORT[version])
    assert told.offender == peer.address(version)


@pytest.mark.vm
def test_traceroute_shows_the_gateway_and_then_the_endpoint(parties: Parties, version: int) -> None:
    target = parties.beyond.address(version)
    first = datagram_error(parties.one.namespace, target, hops=1)
    assert (first.offender, (first.type, first.code)) == (A.gateways[version == 6], TIME_EXCEEDED[version])
    second = datagram_error(parties.one.namespace, target, hops=2)
    assert (second.offender, (second.type, second.code)) == (target, UNREACHABLE_PORT[version])


def test_within_a_network_no_hop_is_taken(parties: Parties, version: int) -> None:
    told = datagram_error(parties.one.namespace, parties.far.address(version), hops=1)
    assert told.offender == parties.far.address(version)


def test_the_gateways_of_all_networks_answer(parties: Parties, version: int) -> None:
    for net in (A, B):
        assert echo(parties.one.namespace, net.gateways[version == 6])


# -- what does not, and why --------------------------------------------------------------------------------


def listen_to(container: Container, group: str, version: int) -> socket.socket:
    """A socket that would receive what is sent to a group or as broadcast."""
    made = container.namespace.socket(family_of(group), socket.SOCK_DGRAM)
    made.settimeout(0.3)
    made.bind(("", PORT))
    if version == 4 and group.startswith("224."):
        member = socket.inet_aton(group) + socket.inet_aton(container.address(4))
        made.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
    if version == 6:
        member = socket.inet_pton(socket.AF_INET6, group) + struct.pack("@I", container.endpoint.ifindex)
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, member)
    return made


def shout(container: Container, group: str) -> None:
    """One datagram to a group or as broadcast."""
    with container.namespace.socket(family_of(group), socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        if ":" in group:
            sender.setsockopt(level_of(group), socket.IPV6_MULTICAST_IF, container.endpoint.ifindex)
        try:
            sender.sendto(b"to all", (group, PORT))
        except OSError as refused:
            assert refused.errno == errno.ENOBUFS  # with IPv6 the sender is told


@pytest.mark.vm
@pytest.mark.parametrize("group", ["224.0.0.251", "10.1.0.255", "255.255.255.255", "ff02::fb", "ff05::2"])
def test_multicast_and_broadcast_reach_nobody_and_are_counted(parties: Parties, group: str) -> None:
    version = 6 if ":" in group else 4
    before = parties.agent.stats()
    with listen_to(parties.near, group, version) as near, listen_to(parties.far, group, version) as far:
        shout(parties.one, group)
        wait_for(parties.agent, Verdict.MULTICAST, before, program="agent")
        for listener in (near, far):
            with pytest.raises(TimeoutError):
                listener.recv(100)


def test_announcements_of_the_own_address_are_consumed(parties: Parties) -> None:
    one, before = parties.one, parties.agent.stats()
    own = one.address(4)
    announcement = ethernet(BROADCAST, one.mac, 0x0806, arp(one.mac, own, own))
    reply = ethernet(BROADCAST, one.mac, 0x0806, arp(one.mac, own, own, operation=2, target_mac=BROADCAST))
    send_frame(one.namespace, "eth0", announcement)
    wait_for(parties.agent, Verdict.OWN_ADDRESS_ASKED, before, program="agent")
    send_frame(one.namespace, "eth0", reply)
    wait_for(parties.agent, Verdict.BAD_ARP, before, program="agent")
    assert echo(one.namespace, parties.far.address(4))


@pytest.mark.vm
def test_what_a_stack_says_at_its_start_is_counted(world: World, parties: Parties) -> None:
    before = parties.agent.stats()
    space = new_namespace("start-up")
    new = world.add(parties.one.host, space, vni=VNI, ip=A.interfaces(99))
    wait_for(parties.agent, Verdict.MULTICAST, before, program="agent")  # MLD
    wait_for(
        parties.agent, Verdict.OWN_ADDRESS_ASKED, before, program="agent"
    )  # DAD of the link-local address
    assert parties.agent.stats().since(before).agent[Verdict.ENCAPSULATED].packets == 0
    before = parties.agent.stats()
    listen_to(new, "224.1.1.1", 4).close()
    wait_for(parties.agent, Verdict.MULTICAST, before, program="agent")  # IGMP
    world.remove(new)
    space.delete()


def test_a_frame_longer_than_the_device_takes_is_refused_at_the_sender(parties: Parties) -> None:
    one, far = parties.one, parties.far
    room = device(one.namespace, "eth0").mtu - 28
    for extra, fits in ((0, True), (1, False)):
        frame = datagram(
            one.mac, one.address(4), far.address(4), destination_mac=far.mac, payload=bytes(room + extra)
        )
        if fits:
            send_frame(one.namespace, "eth0", frame)
            continue
        with pytest.raises(OSError, match="Message too long"):
            send_frame(one.namespace, "eth0", frame)


def test_a_device_cannot_be_made_longer_than_the_tunnel(parties: Parties) -> None:
    mtu = device(parties.one.namespace, "eth0").mtu
    parties.one.namespace.run(
        "sh",
        "-c",
        f"! ip link set eth0 mtu {mtu + 1} && ip link set eth0 mtu {mtu - 1} && ip link set eth0 mtu {mtu}",
    )
