# SPDX-License-Identifier: Apache-2.0
"""Packets of well-behaved endpoints, kind by kind: the route names the own device, and nothing is dropped wrongly.

With IPv6 the neighbours' MACs are given, so that only identity is tested there.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

import mizarnet as mz
from mizarnet._model.specs import VIRTUAL_MAC
from tests.frames import ACK, FIN, TCP, summed, tcp
from tests.support.icmp import echo, family_of
from tests.support.namespace import Namespace
from tests.support.wait import wait_until
from tests.world import Container

from .scene import IDENTITY, Scene, forget_neighbours, ip, new_scene, udp_frame

pytestmark = pytest.mark.vm

OWN = ("own", "own")
CLOSED_PORT = 9999
KERNEL = tuple(int(number) for number in os.uname().release.split(".")[:2])
ipv4_only = pytest.mark.parametrize("scene", [4], ids=["ipv4"], indirect=True)
ipv6_only = pytest.mark.parametrize("scene", [6], ids=["ipv6"], indirect=True)


@pytest.fixture(scope="module", params=[4, 6], ids=["ipv4", "ipv6"])
def scene(request: pytest.FixtureRequest, observer: Path | None) -> Iterator[Scene]:
    """Once for each family that the endpoints speak."""
    with new_scene(observer, version=request.param) as made:
        if made.version == 6:
            introduce(made)
        yield made


def introduce(scene: Scene) -> None:
    """Neighbour entries in all of them."""
    everyone = (scene.a, scene.b, scene.c)
    for one in everyone:
        for other in everyone:
            if one is not other:
                mac = other.endpoint.mac if one.host is other.host else VIRTUAL_MAC
                ip(one.namespace, f"-6 neigh replace {other.ipv6} lladdr {mac} dev eth0 nud permanent")


@pytest.fixture(params=["b", "c"], ids=["same host", "other host"])
def peer(request: pytest.FixtureRequest, scene: Scene) -> Container:
    """The one that answers."""
    found: Container = getattr(scene, request.param)
    return found


@pytest.fixture(autouse=True)
def no_wrong_drop(scene: Scene) -> Iterator[None]:
    """No frame is refused for its sender's identity, or source address; IPv6 noise has a foreign link-local one."""
    reasons = IDENTITY if scene.version == 6 else (*IDENTITY, mz.Verdict.FOREIGN_SOURCE)
    scene.forget()
    before = scene.counts(reasons)
    yield
    assert scene.counts(reasons) == before


@pytest.fixture
def acquainted(scene: Scene, peer: Container) -> None:
    """Everybody's MAC is known; what was seen on the way to that is forgotten."""
    ping(scene, scene.a, peer)
    scene.forget()


def ping(scene: Scene, sender: Container, to: Container) -> None:
    """One echo request and its reply."""
    assert echo(sender.namespace, to.address(scene.version))


def exchange(near: socket.socket, far: socket.socket) -> None:
    """A few bytes each way."""
    for source, sink in ((near, far), (far, near)):
        source.sendall(b"hello")
        assert sink.recv(16) == b"hello"


@pytest.mark.usefixtures("acquainted")
def test_ping(scene: Scene, peer: Container) -> None:
    ping(scene, scene.a, peer)
    scene.expect(scene.a, f"{scene.icmp} echo request", OWN)
    scene.expect(peer, f"{scene.icmp} echo reply", OWN)


@ipv4_only
@pytest.mark.usefixtures("acquainted")
def test_echo_reply_that_waits_for_arp(scene: Scene, peer: Container) -> None:
    """The reply leaves when ARP is answered: then the kernel's ICMP socket is the initial namespace's again."""
    forget_neighbours(peer)
    ping(scene, scene.a, peer)
    scene.expect(peer, "ICMP echo reply", ("initial", "own"))
    scene.expect(peer, "ARP request", ("none", "own"))


@pytest.mark.usefixtures("acquainted")
def test_reset_of_a_closed_port(scene: Scene, peer: Container) -> None:
    reset(scene, peer)
    scene.expect(peer, f"{scene.prefix}TCP RST", OWN if scene.version == 4 else ("none", "own"))


@ipv4_only
@pytest.mark.usefixtures("acquainted")
def test_reset_that_waits_for_arp(scene: Scene, peer: Container) -> None:
    forget_neighbours(peer)
    reset(scene, peer)
    scene.expect(peer, "TCP RST", ("initial", "own"))


def reset(scene: Scene, peer: Container) -> None:
    """The attempt to connect to a closed port."""
    with scene.tcp(scene.a) as client, pytest.raises(ConnectionRefusedError):
        client.connect((peer.address(scene.version), CLOSED_PORT))


def test_connection(scene: Scene, peer: Container) -> None:
    with scene.connection(peer) as (near, far):
        exchange(near, far)
    for sender, kinds in ((scene.a, ("SYN", "ACK", "FIN")), (peer, ("SYN+ACK", "ACK", "FIN"))):
        for kind in kinds:
            scene.expect(sender, f"{scene.prefix}TCP {kind}", OWN)


def test_syn_cookie(scene: Scene, peer: Container) -> None:
    """A server under a flood of SYNs answers without a socket."""
    peer.namespace.set(**{"ipv4/tcp_syncookies": 2})
    try:
        with scene.connection(peer) as (near, far):
            exchange(near, far)
    finally:
        peer.namespace.set(**{"ipv4/tcp_syncookies": 1})
    scene.expect(peer, f"{scene.prefix}TCP SYN+ACK", ("none", "own"))


def test_acknowledgement_after_the_connection(scene: Scene, peer: Container) -> None:
    """A late segment is answered from TIME_WAIT."""
    with scene.connection(peer) as (near, far):
        local, remote = near.getsockname(), near.getpeername()
        near.close()
        assert far.recv(1) == b""
    wait_until(lambda: scene.a.keeps(local[1]), "no TIME_WAIT")
    scene.forget()
    late = tcp(remote[1], local[1], FIN | ACK, acknowledged=1)
    with peer.namespace.socket(family_of(local[0]), socket.SOCK_RAW, socket.IPPROTO_TCP) as raw:
        raw.sendto(summed(remote[0], local[0], TCP, late), (local[0], 0))
        whose = OWN if scene.version == 4 or KERNEL >= (6, 13) else ("none", "own")
        scene.expect(scene.a, f"{scene.prefix}TCP ACK", whose)


def test_udp(scene: Scene, peer: Container) -> None:
    with scene.udp(scene.a) as near, scene.udp(peer) as far:
        near.connect(far.getsockname())
        far.connect(near.getsockname())
        exchange(near, far)
    scene.expect(scene.a, f"{scene.prefix}UDP", OWN)
    scene.expect(peer, f"{scene.prefix}UDP", OWN)


def test_fragments(scene: Scene, peer: Container) -> None:
    data = os.urandom(4000)
    with scene.udp(scene.a) as near, scene.udp(peer) as far:
        near.sendto(data, far.getsockname())
        assert far.recv(8192) == data
    scene.expect(scene.a, "fragment", OWN)


@pytest.mark.usefixtures("acquainted")
def test_port_unreachable(scene: Scene, peer: Container) -> None:
    refused(scene, peer)
    scene.expect(peer, f"{scene.icmp} unreachable", OWN)


@ipv4_only
@pytest.mark.usefixtures("acquainted")
def test_port_unreachable_that_waits_for_arp(scene: Scene, peer: Container) -> None:
    forget_neighbours(peer)
    refused(scene, peer)
    scene.expect(peer, "ICMP unreachable", ("initial", "own"))


def refused(scene: Scene, to: Container) -> None:
    """A datagram to a closed port, and the error that comes back."""
    with scene.udp(scene.a) as client:
        client.connect((to.address(scene.version), CLOSED_PORT))
        client.send(b"anybody?")
        with pytest.raises(ConnectionRefusedError):
            client.recv(16)


@ipv4_only
def test_super_packets(scene: Scene, peer: Container) -> None:
    data = os.urandom(1 << 20)
    with scene.connection(peer) as (near, far):
        assert transfer(near, far, data) == data
    scene.expect(scene.a, "TCP ACK", OWN)
    if scene.route_identity:
        assert any(frame.super_packet for frame in scene.frames(scene.a, "TCP ACK"))


def transfer(near: socket.socket, far: socket.socket, data: bytes) -> bytes:
    """What arrives of ``data``."""
    arrived, rest = bytearray(), memoryview(data)
    while len(arrived) < len(data):
        rest = rest[near.send(rest[:65536]) :]
        arrived += far.recv(1 << 20)
    return bytes(arrived)


@ipv4_only
def test_arp_for_a_waiting_packet(scene: Scene, peer: Container) -> None:
    forget_neighbours(scene.a)
    ping(scene, scene.a, peer)
    scene.expect(scene.a, "ARP request", ("none", "own"))


@ipv4_only
@pytest.mark.usefixtures("acquainted")
def test_arp_to_confirm_a_neighbour(scene: Scene, peer: Container) -> None:
    """No packet waits, so there is no route either: what is left to check is the content."""
    ip(scene.a.namespace, f"neigh change {peer.ip} dev eth0 nud probe")
    wait_until(lambda: "REACHABLE" in scene.a.namespace.run("ip", "neigh", "show", peer.ip), "not confirmed")
    scene.expect(scene.a, "ARP request", ("none", "none"))


@ipv6_only
def test_neighbour_solicitation(scene: Scene) -> None:
    with scene.udp(scene.a) as near:
        near.sendto(b"anybody?", ("fd00::77", CLOSED_PORT))
        scene.expect(scene.a, "neighbour solicitation", OWN)


@ipv6_only
def test_multicast_listener_report(scene: Scene) -> None:
    with scene.a.namespace.socket(socket.AF_INET6, socket.SOCK_DGRAM) as member:
        group = socket.inet_pton(socket.AF_INET6, "ff02::4242")
        device = scene.a.endpoint.ifindex.to_bytes(4, "little")
        member.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group + device)
        scene.expect(scene.a, "MLD report", OWN)


@ipv4_only
def test_packet_socket_with_the_own_address(scene: Scene, peer: Container) -> None:
    with scene.a.packet_socket() as raw, peer.udp() as far:
        raw.send(udp_frame(scene.a, peer, far.getsockname()[1], b"by hand"))
        assert far.recv(64) == b"by hand"
    scene.expect(scene.a, "UDP", ("own", "none"))


@ipv4_only
def test_forwarded_packet(scene: Scene, peer: Container) -> None:
    """From a namespace behind the endpoint: no socket of the endpoint's, but its device."""
    with (
        scene.extra("router", "10.0.0.10/24", forwarding=True) as router,
        scene.namespace("behind") as behind,
    ):
        router.namespace.set(**{"ipv4/ip_forward": 1})
        join(router, behind)
        with behind.socket(socket.AF_INET, socket.SOCK_DGRAM) as near, peer.udp() as far:
            near.sendto(b"from behind", far.getsockname())
            data, source = far.recvfrom(64)
        assert (data, source[0]) == (b"from behind", "10.9.0.2")
        scene.expect(router, "UDP", ("none", "own"))


def join(router: Container, behind: Namespace) -> None:
    """Put a namespace behind the router. The way back is left out: nobody else knows of it."""
    ip(
        router.namespace,
        f"link add veth0 type veth peer name eth0 netns {behind.name}",
        "address add 10.9.0.1/24 dev veth0",
        "link set veth0 up",
    )
    ip(behind, "address add 10.9.0.2/24 dev eth0", "link set eth0 up", "route add default via 10.9.0.1")


@ipv4_only
def test_endpoint_of_the_host(scene: Scene, peer: Container) -> None:
    """Its namespace is the host's own."""
    with scene.host_endpoint("10.0.0.11/24") as host:
        ping(scene, host, peer)
        ping(scene, peer, host)
        scene.expect(host, "ICMP echo request", OWN)
        scene.expect(host, "ICMP echo reply", OWN)
