# SPDX-License-Identifier: Apache-2.0
"""Nothing that leaves by a gateway reaches a tunnel's port or the host's services, and nothing comes in uninvited."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest

import mizarnet as mz
from tests.support.icmp import assert_silence, echo, family_of
from tests.support.namespace import Namespace
from tests.support.outgoing import COUNT, MARK, PORTS, nothing_arrives, send_many
from tests.support.outside import SUBNETS, VNIS, WORLD, Outside, host_address, outside
from tests.support.services import DATAGRAMS, HTTP, fetch_page
from tests.support.traffic import Capture
from tests.world import EncapName, Host


@pytest.fixture(scope="module")
def way(encap: EncapName) -> Iterator[Outside]:
    """A gateway that publishes a port of TCP and one of UDP."""
    with outside(encap, VNIS[:1]) as made:
        near, _ = made.tenants[VNIS[0]]
        ports = [mz.Publish("udp", 5300, near.ip, DATAGRAMS), mz.Publish("tcp", 8080, near.ip, HTTP)]
        gateway = made.gateway(VNIS[0], publish=ports)
        made.world.serve(made.host.namespace)
        yield made
        gateway.delete()


def others(way: Outside) -> list[Namespace]:
    """The hosts behind the one that leads out."""
    return [host.namespace for host in way.world.hosts[1:]]


@pytest.mark.vm
@pytest.mark.parametrize("size", [0, 2000], ids=["whole", "fragments"])
def test_frames_for_the_ports_of_tunnels(way: Outside, version: int, size: int) -> None:
    near, far = way.tenants[VNIS[0]]
    targets = [host_address(host, version) for host in way.world.hosts] + [WORLD[version]]
    before = [refusals(host) for host in way.world.hosts]
    for tenant in (near, far):
        for target in targets:
            with nothing_arrives(*others(way)):
                send_many(tenant.namespace, target, PORTS, size=size)
    assert [refusals(host) for host in way.world.hosts] == before
    for tenant in (near, far):
        assert echo(tenant.namespace, WORLD[version])


def refusals(host: Host) -> int:
    """Packets that the host's guard refused: what reaches a tunnel's port is counted there."""
    return sum(counter.packets for verdict, counter in host.agent.stats().guard.items() if verdict.dropped)


def test_frames_by_a_published_port(way: Outside) -> None:
    """To the published port, where nothing is sent on to a tunnel; it leads into the VNI and nowhere else."""
    near, far = way.tenants[VNIS[0]]
    with nothing_arrives(*others(way)):
        send_many(near.namespace, way.host.address, [5300])
        for port in PORTS:
            with pytest.raises((mz.ExistsError, mz.InvalidValueError)):
                gateway(way).update(publish=[mz.Publish("udp", port, near.ip, port)])
            with pytest.raises(mz.InvalidValueError):
                gateway(way).update(publish=[mz.Publish("udp", 5300, far.ip, port)])
            send_many(near.namespace, way.host.address, [5300, *PORTS])
    near, _ = way.tenants[VNIS[0]]
    ports = [mz.Publish("udp", 5300, near.ip, DATAGRAMS), mz.Publish("tcp", 8080, near.ip, HTTP)]
    gateway(way).update(publish=ports)


def gateway(way: Outside) -> mz.Gateway:
    return mz.Gateway.open(way.host.agent, vni=VNIS[0])


@pytest.mark.vm
def test_nobody_gets_the_answers_of_a_tunnel(way: Outside) -> None:
    """Sent from the tunnel's port, a datagram would make the frames of a peer answers to it."""
    near, _ = way.tenants[VNIS[0]]
    port = way.host.tunnel.port
    with near.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind(("0.0.0.0", port))
        for source in range(40000, 40000 + COUNT):
            sender.sendto(MARK, (way.peer.address, source))
    with way.peer.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind((way.peer.address, 0))
        with near.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"who", other.getsockname())
            assert other.recvfrom(10)[1][1] not in (*PORTS, port)
    assert echo(way.tenants[VNIS[0]][1].namespace, near.ip)


@pytest.mark.vm
def test_the_services_of_the_host(way: Outside, version: int) -> None:
    """Of the host that leads out; those of others are the outside's."""
    near, far = way.tenants[VNIS[0]]
    own = host_address(way.host, version)
    for tenant in (near, far):
        closed(tenant.namespace, own)
        closed(tenant.namespace, LINK[version])
        assert not is_heard(way, tenant.namespace, own, COUNT)
    assert gateway(way).update(host_access=True) == ("host_access",)
    for tenant in (near, far):
        fetch_page(tenant.namespace, own)
        assert is_heard(way, tenant.namespace, own, 1)
    with nothing_arrives(*others(way)):
        send_many(near.namespace, own, PORTS)
    assert gateway(way).update(host_access=False) == ("host_access",)
    closed(near.namespace, own)
    assert echo(way.host.namespace, WORLD[version])


def is_heard(way: Outside, tenant: Namespace, address: str, count: int) -> bool:
    """Whether a service of the host gets one of so many datagrams."""
    family = family_of(address)
    with (
        way.host.namespace.socket(family, socket.SOCK_DGRAM) as service,
        tenant.socket(family, socket.SOCK_DGRAM) as asking,
    ):
        service.bind(("", 7003))
        service.settimeout(0.5)
        for _ in range(count):
            asking.sendto(MARK, (address, 7003))
        with suppress(TimeoutError):
            return service.recv(100) == MARK
    return False


LINK = {4: "169.254.96.0", 6: "fd00:6d7a:6774::"}


def closed(tenant: Namespace, address: str) -> None:
    """Neither TCP nor ICMP is answered."""
    assert_silence(tenant, address)
    with tenant.socket(family_of(address), socket.SOCK_STREAM) as asking:
        asking.settimeout(0.3)
        with pytest.raises(OSError, match=r"timed out|refused|[Uu]nreachable"):
            asking.connect((address, HTTP))


def test_link_local_addresses_by_the_host(way: Outside) -> None:
    """Whoever asks a cloud's metadata service by the host, asks for the host."""
    near, _ = way.tenants[VNIS[0]]
    way.space.run("ip", "address", "add", "169.254.169.254/32", "dev", "lo")
    way.host.namespace.run("ip", "route", "add", "169.254.169.254", "via", way.world.hosts[2].address)
    assert echo(way.host.namespace, "169.254.169.254")
    closed(near.namespace, "169.254.169.254")


@pytest.mark.vm
def test_from_the_wire_into_the_vni(way: Outside, version: int) -> None:
    """Who is on the wire sends to a tenant, to the gateway or by the host to others, and nobody gets it."""
    near, far = way.tenants[VNIS[0]]
    own, length = host_address(way.host, version), {4: 32, 6: 128}[version]
    beyond = {4: "198.51.100.77", 6: "2001:db8:77::1"}[version]
    targets = [near.address(version), far.address(version), SUBNETS[0].address(2, version)]
    if way.host.namespace.run("sysctl", "-n", f"net.ipv{version}.conf.all.forwarding").strip() == "0":
        targets.append(beyond)  # else the host was a router before
    targets.append({4: "169.254.96.1", 6: "fd00:6d7a:6774::1"}[version])
    # A host that forwarded what comes in by its device would send it there.
    way.host.namespace.run(
        "ip", f"-{version}", "route", "add", beyond, "via", host_address(way.peer, version)
    )
    for target in targets:
        way.space.run("ip", f"-{version}", "route", "add", f"{target}/{length}", "via", own)
    try:
        with (
            Capture(near.namespace, "eth0") as seen,
            Capture(far.namespace, "eth0") as seen_far,
            nothing_arrives(way.peer.namespace),
        ):
            for target in targets:
                with way.space.socket(family_of(target), socket.SOCK_DGRAM) as sender:
                    for _ in range(COUNT):
                        with_patience(sender, (target, DATAGRAMS))
            for each, capture in ((near, seen), (far, seen_far)):
                assert echo(each.namespace, WORLD[version])
                frames = capture.until(lambda frame: WORLD_BYTES[version] in frame)
                assert not [frame for frame in frames if MARK in frame]
    finally:
        for target in targets:
            way.space.run("ip", f"-{version}", "route", "del", f"{target}/{length}")
        way.host.namespace.run("ip", f"-{version}", "route", "del", beyond)


WORLD_BYTES = {version: socket.inet_pton(family_of(ip), ip) for version, ip in WORLD.items()}


def with_patience(sender: socket.socket, target: tuple[str, int]) -> None:
    """Send once more what was refused because of an error that came back for an earlier one."""
    for _ in range(3):
        try:
            sender.sendto(MARK, target)
        except OSError:
            continue
        return


def test_a_peer_that_came_after_the_gateway(way: Outside, version: int) -> None:
    near, _ = way.tenants[VNIS[0]]
    late = {4: "192.0.2.99", 6: "fd00:ee::99"}[version]
    last = way.world.hosts[2].namespace
    last.run("ip", "address", "add", late, "dev", "lo")
    way.host.agent.peers.add(late)
    with nothing_arrives(last):
        send_many(near.namespace, late, PORTS)
