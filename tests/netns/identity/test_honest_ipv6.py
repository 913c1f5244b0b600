# SPDX-License-Identifier: Apache-2.0
"""IPv6 packets of well-behaved endpoints. The neighbours' MACs are given, so that only identity is tested here."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from mizarnet._model.specs import VIRTUAL_MAC
from tests.frames import ACK, FIN, tcp
from tests.support.wait import wait_until
from tests.world import Container, World

from .scene import IDENTITY, Scene, ip

pytestmark = pytest.mark.vm

OWN = ("own", "own")
CLOSED_PORT = 9999
KERNEL = tuple(int(number) for number in os.uname().release.split(".")[:2])


@pytest.fixture(scope="module")
def scene(ipv6_scene: World) -> Scene:
    """With neighbour entries in all of them."""
    everyone = (ipv6_scene.a, ipv6_scene.b, ipv6_scene.c)
    for one in everyone:
        for other in everyone:
            if one is not other:
                mac = other.endpoint.mac if one.host is other.host else VIRTUAL_MAC
                ip(one.namespace, f"-6 neigh replace {other.ipv6} lladdr {mac} dev eth0 nud permanent")
    return ipv6_scene


@pytest.fixture(params=["b", "c"], ids=["same host", "other host"])
def peer(request: pytest.FixtureRequest, scene: Scene) -> Container:
    """The one that answers."""
    found: Container = getattr(scene, request.param)
    return found


@pytest.fixture(autouse=True)
def no_wrong_drop(scene: Scene) -> Iterator[None]:
    """No frame is refused for its sender's identity. The kernel's own link-local noise has a foreign source."""
    scene.forget()
    before = scene.counts(IDENTITY)
    yield
    assert scene.counts(IDENTITY) == before


def test_ping(scene: Scene, peer: Container) -> None:
    with scene.a.namespace.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as icmp:
        body = b"\0\0" + os.urandom(12)
        icmp.sendto(b"\x80\0" + body, (peer.ipv6, 0))
        while (answer := icmp.recv(2048))[:1] != b"\x81" or answer[4:] != body[2:]:
            pass
    scene.expect(scene.a, "ICMPv6 echo request", OWN)
    scene.expect(peer, "ICMPv6 echo reply", OWN)


def test_reset_of_a_closed_port(scene: Scene, peer: Container) -> None:
    with scene.a.tcp(ip=scene.a.ipv6) as client, pytest.raises(ConnectionRefusedError):
        client.connect((peer.ipv6, CLOSED_PORT))
    scene.expect(peer, "IPv6 TCP RST", ("none", "own"))


def test_connection(scene: Scene, peer: Container) -> None:
    with peer.listener(ip=peer.ipv6) as listener:
        near, far = scene.a.connect(listener)
        with near, far:
            near.sendall(b"hello")
            assert far.recv(16) == b"hello"
    for sender, kinds in ((scene.a, ("SYN", "ACK", "FIN")), (peer, ("SYN+ACK", "ACK", "FIN"))):
        for kind in kinds:
            scene.expect(sender, f"IPv6 TCP {kind}", OWN)


def test_syn_cookie(scene: Scene, peer: Container) -> None:
    peer.namespace.set(**{"ipv4/tcp_syncookies": 2})
    try:
        with peer.listener(ip=peer.ipv6) as listener:
            near, far = scene.a.connect(listener)
            with near, far:
                near.sendall(b"hello")
                assert far.recv(16) == b"hello"
    finally:
        peer.namespace.set(**{"ipv4/tcp_syncookies": 1})
    scene.expect(peer, "IPv6 TCP SYN+ACK", ("none", "own"))


def test_acknowledgement_after_the_connection(scene: Scene, peer: Container) -> None:
    """A late segment is answered from TIME_WAIT."""
    with peer.listener(ip=peer.ipv6) as listener:
        near, far = scene.a.connect(listener)
        local, remote = near.getsockname(), near.getpeername()
        with far:
            near.close()
            assert far.recv(1) == b""
    wait_until(lambda: scene.a.keeps(local[1]), "no TIME_WAIT")
    scene.forget()
    late = tcp(remote[1], local[1], FIN | ACK, acknowledged=1)
    with peer.namespace.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_TCP) as raw:
        raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_CHECKSUM, 16)
        raw.sendto(late, (local[0], 0))
        scene.expect(scene.a, "IPv6 TCP ACK", OWN if KERNEL >= (6, 13) else ("none", "own"))


def test_udp_and_fragments(scene: Scene, peer: Container) -> None:
    with scene.a.udp(ip=scene.a.ipv6) as near, peer.udp(ip=peer.ipv6) as far:
        for data in (b"hello", os.urandom(4000)):
            near.sendto(data, far.getsockname())
            assert far.recv(8192) == data
    scene.expect(scene.a, "IPv6 UDP", OWN)
    scene.expect(scene.a, "fragment", OWN)


def test_port_unreachable(scene: Scene, peer: Container) -> None:
    with scene.a.udp(ip=scene.a.ipv6) as client:
        client.connect((peer.ipv6, CLOSED_PORT))
        client.send(b"anybody?")
        with pytest.raises(ConnectionRefusedError):
            client.recv(16)
    scene.expect(peer, "ICMPv6 unreachable", OWN)


def test_neighbour_solicitation(scene: Scene) -> None:
    with scene.a.udp(ip=scene.a.ipv6) as near:
        near.sendto(b"anybody?", ("fd00::77", CLOSED_PORT))
        scene.expect(scene.a, "neighbour solicitation", OWN)


def test_multicast_listener_report(scene: Scene) -> None:
    with scene.a.namespace.socket(socket.AF_INET6, socket.SOCK_DGRAM) as member:
        group = socket.inet_pton(socket.AF_INET6, "ff02::4242") + scene.a.endpoint.ifindex.to_bytes(
            4, "little"
        )
        member.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group)
        scene.expect(scene.a, "MLD report", OWN)
